"""How fast holes are filled, and in how much memory, beside what people would use instead.

    python -m benchmarks.filling              (about 8 minutes on two cores)
    python -m benchmarks.filling --large      (100,000 images as well)

In memory: 100 images by each imputer in turns, networks in batches of 32, on one thread and on two,
in the processor's fast precision and in fp32. On files: `nogaps fill` from the start of the process
to its end, with the peak of its memory. OpenCV (`pip install opencv-python-headless`) is optional:
without it there are no such rows.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import typer
from skimage.restoration import inpaint_biharmonic

from benchmarks import harness, recipes
from benchmarks.harness import Impute, cell, course_mask, spread
from nogaps import Assessment, standin, tables
from nogaps.filling.arrays import CPU_BATCH
from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, keep_observed
from nogaps.metrics import hole_scores
from nogaps.runtime.device import autocast_dtype
from nogaps.runtime.files import atomic, save_json

RESULTS = harness.RESULTS / "filling.json"
COUNTS, LARGE = (100, 10_000), 100_000
REPETITIONS, SECONDS = 5, 80  # in memory: turns, and seconds for each number of threads
OPENCV = ("telea", "ns")
RADIUS = 3  # pixels around that OpenCV looks at: what its tutorial uses


# what fills ----------------------------------------------------------------------------------


def one_by_one(inpaint: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Impute:
    """Make an imputer of a function that fills one image (H,W), given its hole (H,W) bool."""

    def impute(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        images, holes = y[:, 0].numpy(), (~mask).expand_as(y)[:, 0].numpy()
        filled = [inpaint(image, hole) for image, hole in zip(images, holes, strict=True)]
        x_hat = torch.from_numpy(np.stack(filled)[:, None].astype(np.float32))
        return keep_observed(x_hat, y, mask)

    return impute


def opencv(method: str) -> Impute:
    """Return OpenCV's inpainting, in 8 bits: its float version takes the same time."""
    import cv2

    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]

    def inpaint(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        grey = np.rint(255 * image).astype(np.uint8)
        return cv2.inpaint(grey, hole.astype(np.uint8), RADIUS, flag) / np.float32(255)

    return one_by_one(inpaint)


def unlearnt() -> dict[str, Impute]:
    """Return what learns nothing, by name."""
    methods: dict[str, Impute] = {
        "scikit-image biharmonic": one_by_one(inpaint_biharmonic),
        "biharmonic, all images of a mask at once": biharmonic,
    }
    if importlib.util.find_spec("cv2"):
        methods |= {f"OpenCV {name}": opencv(name) for name in OPENCV}
    return methods


def networks(small: bool) -> dict[str, Impute]:
    """Return ours, and the coursework's untrained: their time is that of any weights."""
    network = recipes.CourseworkNet(**(recipes.SMOKE if small else {}))
    coursework = network.eval().requires_grad_(False)
    return {
        "ours, fast": load_imputer(quality="fast"),
        "ours, best": load_imputer(),
        "coursework": lambda y, mask: keep_observed(coursework(y, mask), y, mask),
    }


# what is measured ----------------------------------------------------------------------------


def measure_imputers(count: int, repetitions: int, small: bool) -> list[dict]:
    """Return rows in memory: name, precision, hole PSNR, images per second by threads."""
    y = torch.from_numpy(standin.corrupted_images()[:count])
    x, mask = torch.from_numpy(standin.clean_images()[:count]), course_mask()
    precisions = dict.fromkeys([harness.native_precision(), "fp32"])
    others = unlearnt()
    plan = {(name, ""): impute for name, impute in others.items()}
    plan["kriging", ""] = load_imputer().kriging
    plan |= {(name, p): net for p in precisions for name, net in networks(small).items()}

    @torch.no_grad()
    def once(key: tuple[str, str]) -> torch.Tensor:
        dtype = None if key[1] == "fp32" else autocast_dtype(harness.CPU)
        with (
            mock.patch.object(Assessment, "autocast_dtype", lambda _: dtype),
            mock.patch.object(recipes, "autocast_dtype", lambda _: dtype),
        ):
            return Assessment.fill(plan[key], y, mask, CPU_BATCH)

    rates: dict[tuple[str, str], dict] = {key: {} for key in plan}
    work, before = {key: partial(once, key) for key in plan}, torch.get_num_threads()
    for threads in [1] if small else range(1, min(2, harness.cores()) + 1):
        torch.set_num_threads(threads)
        for key, times in harness.interleaved(work, repetitions, SECONDS).items():
            rates[key][str(threads)] = harness.rate(times, len(y))
    torch.set_num_threads(before)
    rows = []
    for (name, precision), images_per_second in rates.items():
        row = {"name": name, "precision": precision, "hole_psnr": None}
        if name in others:  # the others have theirs in the table of `benchmarks.imputers`
            row["hole_psnr"] = float(hole_scores(once((name, precision)), x, mask)["psnr"].mean())
        rows.append(row | {"images_per_second": images_per_second})
    return rows


def write_images(path: Path, count: int) -> None:
    """Write corrupted heads (count,1,64,64), no two alike, block by block."""
    y = standin.corrupted_images()
    with atomic(path) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, *y.shape[1:]))
        for start in range(0, count, len(y)):
            part = out[start : start + len(y)]
            part[:] = y[: len(part)] * np.float32(1 - 0.5 * start / count)
        out.flush()


