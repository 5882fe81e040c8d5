"""How time and memory of filling grow with the size of an image and with processes.

    python -m benchmarks.scaling            (about 3 minutes on two cores)

Size: one image of 64 to 512 pixels by side, under the course's mask in tiles; the weights of
kriging, made once per mask, by themselves. Processes: as many `nogaps fill` at once, on one thread
and a file each, start included.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from benchmarks import harness
from benchmarks.filling import write_images
from benchmarks.harness import cell, course_mask, interleaved, spread
from nogaps import Assessment, standin, tables
from nogaps.api import fill
from nogaps.imputers.loading import load_imputer
from nogaps.runtime.files import save_json

RESULTS = harness.RESULTS / "scaling.json"
SIZES = (64, 128, 256, 512)
TURNS = 5
SHARD = 800  # images that each of several processes fills


def tiled(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a corrupted image (1,1,size,size), and its mask: the course's stripes, continued."""
    x = torch.from_numpy(standin.clean_images()[:1])
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic").clamp(0, 1)
    times = -(-size // 64)
    mask = course_mask().repeat(1, 1, times, times)[..., :size, :size]
    return Assessment.corrupt(x, mask), mask


def measure_sizes(sizes: tuple[int, ...], repetitions: int) -> list[dict]:
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
    return [{"size": n, **{key: spread(times[key][n]) for key in times}} for n in sizes]


def measure_processes(most: int, images: int) -> list[dict]:
    """Return images per second of several processes at once, one thread each, start included."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as folder:
        paths = [Path(folder, f"shard{k}.npy") for k in range(most)]
        for path in paths:
            write_images(path, images)

        def fill_shard(path: Path) -> dict[str, float]:
            return harness.fill_alone(path, path.with_stem(f"{path.stem}-filled"), "fast", 1)

        for n in range(1, most + 1):
            with ThreadPoolExecutor(n) as pool:
                runs = list(pool.map(fill_shard, paths[:n]))
            seconds, peak = (max(each[key] for each in runs) for key in ("seconds", "peak_mb"))
            row = {"processes": n, "seconds": seconds, "images_per_second": n * images / seconds}
            rows.append(row | {"peak_mb": peak})
    return rows


def as_markdown(results: dict) -> str:
    """Return two tables: by size, by processes."""
    sizes = [
        [f"{row['size']}×{row['size']}", cell(row["image"], 3), cell(row["weights"], 3)]
        for row in results["sizes"]
    ]
    keys = {"seconds": ".1f", "images_per_second": ".1f", "peak_mb": ".0f"}
    processes = [
        [row["processes"], *(f"{row[key]:{form}}" for key, form in keys.items())]
        for row in results["processes"]
    ]
    size_table = tables.as_markdown(
        ["size", "seconds per image", "seconds for the weights of a mask"], sizes
    )
    header = ["processes", "seconds, start to end", "images/s together", "peak memory of each / MB"]
    return f"{size_table}\n\n{tables.as_markdown(header, processes)}"


def main(smoke: harness.Smoke = False, out: harness.Out = RESULTS) -> None:
    """Print the tables and write them as JSON."""
    results = {"machine": harness.machine(), "threads": torch.get_num_threads()}
    results["sizes"] = measure_sizes((16, 32) if smoke else SIZES, 1 if smoke else TURNS)
    results["processes"] = measure_processes(*((1, 8) if smoke else (harness.cores(), SHARD)))
    save_json(out, results)
    print(as_markdown(results))


if __name__ == "__main__":
    harness.run(main)
