"""How time and memory of filling grow with images, their size, the batch, and processes.

    python -m benchmarks.scaling            (about 4 minutes on two cores)

Images: `nogaps fill` on files, in a process of its own, start included. Size: one image of 64 to
512 pixels by side, under the course's mask in tiles; the weights of kriging, made once per mask, by
themselves. Batch: the same images in memory, in batches of 1 to 256. Processes: as many `nogaps
fill` at once, one thread each. The exponent of a power law is fitted in logarithms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import harness
from benchmarks.filling import write_images
from benchmarks.harness import cell, check_profile, course_mask, interleaved, run, spread, table
from nogaps import Assessment, standin
from nogaps.api import fill
from nogaps.imputers.loading import load_imputer
from nogaps.runtime.files import save_json

RESULTS = harness.RESULTS / "scaling.json"
COUNTS = (100, 400, 1600, 6400)
SIZES = (64, 128, 256, 512)
BATCHES = (1, 4, 16, 32, 64, 128, 256)
SHARD = 800  # images that each of several processes fills
Law = dict[str, float]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> Law:
    """Fit value = c * size ** exponent by least squares in logarithms; returns it and its R²."""
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
    slope, offset = np.polyfit(x, y, 1)
    residual = np.square(y - slope * x - offset).sum()
    total = np.square(y - y.mean()).sum()
    return {"exponent": float(slope), "r2": float(1 - residual / total) if total > 0 else 1.0}


def fill_shard(folder: Path, name: str, threads: int) -> dict[str, float]:
    """Run `nogaps fill` on folder/name in a process of its own."""
    return harness.fill_alone(folder / name, folder / f"filled-{name}", "fast", threads)


def measure_images(counts: tuple[int, ...], threads: int) -> dict:
    """Return seconds and peak memory by number of images."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as folder:
        for count in counts:
            write_images(Path(folder, "y.npy"), count)
            rows.append({"images": count, **fill_shard(Path(folder), "y.npy", threads)})
    values = {key: [row[key] for row in rows] for key in ("images", "seconds", "peak_mb")}
    laws = {key: exponent(values["images"], values[key]) for key in ("seconds", "peak_mb")}
    more = {key: rows[-1][key] - rows[0][key] for key in ("seconds", "images")}
    per = more["seconds"] / more["images"]
    return {"rows": rows, "laws": laws, "seconds_per_further_image": per}