def measure_files(counts: list[int], repetitions: int, small: bool) -> list[dict]:
    """Return rows on files; only the fewest images are repeated, and LARGE is filled once."""
    most, rows = 1 if small else min(2, harness.cores()), []
    plan = dict.fromkeys([("fast", most), ("best", most), ("fast", 1), ("best", 1)])
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as folder:
        y, x_hat = Path(folder, "y.npy"), Path(folder, "x_hat.npy")
        for count in counts:
            write_images(y, count)
            here = {key: [] for key in (list(plan)[:1] if small or count == LARGE else plan)}
            for _ in range(repetitions if count == min(counts) else 1):
                for key, runs in here.items():
                    runs.append(harness.fill_alone(y, x_hat, *key))
            for (quality, threads), runs in here.items():
                row = {"images": count, "method": f"ours, {quality}", "threads": threads}
                rows.append(row | {"runs": runs})
    return rows


def as_markdown(results: dict) -> str:
    """Return two tables: in memory, on files."""
    counts = sorted({n for row in results["imputers"] for n in row["images_per_second"]})
    rows = []
    for row in results["imputers"]:
        rates = [cell(row["images_per_second"][n]) for n in counts]
        psnr = "" if row["hole_psnr"] is None else f"{row['hole_psnr']:.2f}"
        rows.append([row["name"], row["precision"], *rates, psnr])
    header = ["imputer", "precision", *(f"images/s, {n} thread(s)" for n in counts)]
    memory = tables.as_markdown([*header, "hole PSNR / dB, stand-in"], rows)
    rows = []
    for row in results["files"]:
        seconds, peak = ([each[key] for each in row["runs"]] for key in ("seconds", "peak_mb"))
        rows.append([f"{row['images']:,}", row["method"], row["threads"], cell(spread(seconds))])
        rows[-1] += [cell(harness.rate(seconds, row["images"])), cell(spread(peak), 0)]
    header = ["images", "method", "threads", "seconds, start to end", "images/s"]
    return f"{memory}\n\n{tables.as_markdown([*header, 'peak memory / MB'], rows)}"


def main(
    large: Annotated[bool, typer.Option("--large", help=f"{LARGE:,} images as well.")] = False,
    smoke: harness.Smoke = False,
    out: harness.Out = RESULTS,
) -> None:
    """Print the tables and write them as JSON."""
    results = {"machine": harness.machine()}
    counts, turns = ([4], 1) if smoke else ([*COUNTS, *([LARGE] if large else [])], REPETITIONS)
    results["imputers"] = measure_imputers(counts[0], turns, smoke)
    results["files"] = measure_files(counts, min(turns, 3), smoke)
    save_json(out, results)
    print(as_markdown(results))


if __name__ == "__main__":
    harness.run(main)
