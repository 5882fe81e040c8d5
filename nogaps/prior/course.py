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

import torch

from nogaps.prior.sampling import IMAGES, Process, check_settings
from nogaps.runtime.batches import is_made, make_npy
from nogaps.runtime.device import name_of, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_npy

SCHEDULERS = ("ddim", "ddpm")  # what the course's engine takes
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
        expected = "the course's package, or use the shipped prior"
        raise BadInput(f"cannot be imported ({error})", expected, path=PACKAGE) from error
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
            the same arguments, they are read back, and an interrupted call is continued.

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
    chunk = max(1, CHUNK // batch_size) * batch_size

    def make(start: int, stop: int) -> torch.Tensor:
        return _chunk(settings, start, stop - start)

    if out is None:
        starts = range(0, num_samples, chunk)
        x = torch.cat([make(start, min(start + chunk, num_samples)) for start in starts])
    else:
        path, shape = Path(out) / IMAGES, (num_samples, 1, 64, 64)
        manifest = {"prior": "course", "device": name_of(pick_device()), **settings}
        if not is_made(path, shape, manifest):
            _course_generate()  # without the engine no folder is made
            make_npy(path, shape, chunk, lambda *k: make(*k).numpy(), "sampling", manifest)
        x = torch.from_numpy(load_npy(path))
    return list(x.split(batch_size))


def _chunk(settings: dict, start: int, count: int) -> torch.Tensor:
    """Images `start` and following, (count,1,64,64) in [0,1]; the engine's output is captured."""
    seed = (settings["seed"] + 1_000_003 * start) % 2**32
    generate, printed = _course_generate(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            batches = generate(**{**settings, "num_samples": count, "seed": seed})
        x = torch.cat([batch.detach().float().cpu() for batch in batches])
    except Exception as error:  # of the engine: whatever it is, the user must read it
        problem = f"failed ({type(error).__name__}: {_last(str(error))})"
        raise BadInput(problem, "a working engine; see docs/students.md", path=PACKAGE) from error
    if x.shape != (count, 1, 64, 64):
        raise BadInput(f"returned {tuple(x.shape)}", f"({count}, 1, 64, 64)", path=PACKAGE)
    low, high = float(x.min()), float(x.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also false for NaN
        raise BadInput(f"returned values in [{low:.3g}, {high:.3g}]", "[0, 1]", path=PACKAGE)
    return x.clamp(0, 1)


def _check_limits(num_inference_steps: int, scheduler: str, temperature: float) -> None:
    if scheduler not in SCHEDULERS:
        expected = f"{' or '.join(SCHEDULERS)}, as the course's model takes"
        raise BadInput(f"scheduler {scheduler!r}", expected)
    if temperature > 1:
        raise BadInput(f"temperature {temperature}", "0 to 1, as the course's model takes")
    if num_inference_steps not in RECOMMENDED:
        text = f"{num_inference_steps} steps: the course recommends 10 to 50 for its model"
        warnings.warn(text, stacklevel=3)
    if scheduler == "ddpm" and num_inference_steps < 1000:
        text = "ddpm of the course's model is wrong with fewer steps than in training: use ddim"
        warnings.warn(text, stacklevel=3)


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