def tiled(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a corrupted image (1,1,size,size), and its mask: the course's stripes, continued."""
    x = torch.from_numpy(standin.clean_images()[:1])
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic").clamp(0, 1)
    times = -(-size // 64)
    mask = course_mask().repeat(1, 1, times, times)[..., :size, :size]
    return Assessment.corrupt(x, mask), mask


def measure_sizes(sizes: tuple[int, ...], repetitions: int) -> dict:
    """Return seconds of one image, and of kriging's weights for a new mask, by pixels of a side."""
    imputer, image, weights = load_imputer(quality="fast"), {}, {}
    kriging = load_imputer().kriging
    for size in sizes:
        y, mask = tiled(size)
        image[size] = partial(fill, y, mask, model=imputer)
        weights[size] = partial(kriging._square, mask[0, 0].numpy())
    # not in one round: after seconds of large weights a small image would find cold caches
    times = {"image": interleaved(image, repetitions, seconds=10)}
    times["weights"] = interleaved(weights, repetitions, seconds=50)
    rows = [{"size": n, **{key: spread(times[key][n]) for key in times}} for n in sizes]
    pixels = [size**2 for size in sizes]
    laws = {key: exponent(pixels, [row[key]["median"] for row in rows]) for key in times}
    return {"rows": rows, "laws": laws}


def measure_batches(batches: tuple[int, ...], repetitions: int) -> dict:
    """Return images per second in memory by batch size; the law is that of a batch's seconds."""
    imputer, most = load_imputer(quality="fast"), max(batches)
    y = torch.from_numpy(np.resize(standin.corrupted_images(), (most, 1, 64, 64)))
    work = {n: partial(Assessment.fill, imputer, y, course_mask(), n) for n in batches}
    times = interleaved(work, repetitions, seconds=60)
    rows = [{"batch": n, "images_per_second": harness.rate(times[n], most)} for n in batches]
    seconds = [n * spread(times[n])["median"] / most for n in batches]
    return {"rows": rows, "laws": {"seconds of a batch": exponent(batches, seconds)}}


def measure_processes(most: int, images: int) -> dict:
    """Return images per second of several processes at once, one thread each, start included."""
    rows, names = [], [f"shard{k}.npy" for k in range(most)]
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as folder:
        for name in names:
            write_images(Path(folder, name), images)
        for n in range(1, most + 1):
            with ThreadPoolExecutor(n) as pool:
                runs = list(pool.map(lambda name: fill_shard(Path(folder), name, 1), names[:n]))
            seconds, peak = (max(each[key] for each in runs) for key in ("seconds", "peak_mb"))
            row = {"processes": n, "seconds": seconds, "images_per_second": n * images / seconds}
            rows.append(row | {"peak_mb": peak})
    return {"rows": rows}


def as_markdown(results: dict) -> str:
    """Return four tables and their exponents."""

    def law(part: str, name: str) -> str:
        fitted = results[part]["laws"][name]
        return f"{fitted['exponent']:.2f} (R² {fitted['r2']:.3f})"

    rows = {part: results[part]["rows"] for part in ("images", "sizes", "batches", "processes")}
    images = [
        [f"{r['images']:,}", f"{r['seconds']:.1f}", f"{r['peak_mb']:.0f}"] for r in rows["images"]
    ]
    sizes = [
        [f"{r['size']}×{r['size']}", cell(r["image"], 3), cell(r["weights"], 3)]
        for r in rows["sizes"]
    ]
    batches = [[r["batch"], cell(r["images_per_second"])] for r in rows["batches"]]
    keys = {"seconds": ".1f", "images_per_second": ".1f", "peak_mb": ".0f"}
    processes = [
        [r["processes"], *(f"{r[key]:{form}}" for key, form in keys.items())]
        for r in rows["processes"]
    ]
    each = 1000 * results["images"]["seconds_per_further_image"]
    parts = [
        table(["images", "seconds, start to end", "peak memory / MB"], images),
        f"Each further image takes {each:.2f} ms. Exponents: time {law('images', 'seconds')}, "
        f"memory {law('images', 'peak_mb')}.",
        table(["size", "seconds per image", "seconds for the weights of a mask"], sizes),
        f"Exponents in pixels: image {law('sizes', 'image')}, weights {law('sizes', 'weights')}.",
        table(["batch", "images/s"], batches),
        f"Exponent of a batch's time in its images: {law('batches', 'seconds of a batch')}.",
    ]
    header = ["processes", "seconds, start to end", "images/s together", "peak memory of each / MB"]
    return "\n\n".join([*parts, table(header, processes)])


def main(
    profile: Annotated[str, typer.Option(help="full, or smoke: a few images.")] = "full",
    repetitions: Annotated[int, typer.Option(min=1, help="Turns in memory.")] = 5,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print the tables and write them as JSON."""
    check_profile(profile)
    small, results = profile == "smoke", {"machine": harness.machine()}
    turns, cores = (1, 1) if small else (repetitions, harness.cores())
    results["threads"] = torch.get_num_threads()
    results["images"] = measure_images((8, 16) if small else COUNTS, cores)
    results["sizes"] = measure_sizes((16, 32) if small else SIZES, turns)
    results["batches"] = measure_batches((1, 2) if small else BATCHES, turns)
    results["processes"] = measure_processes(cores, 8 if small else SHARD)
    save_json(out, results)
    print(as_markdown(results))


if __name__ == "__main__":
    run(main)
