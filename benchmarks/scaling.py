"""How time and memory of filling grow with images, their size, the batch, and processes.

    python -m benchmarks.scaling            (about 4 minutes on two cores)

Images: `nogaps fill` on files, in a process of its own, start included. Size: one image of 64 to
512 pixels by side, under a mask of random stripes; the weights of kriging, made once per mask, by
themselves. Batch: the same images in memory, in batches of 1 to 256. Processes: as many `nogaps
fill` at once, one thread each. The exponent of a power law is fitted in logarithms.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import check_profile, processes, run, timing
from benchmarks.filling import write_images
from benchmarks.timing import exponent, machine, said, spread, table
from nogaps import Assessment, standin
from nogaps.filling.files import fill
from nogaps.imputers.loading import load_imputer
from nogaps.runtime.files import save_json

RESULTS = timing.RESULTS / "scaling.json"
COUNTS = (100, 400, 1600, 6400)
SIZES = (64, 128, 256, 512)
BATCHES = (1, 4, 16, 32, 64, 128, 256)
SHARD = 800  # images that each of several processes fills


def filling(folder: Path, name: str, threads: int) -> processes.Measured:
    """Start `nogaps fill` on folder/name; its result is of no interest."""
    files = [folder / f"{name}.npy", "-o", folder / f"{name}-filled.npy"]
    return processes.start("nogaps", "fill", *files, "--quality", "fast", threads=threads)


def measure_images(counts: tuple[int, ...], threads: int) -> dict:
    """Seconds and peak memory by number of images."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as name:
        for count in counts:
            write_images(Path(name) / "y.npy", count)
            rows.append({"images": count, **processes.finish(filling(Path(name), "y", threads))})
    values = {key: [row[key] for row in rows] for key in ("images", "seconds", "peak_mb")}
    laws = {key: exponent(values["images"], values[key]) for key in ("seconds", "peak_mb")}
    first, last = rows[0], rows[-1]
    per = (last["seconds"] - first["seconds"]) / (last["images"] - first["images"])
    return {"rows": rows, "laws": laws, "seconds_per_further_image": per}


def striped(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A corrupted image (1,1,size,size), and its mask: the course's stripes, continued."""
    x = torch.from_numpy(standin.clean_images()[:1])
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic").clamp(0, 1)
    times = -(-size // 64)
    mask = torch.from_numpy(np.tile(standin.course_mask(), (times, times))[:size, :size])
    return Assessment.corrupt(x, mask[None, None]), mask[None, None]


def measure_sizes(sizes: tuple[int, ...], repetitions: int) -> dict:
    """Seconds of one image, and of kriging's weights for a new mask, by pixels of its side."""
    imputer = load_imputer(quality="fast")
    image, weights = {}, {}
    for size in sizes:
        y, mask = striped(size)
        image[size] = partial(fill, y, mask, imputer)
        weights[size] = partial(imputer.kriging._square, mask[0, 0].numpy())
    # not in one round: after seconds of large weights a small image would find cold caches
    found = {"image": timing.interleaved(image, repetitions, seconds=10)}
    found["weights"] = timing.interleaved(weights, repetitions, seconds=50)
    rows = [{"size": n, **{key: spread(found[key][n]) for key in found}} for n in sizes]
    pixels = [size**2 for size in sizes]
    laws = {k: exponent(pixels, [row[k]["median"] for row in rows]) for k in ("image", "weights")}
    return {"rows": rows, "laws": laws}


def measure_batches(batches: tuple[int, ...], repetitions: int) -> dict:
    """Images per second in memory by batch size; the law is that of a batch's seconds."""
    imputer = load_imputer(quality="fast")
    most = max(batches)
    y = torch.from_numpy(standin.corrupted_images()).repeat(-(-most // 100), 1, 1, 1)[:most]
    mask = torch.from_numpy(standin.course_mask())[None, None]
    work = {n: partial(Assessment.fill, imputer, y, mask, n) for n in batches}
    found = timing.interleaved(work, repetitions, seconds=60)
    rows = [{"batch": n, "images_per_second": timing.rate(found[n], most)} for n in batches]
    seconds = [n * spread(found[n])["median"] / most for n in batches]
    return {"rows": rows, "laws": {"seconds of a batch": exponent(batches, seconds)}}


def measure_processes(most: int, images: int) -> dict:
    """Images per second of several processes at once, one thread each, start included."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as name:
        folder = Path(name)
        for k in range(most):
            write_images(folder / f"shard{k}.npy", images)
        for n in range(1, most + 1):
            begun = [filling(folder, f"shard{k}", 1) for k in range(n)]
            ended = [processes.finish(one) for one in begun]
            seconds = max(one["seconds"] for one in ended)
            row = {"processes": n, "seconds": seconds, "images_per_second": n * images / seconds}
            rows.append(row | {"peak_mb": max(one["peak_mb"] for one in ended)})
    return {"rows": rows}


def as_markdown(found: dict) -> str:
    """Four tables and their exponents."""
    images, sizes = found["images"], found["sizes"]
    cells = [
        [f"{r['images']:,}", f"{r['seconds']:.1f}", f"{r['peak_mb']:.0f}"] for r in images["rows"]
    ]
    parts = [table(["images", "seconds, start to end", "peak memory / MB"], cells)]
    law, per = images["laws"], images["seconds_per_further_image"]
    parts.append(
        f"Each further image takes {1000 * per:.2f} ms. Exponents: time {_law(law['seconds'])}, "
        f"memory {_law(law['peak_mb'])}."
    )
    cells = [
        [f"{r['size']}×{r['size']}", said(r["image"], 3), said(r["weights"], 3)]
        for r in sizes["rows"]
    ]
    parts.append(table(["size", "seconds per image", "seconds for the weights of a mask"], cells))
    law = sizes["laws"]
    parts.append(
        f"Exponents in pixels: image {_law(law['image'])}, weights {_law(law['weights'])}."
    )
    cells = [[r["batch"], said(r["images_per_second"])] for r in found["batches"]["rows"]]
    parts.append(table(["batch", "images/s"], cells))
    law = found["batches"]["laws"]["seconds of a batch"]
    parts.append(f"Exponent of a batch's time in its images: {_law(law)}.")
    cells = [
        [
            r["processes"],
            f"{r['seconds']:.1f}",
            f"{r['images_per_second']:.1f}",
            f"{r['peak_mb']:.0f}",
        ]
        for r in found["processes"]["rows"]
    ]
    head = ["processes", "seconds, start to end", "images/s together", "peak memory of each / MB"]
    return "\n\n".join([*parts, table(head, cells)])


def _law(law: dict[str, float]) -> str:
    return f"{law['exponent']:.2f} (R² {law['r2']:.3f})"


def main(
    profile: Annotated[str, typer.Option(help="full, or smoke: a few images.")] = "full",
    repetitions: Annotated[int, typer.Option(min=1, help="Turns in memory.")] = 5,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print the tables and write them as JSON."""
    check_profile(profile)
    small, where = profile == "smoke", machine()
    turns, cores = (1, 1) if small else (repetitions, timing.cores())
    found = {"machine": where, "threads": torch.get_num_threads()}
    found["images"] = measure_images((8, 16) if small else COUNTS, cores)
    found["sizes"] = measure_sizes((16, 32) if small else SIZES, turns)
    found["batches"] = measure_batches((1, 2) if small else BATCHES, turns)
    found["processes"] = measure_processes(cores, 8 if small else SHARD)
    save_json(out, found)
    print(as_markdown(found))


if __name__ == "__main__":
    run(main)
