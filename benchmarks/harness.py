"""What the benchmarks share: commands, heads, turns, spread, processes, and the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from nogaps import standin
from nogaps.prior.frames import load_frames, to_size
from nogaps.runtime.device import autocast_dtype
from nogaps.runtime.errors import BadInput
from nogaps.tables import with_interval

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "numpy", "scipy", "diffusers", "scikit-image", "opencv-python-headless")
CPU = torch.device("cpu")
Impute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x_hat = impute(y, mask)
Spread = dict[str, float]

# the arguments and options that several benchmarks have
Images = Annotated[Path, typer.Argument(help="Synthetic heads, .npy of `nogaps sample`.")]
Frames = Annotated[list[Path], typer.Argument(help="Frame files of `nogaps prior prepare`.")]
AnyFrames = Annotated[list[Path] | None, typer.Argument(help="Frame files; else the stand-in.")]
Model = Annotated[Path | None, typer.Option(help="Run folder; else the shipped imputer.")]
Published = Annotated[Path | None, typer.Option(help="Folder of `benchmarks.published`.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Few images, small networks: a try.")]
Out = Annotated[Path, typer.Option(help="JSON to write.")]
Figure = Annotated[Path, typer.Option(help="Picture to write.")]


def run(main: Callable[..., None]) -> None:
    """Run a benchmark's `main` as a command: bad input is one line on stderr and exit code 2."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    try:
        app()
    except BadInput as error:
        print(f"{Path(sys.argv[0]).stem}: {error.line()}", file=sys.stderr)
        raise SystemExit(2) from None


def course_mask() -> torch.Tensor:
    """Return the course's mask, bool (1,1,64,64)."""
    return torch.from_numpy(standin.course_mask())[None, None]


def heads(frames: Sequence[Path]) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """Return by name the `val` heads (N,1,64,64) of each frame file, the stand-in, and groups."""
    sets = {}
    for path in frames:
        x, groups = load_frames(path, "val")
        sets[f"val of {path.name}"] = to_size(x), groups
    clean = torch.from_numpy(standin.clean_images())
    return sets | {"stand-in": (clean, standin.subjects().tolist())}


# the machine ---------------------------------------------------------------------------------


def machine() -> dict:
    """Return what the figures were measured on: processor, versions, native precision, load.

    "load" is the average number of running processes of the last minute: above 1 before a
    measurement of two threads on two cores, something else was running.
    """
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": _processor(),
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "precision": native_precision(),
        "python": platform.python_version(),
        **versions,
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_precision() -> str:
    """Return what convolutions are computed in on this CPU: fp32, bf16 or fp16."""
    names = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names[autocast_dtype(CPU)]


# time and memory -----------------------------------------------------------------------------


def interleaved(
    work: Mapping[object, Callable[[], object]],
    repetitions: int,
    seconds: float = float("inf"),
) -> dict[object, list[float]]:
    """Time repetitions of each work in turns, A B C, A B C, …, so that a slow while meets all.

    Args:
        work: Functions to time, by name; each is called once before, which is not counted.
        repetitions: Number of turns.
        seconds: No turn but the first begins after so long.

    Returns:
        Seconds of each repetition, by name.
    """
    for once in work.values():
        once()
    times: dict[object, list[float]] = {name: [] for name in work}
    start = time.perf_counter()
    for turn in range(repetitions):
        if turn and time.perf_counter() - start > seconds:
            break
        for name, once in work.items():
            before = time.perf_counter()
            once()
            times[name].append(time.perf_counter() - before)
    return times


def measure(*arguments: object, threads: int = 1) -> dict[str, float]:
    """Run `python ARGUMENTS…` in the project's folder, in a process of its own.

    Returns:
        "seconds" from start to end, "cpu_seconds", and "peak_mb" of resident memory.

    Raises:
        BadInput: It failed.
    """
    command = [sys.executable, "-m", "benchmarks.peak", sys.executable, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"a measured process failed: {done.stderr[-300:]!r}")
    return json.loads(done.stdout.splitlines()[-1])


def fill_alone(source: Path, output: Path, quality: str, threads: int) -> dict[str, float]:
    """Measure `nogaps fill` on a file."""
    command = ["-m", "nogaps", "fill", source, "-o", output, "--quality", quality]
    report = measure(*command, threads=threads)
    output.unlink()
    return report


def spread(values: Sequence[float]) -> Spread:
    """Return median, quartiles and number of repeated measurements."""
    low, median, high = map(float, np.quantile(np.asarray(values, float), [0.25, 0.5, 0.75]))
    return {"median": median, "low": low, "high": high, "repetitions": len(values)}


def rate(seconds: Sequence[float], images: int) -> Spread:
    """Return images per second of repetitions that took so long each."""
    return spread([images / max(each, 1e-9) for each in seconds])


def cell(value: Spread, digits: int = 1) -> str:
    """Return a median, with quartiles where there was more than one repetition."""
    if value["repetitions"] == 1:
        return f"{value['median']:.{digits}f}"
    return with_interval(value["median"], (value["low"], value["high"]), digits)
