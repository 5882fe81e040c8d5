"""The course's own model: its `generate`, behind the arguments of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nogaps.prior.sampling import check_settings
from nogaps.runtime.files import BadInput, load_json, load_npy, save_json, save_npy
from nogaps.runtime.manifests import IMAGES, MANIFEST, is_finished

SCHEDULERS, STEPS, TEMPERATURES = ("ddim", "ddpm"), (10, 50), (0, 1)  # what the course's takes
TOLERANCE = 0.05  # how far outside [0,1] its decoder may go


def course_generate() -> Callable[..., list[torch.Tensor]]:
    """`generate` of the package that the course hands out. Raises BadInput without it."""
    try:
        from ese_invldm import generate
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "ese_invldm":
            found = "is not installed; install the course's package"
        else:
            found = f"cannot be imported ({error}); mend its installation"
        raise BadInput(
            f"prior 'course': the package ese_invldm {found}, or use the shipped prior"
        ) from error
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
    """Sample the course's model: a list of batches (B,1,64,64) float32 in [0,1] on the CPU.

    With a folder `out`, `out/images.npy` and its manifest are written, or read back if they were
    made with the same arguments; the manifest's "found" is `describe` of what came, before values
    outside [0,1] were clipped. Raises BadInput if the package is missing, for arguments that it
    does not take, or if what it returns has another shape, NaN, or a range far from [0,1].
    """
    names = ("num_samples", "num_inference_steps", "batch_size", "scheduler", "temperature", "seed")
    values = (num_samples, num_inference_steps, batch_size, scheduler, temperature, seed)
    check_course_settings(*values[:-1])
    manifest = {"prior": "course", **dict(zip(names, values, strict=True))}
    if out is not None and is_finished(Path(out), manifest):
        return list(torch.from_numpy(load_npy(Path(out) / IMAGES)).split(batch_size))
    x = check_batches(course_generate()(*values[:-1], seed=seed), num_samples)
    if out is not None:
        save_json(Path(out) / MANIFEST, {**manifest, "found": describe(x)})
        save_npy(Path(out) / IMAGES, x.clamp(0, 1).numpy())
    return list(x.clamp(0, 1).split(batch_size))


def check_course_settings(
    num_samples: int,
    num_inference_steps: int,
    batch_size: int,
    scheduler: str,
    temperature: float,
) -> None:
    """Raise BadInput for settings that the course's model does not take."""
    check_settings(num_samples, num_inference_steps, batch_size, scheduler, temperature, "auto")
    if scheduler not in SCHEDULERS:
        raise BadInput(
            f"scheduler {scheduler!r}: the course's model takes {' or '.join(SCHEDULERS)}"
        )
    for name, value, (low, high) in (
        ("num_inference_steps", num_inference_steps, STEPS),
        ("temperature", temperature, TEMPERATURES),
    ):
        if not low <= value <= high:
            raise BadInput(f"{name} {value}: the course's model takes {low} to {high}")


def check_batches(batches: list[torch.Tensor], num_samples: int) -> torch.Tensor:
    """Join the course's batches to (N,1,64,64) float32 on the CPU, or say what is wrong.

    Values up to 0.05 outside [0,1], as decoders produce them, are let through.
    """
    if not isinstance(batches, (list, tuple)) or not all(map(torch.is_tensor, batches)):
        raise BadInput(
            f"ese_invldm: returned a {type(batches).__name__}, expected a list of tensors"
        )
    shapes = [tuple(batch.shape) for batch in batches]
    if (
        any(shape[1:] != (1, 64, 64) for shape in shapes)
        or sum(s[0] for s in shapes) != num_samples
    ):
        found = ", ".join(map(str, dict.fromkeys(shapes))) or "nothing"
        raise BadInput(f"ese_invldm: returned {found}, expected ({num_samples}, 1, 64, 64) in all")
    x = torch.cat([batch.detach().float().cpu() for batch in batches])
    low, high = float(x.min()), float(x.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also false for NaN
        raise BadInput(f"ese_invldm: returned values in [{low:.3g}, {high:.3g}], expected [0, 1]")
    return x


def describe(x: torch.Tensor, y: torch.Tensor | None = None) -> dict[str, float]:
    """Grey values of samples x (N,1,H,W): "low", "high", "mean" and "std", all pixels together.

    With a corrupted test set y (M,1,H,W) also its contrast beside theirs, over its observed pixels
    (not zero in every image): "observed_std"; "std_ratio", the samples' standard deviation at the
    same places over it; "share_above", the share of observed pixels above the samples' maximum.
    Raises BadInput if sizes differ or nothing is observed.
    """
    found = {"low": x.min(), "high": x.max(), "mean": x.mean(), "std": x.std()}
    if y is not None:
        if x.shape[1:] != y.shape[1:]:
            raise BadInput(f"samples of {tuple(x.shape[1:])}, test set of {tuple(y.shape[1:])}")
        observed = (y != 0).any(dim=0)
        if not observed.any():
            raise BadInput("test set: no pixel is observed, expected some")
        seen = y[:, observed]
        found["observed_std"] = seen.std()
        found["std_ratio"] = x[:, observed].std() / seen.std()
        found["share_above"] = (seen > x.max()).float().mean()
    return {name: float(value) for name, value in found.items()}


def describe_folder(out: str | Path, test_set: torch.Tensor | None = None) -> dict[str, float]:
    """`describe` of the samples saved in `out`; low and high as they were before clipping."""
    x = torch.from_numpy(load_npy(Path(out) / IMAGES))
    found = describe(x, test_set)
    before = load_json(Path(out) / MANIFEST).get("found", {})
    return found | {key: before[key] for key in ("low", "high") if key in before}


def as_text(found: dict[str, float]) -> str:
    """What `describe` found, for people: one line, or two beside a test set."""
    text = (
        f"samples: in [{found['low']:.3f}, {found['high']:.3f}], mean {found['mean']:.3f}, "
        f"std {found['std']:.3f}"
    )
    if "std_ratio" in found:
        text += (
            f"\ntest set, observed: std {found['observed_std']:.3f}; the samples' is "
            f"{found['std_ratio']:.2f} times that; {found['share_above']:.2%} of the observed "
            "pixels lie above the samples' maximum"
        )
    return text
