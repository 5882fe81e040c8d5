"""The course's own model: set up, called by the arguments of ours, and checked.

Its engine needs one global seed, prints a line and a bar per batch, and cannot be resumed. So it is
called in chunks with seeds of their own, and its output is captured. What its DDIM and DDPM do
with temperature and few steps stands in monai-generative 0.2.3, `generative/networks/schedulers`.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from nogaps.prior.sampling import IMAGES, PARTIAL, Process, check_settings, is_finished
from nogaps.runtime.batches import MANIFEST, StoredArray, make_batches, npy_header, unfinished
from nogaps.runtime.device import name_of, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, load_npy, save_json, save_npy

SCHEDULERS, TEMPERATURES = ("ddim", "ddpm"), (0, 1)  # what the course's engine takes
RECOMMENDED = range(10, 51)  # steps, by its documentation
TOLERANCE = 0.05  # how far outside [0,1] its decoder may go
CHUNK = 256  # images of one call; an interrupted run keeps the calls before
PACKAGE, ENGINE = "ese_invldm", "ese-invldm"  # the module, and the folder that holds it


def set_up(files: str | Path, folder: str | Path = ".") -> None:
    """Make the course's package importable; steps that were done before are skipped.

    The engine's weights are loaded by pickle, as the course hands them out.

    Args:
        files: The zip file that the course hands out, `cw1_files.zip`.
        folder: Where it is unpacked and its `run.sh` fetches the engine. Existing files are kept.

    Raises:
        BadInput: A step failed.
    """
    folder = Path(folder)
    if find_spec(PACKAGE):
        return
    ready = folder / ENGINE / ".nogaps-ready"  # a script that failed may leave half an engine
    if not ready.exists():
        _unpack(Path(files), folder)
        call = ["bash", "run.sh"]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
        if done.returncode or not ready.parent.is_dir():
            expected = f"a folder {ENGINE} beside it; it needs the internet"
            raise BadInput(f"failed ({_last(done.stderr)})", expected, path=folder / "run.sh")
        ready.touch()
    sys.path.append(str(ready.parent.resolve()))


def _last(printed: str) -> str:
    """The last line of an output, which names the error."""
    return (printed.strip().splitlines() or ["it printed no error"])[-1]


def _unpack(files: Path, folder: Path) -> None:
    """Unpack a zip file, but do not overwrite files of the folder."""
    if not files.exists():
        expected = (
            "the course's zip file: set COURSE_FILES to it; for one on Drive, MOUNT_DRIVE too"
        )
        raise BadInput("is missing", expected, path=files)
    try:
        with zipfile.ZipFile(files) as archive, tempfile.TemporaryDirectory(dir=folder) as unpacked:
            archive.extractall(unpacked)
            # one that was interrupted leaves no half files
            for path in sorted(Path(unpacked).rglob("*")):
                target = folder / path.relative_to(unpacked)
                if path.is_dir():
                    target.mkdir(exist_ok=True)
                elif not target.exists():
                    path.replace(target)
    except zipfile.BadZipFile as error:
        raise BadInput("is not a zip file", "the course's zip file", path=files) from error
    if not (folder / "run.sh").exists():
        raise BadInput("holds no run.sh", "the course's zip file", path=files)


def _course_generate() -> Callable[..., list[torch.Tensor]]:
    """`generate` of the package that the course hands out; BadInput if it cannot be imported."""
    try:
        from ese_invldm import generate
    except ImportError as error:
        problem = f"the package {PACKAGE} cannot be imported ({error})"
        if isinstance(error, ModuleNotFoundError) and error.name == PACKAGE:
            problem = f"the package {PACKAGE} is not installed"
        expected = "the course's package, or use the shipped prior"
        raise BadInput(problem, expected) from error
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
        num_inference_steps: Steps of the reverse process, at least 1; 10 to 50 are recommended.
        batch_size: Images at a time; the images depend on it, and on the kind of GPU.
        scheduler: "ddim", with which the temperature does nothing, or "ddpm", which is wrong with
            fewer steps than in training.
        temperature: Scale of the noise, 0 to 1.
        seed: Seed of the first 256 images or so; those of the others follow from it.
        out: A folder to which `images.npy` and its manifest are written; if they are there and of
            the same arguments, they are read back, and an interrupted call is continued. The
            manifest's "values" is `describe` of what the model returned, before values outside
            [0,1] were clipped.

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
    if out is None:
        x = torch.cat([_chunk(settings, *span) for span in _spans(settings)])
    else:
        _sample_to(Path(out), {"prior": "course", "device": name_of(pick_device()), **settings})
        x = torch.from_numpy(load_npy(Path(out) / IMAGES))
    return list(x.clamp(0, 1).split(batch_size))


def _spans(settings: dict) -> list[tuple[int, int]]:
    """First image and number of images of each call of the engine, in whole batches."""
    n, chunk = settings["num_samples"], _chunk_size(settings)
    return [(start, min(chunk, n - start)) for start in range(0, n, chunk)]


def _chunk_size(settings: dict) -> int:
    return max(1, CHUNK // settings["batch_size"]) * settings["batch_size"]


def _sample_to(out: Path, manifest: dict) -> None:
    """Write `images.npy` and its manifest, chunk by chunk."""

    def settings() -> dict | None:
        return None if is_finished(out, manifest) else manifest

    def make(start: int, stop: int) -> list[np.ndarray]:
        return [_chunk(manifest, start, stop - start).numpy()]

    if settings() is None:
        return
    _course_generate()  # without the engine no folder is made
    n, shape, dtype = manifest["num_samples"], (1, 64, 64), np.dtype("<f4")
    raw = StoredArray(out / PARTIAL / IMAGES, n, shape, dtype, npy_header((n, *shape), dtype))
    with unfinished(out / PARTIAL, settings) as known:
        if known is None:
            return
        make_batches(out / PARTIAL, [raw], _chunk_size(manifest), make, "sampling")
        x = torch.from_numpy(raw.read(0, n))
        save_json(out / MANIFEST, {**manifest, "values": describe(x)})
        save_npy(out / IMAGES, x.clamp(0, 1).numpy())


def _chunk(settings: dict, start: int, count: int) -> torch.Tensor:
    """Images `start` and following, (count,1,64,64), unclipped; the engine's output is captured."""
    own = {key: settings[key] for key in settings.keys() - {"prior", "device"}}
    own |= {"num_samples": count, "seed": (settings["seed"] + 1_000_003 * start) % 2**32}
    generate, printed = _course_generate(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            batches = generate(**own)
    except Exception as error:  # of the engine: whatever it is, the user must read it
        problem = f"failed ({type(error).__name__}: {_last(str(error))})"
        raise BadInput(problem, "a working engine; see docs/students.md", path=PACKAGE) from error
    return _join(batches, count)


def _check_limits(num_inference_steps: int, scheduler: str, temperature: float) -> None:
    takes = "as the course's model takes"
    if scheduler not in SCHEDULERS:
        raise BadInput(f"scheduler {scheduler!r}", f"{' or '.join(SCHEDULERS)}, {takes}")
    low, high = TEMPERATURES
    if not low <= temperature <= high:
        raise BadInput(f"temperature {temperature}", f"{low} to {high}, {takes}")
    if num_inference_steps not in RECOMMENDED:
        text = f"{num_inference_steps} steps: the course recommends 10 to 50 for its model"
        warnings.warn(text, stacklevel=3)
    if scheduler == "ddpm" and num_inference_steps < 1000:
        text = "ddpm of the course's model is wrong with fewer steps than in training: use ddim"
        warnings.warn(text, stacklevel=3)


def _join(batches: list[torch.Tensor], num_samples: int) -> torch.Tensor:
    """The course's batches as (N,1,64,64) float32 on the CPU.

    Raises BadInput if they are not tensors of that shape, or hold NaN or values outside [0,1].
    """
    if not isinstance(batches, (list, tuple)) or not all(map(torch.is_tensor, batches)):
        problem = f"returned a {type(batches).__name__}"
        raise BadInput(problem, "a list of tensors", path=PACKAGE)
    shapes = [tuple(batch.shape) for batch in batches]
    count = sum(shape[0] for shape in shapes)
    if any(shape[1:] != (1, 64, 64) for shape in shapes) or count != num_samples:
        returned = ", ".join(map(str, dict.fromkeys(shapes))) or "nothing"
        expected = f"({num_samples}, 1, 64, 64) in all"
        raise BadInput(f"returned {returned}", expected, path=PACKAGE)
    x = torch.cat([batch.detach().float().cpu() for batch in batches])
    low, high = float(x.min()), float(x.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also false for NaN
        problem = f"returned values in [{low:.3g}, {high:.3g}]"
        raise BadInput(problem, "[0, 1]", path=PACKAGE)
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
