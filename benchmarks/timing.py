"""What the timed benchmarks share: interleaved repetitions, spread, peak memory, the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks import recipes
from nogaps import Assessment
from nogaps.runtime.device import autocast_dtype

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "numpy", "scipy", "diffusers", "scikit-image", "opencv-python-headless")
CPU = torch.device("cpu")
NOT_MEASURED = "not measured"
Work = Callable[[], object]
Spread = dict[str, float]


def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)


def machine() -> dict:
    """What the figures were measured on: processor, versions, native precision, load at the time.

    "load" is the average number of running processes of the last minute: above 1 before a
    measurement of two threads on two cores, something else was running.
    """
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": cores(),
        "gpu": gpu,
        "precision": precision_name(),
        "python": platform.python_version(),
        **versions,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """Model of the processor, or the kind of machine where it is not told."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_counts(small: bool = False) -> list[int]:
    """One thread and two, as far as there are cores; small: one."""
    return [1] if small else [1, 2][: cores()]


def precision_name() -> str:
    """What the networks' convolutions are computed in unless `precision` says otherwise."""
    return short(autocast_dtype(CPU))


def short(dtype: torch.dtype | None) -> str:
    """fp32, bf16 or fp16."""
    names = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names[dtype]


def native_precisions() -> list[str]:
    """fp32, and before it what this processor computes faster, if anything."""
    return list(dict.fromkeys([precision_name(), "fp32"]))


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """The networks' convolutions in fp32; any other name leaves the processor's own."""
    with contextlib.ExitStack() as stack:
        if name == "fp32":
            for module in (Assessment, recipes):
                stack.enter_context(mock.patch.object(module, "autocast_dtype", lambda _: None))
        yield


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch's operations on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(
    work: Mapping[str, Work],
    repetitions: int,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
    warm: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each repetition of each work, taken in turns: A B C, A B C, …

    So whatever slows the machine down for a while slows all of them. One turn goes before that is
    not counted; no turn begins after `seconds`, but one is always made.
    """
    for once in work.values():
        once()
    found: dict[str, list[float]] = {name: [] for name in work}
    start = time.perf_counter()
    for turn in range(repetitions):
        if turn and time.perf_counter() - start > seconds:
            break
        for name, once in work.items():
            if warm:
                once()
            before = clock()
            once()
            found[name].append(clock() - before)
    return found


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles and number of repeated measurements."""
    low, median, high = np.quantile(np.asarray(values, float), [0.25, 0.5, 0.75])
    found = {"median": float(median), "low": float(low), "high": float(high)}
    return found | {"repetitions": len(values)}


def rate(seconds: Sequence[float], images: int) -> Spread:
    """Images per second of repetitions that took so long each."""
    return spread([images / max(each, 1e-9) for each in seconds])


def said(value: Spread | None, digits: int = 1) -> str:
    """A cell of a table: median, and quartiles where there was more than one repetition."""
    if value is None:
        return NOT_MEASURED
    text = f"{value['median']:.{digits}f}"
    if value["repetitions"] > 1:
        text += f" [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Exponent of value = c * size ** exponent by least squares in logarithms, and its R²."""
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
    slope, offset = np.polyfit(x, y, 1)
    left = np.square(y - slope * x - offset).sum()
    total = np.square(y - y.mean()).sum()
    return {"exponent": float(slope), "r2": float(1 - left / total) if total > 0 else 1.0}
