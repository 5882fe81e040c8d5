"""The course's own model: its `generate`, behind the arguments of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nogaps.prior.sampling import IMAGES, Process, check_settings, is_finished
from nogaps.runtime.batches import MANIFEST
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, load_npy, save_json, save_npy

SCHEDULERS, STEPS, TEMPERATURES = ("ddim", "ddpm"), (10, 50), (0, 1)  # what the course's takes
TOLERANCE = 0.05  # how far outside [0,1] its decoder may go


def _course_generate() -> Callable[..., list[torch.Tensor]]:
    """`generate` of the package that the course hands out; BadInput if it cannot be imported."""
    try:
        from ese_invldm import generate
    except ImportError as error:
        problem = f"the package ese_invldm cannot be imported ({error})"
        if isinstance(error, ModuleNotFoundError) and error.name == "ese_invldm":
            problem = "the package ese_invldm is not installed"
        expected = "the course's package, or use the shipped prior"
        raise BadInput(problem, expected, path="prior 'course'") from error
    return generate


def generate(
    num_samples: int = 2048,
    num_inference_steps: int = 25,
    batch_size: int = 64,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    out: str | Path | None = None,
) -> list[torch.Tensor]:
    """Sample the course's model.

    Args:
        num_samples: How many images.
        num_inference_steps: Steps of the reverse process, 10 to 50.
        batch_size: Images at a time; the images depend on it.
        scheduler: "ddim" or "ddpm".
        temperature: Scale of the noise, 0 to 1.
        seed: Seed of the whole set.
        out: A folder to which `images.npy` and its manifest are written; if they are there and of
            the same arguments, they are read back. The manifest's "values" is `describe` of what
            the model returned, before values outside [0,1] were clipped.

    Returns:
        A list of batches (B,1,64,64) float32 in [0,1] on the CPU.

    Raises:
        BadInput: The package is missing, does not take the arguments, or returns another shape,
            NaN, or a range far from [0,1].
    """
    settings = {
        "num_samples": num_samples,
        "num_inference_steps": num_inference_steps,
        "batch_size": batch_size,
        "scheduler": scheduler,
        "temperature": temperature,
        "seed": seed,
    }
    check_settings(num_samples, batch_size, Process(num_inference_steps, scheduler, temperature))
    _check_limits(num_inference_steps, scheduler, temperature)
    manifest = {"prior": "course", **settings}
    if out is not None and is_finished(Path(out), manifest):
        return list(torch.from_numpy(load_npy(Path(out) / IMAGES)).split(batch_size))
    x = _join(_course_generate()(**settings), num_samples)
    if out is not None:
        save_json(Path(out) / MANIFEST, {**manifest, "values": describe(x)})
        save_npy(Path(out) / IMAGES, x.clamp(0, 1).numpy())
    return list(x.clamp(0, 1).split(batch_size))


def _check_limits(num_inference_steps: int, scheduler: str, temperature: float) -> None:
    takes = "as the course's model takes"
    if scheduler not in SCHEDULERS:
        raise BadInput(f"scheduler {scheduler!r}", f"{' or '.join(SCHEDULERS)}, {takes}")
    for name, value, (low, high) in (
        ("num_inference_steps", num_inference_steps, STEPS),
        ("temperature", temperature, TEMPERATURES),
    ):
        if not low <= value <= high:
            raise BadInput(f"{name} {value}", f"{low} to {high}, {takes}")


def _join(batches: list[torch.Tensor], num_samples: int) -> torch.Tensor:
    """The course's batches as (N,1,64,64) float32 on the CPU.

    Raises BadInput if they are not tensors of that shape, or hold NaN or values outside [0,1].
    """
    engine = "ese_invldm"
    if not isinstance(batches, (list, tuple)) or not all(map(torch.is_tensor, batches)):
        problem = f"returned a {type(batches).__name__}"
        raise BadInput(problem, "a list of tensors", path=engine)
    shapes = [tuple(batch.shape) for batch in batches]
    count = sum(shape[0] for shape in shapes)
    if any(shape[1:] != (1, 64, 64) for shape in shapes) or count != num_samples:
        returned = ", ".join(map(str, dict.fromkeys(shapes))) or "nothing"
        expected = f"({num_samples}, 1, 64, 64) in all"
        raise BadInput(f"returned {returned}", expected, path=engine)
    x = torch.cat([batch.detach().float().cpu() for batch in batches])
    low, high = float(x.min()), float(x.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also false for NaN
        problem = f"returned values in [{low:.3g}, {high:.3g}]"
        raise BadInput(problem, "[0, 1]", path=engine)
    return x


def describe(x: torch.Tensor, y: torch.Tensor | None = None) -> dict[str, float]:
    """Return grey values of samples, all pixels together.

    Args:
        x: Samples (N,1,H,W).
        y: A corrupted test set (M,1,H,W), to compare the contrast over its observed pixels.

    Returns:
        "low", "high", "mean" and "std" of the samples. With a test set also "observed_std";
        "std_ratio", the samples' standard deviation at the same places over it; "share_above", the
        share of observed pixels above the samples' maximum.

    Raises:
        BadInput: The sizes differ, or nothing is observed.
    """
    values = {"low": x.min(), "high": x.max(), "mean": x.mean(), "std": x.std()}
    if y is not None:
        if x.shape[1:] != y.shape[1:]:
            sizes = (f"({', '.join(map(str, images.shape[1:]))})" for images in (x, y))
            raise BadInput("the samples have images of {}, the test set of {}".format(*sizes))
        observed = (y != 0).any(dim=0)
        if not observed.any():
            raise BadInput("no pixel is observed", "some", path="test set")
        seen = y[:, observed]
        values["observed_std"] = seen.std()
        values["std_ratio"] = x[:, observed].std() / seen.std()
        values["share_above"] = (seen > x.max()).float().mean()
    return {name: float(value) for name, value in values.items()}


def describe_folder(out: str | Path, test_set: torch.Tensor | None = None) -> dict[str, float]:
    """`describe` the samples saved in `out`; low and high are those before clipping."""
    x = torch.from_numpy(load_npy(Path(out) / IMAGES))
    before = load_json(Path(out) / MANIFEST).get("values", {})
    return describe(x, test_set) | {key: before[key] for key in ("low", "high") if key in before}


def as_text(values: dict[str, float]) -> str:
    """Return the values of `describe` in one line, or two beside a test set."""
    text = (
        f"samples: in [{values['low']:.3f}, {values['high']:.3f}], mean {values['mean']:.3f}, "
        f"std {values['std']:.3f}"
    )
    if "std_ratio" in values:
        text += (
            f"\ntest set, observed: std {values['observed_std']:.3f}; the samples' is "
            f"{values['std_ratio']:.2f} times that; {values['share_above']:.2%} of the observed "
            "pixels lie above the samples' maximum"
        )
    return text
