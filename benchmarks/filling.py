"""How fast holes are filled, and in how much memory, beside what people would use instead.

    python -m benchmarks.filling              (about 8 minutes on two cores)
    python -m benchmarks.filling --large      (100,000 images as well: about an hour)

In memory: 100 images by each imputer in turns, networks in batches of 32, on one thread and on two,
in the processor's fast precision and in fp32. On files: `nogaps fill` from the start of the process
to its end, with the peak of its memory. And how long commands and imports take to start. Networks
of the same precision stand in the same run; the classical methods compute in float32 or float64.
"""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import check_profile, processes, run, timing
from benchmarks.rivals import Impute, network, rivals
from benchmarks.timing import machine, said, spread, table, thread_counts
from nogaps import Assessment, standin
from nogaps.filling.files import CPU_BATCH
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import hole_scores
from nogaps.runtime.device import autocast
from nogaps.runtime.files import atomic, save_json, save_npy

RESULTS = timing.RESULTS / "filling.json"
COUNTS, LARGE = (100, 10_000), 100_000
REPETITIONS, SECONDS = 5, 80  # in memory: turns, and seconds for each number of threads
FILES_MINUTES = {False: 5, True: 60}  # on files, without and with --large


def alone(unet: torch.nn.Module, channels: int) -> Impute:
    """A U-Net's forward pass by itself; its input is of the right shape, not of meaning."""

    def forward(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = y.expand(-1, channels, -1, -1).contiguous(memory_format=torch.channels_last)
        with autocast(h.device, Assessment.autocast_dtype(h.device)):
            return unet(h).float()

    return forward


def networks(small: bool) -> dict[str, Impute]:
    """What can compute in either precision: ours and the coursework's, and their U-Nets alone."""
    best = load_imputer()
    return {
        "ours, fast": load_imputer(quality="fast"),
        "ours, best": best,
        "coursework": rivals(small)["coursework"],
        "one U-Net of ours alone": alone(best.networks[0].unet, 2),
        "coursework's U-Net alone": alone(network(small).unet, 1),
    }


def measure_imputers(count: int, repetitions: int, seconds: float, small: bool) -> list[dict]:
    """Rows in memory: name, precision, hole PSNR, images per second by number of threads."""
    y, x = (torch.from_numpy(a()[:count]) for a in (standin.corrupted_images, standin.clean_images))
    mask = torch.from_numpy(standin.course_mask())[None, None]
    classical = {name: one for name, one in rivals(small).items() if name != "coursework"}
    nets = networks(small)
    classical["kriging"] = nets["ours, fast"].kriging
    plan = {(name, ""): one for name, one in classical.items()}
    plan |= {(name, k): one for k in timing.native_precisions() for name, one in nets.items()}

    @torch.no_grad()
    def once(key: tuple[str, str]) -> torch.Tensor:
        with timing.precision(key[1]):
            return Assessment.fill(plan[key], y, mask, CPU_BATCH)

    rates: dict[tuple[str, str], dict] = {key: {} for key in plan}
    for n in thread_counts(small):
        with timing.threads(n):
            work = {key: functools.partial(once, key) for key in plan}
            for key, times in timing.interleaved(work, repetitions, seconds).items():
                rates[key][str(n)] = timing.rate(times, len(y))
    rows = []
    for (name, kind), found in rates.items():
        scored = "coursework" not in name and "alone" not in name  # what is trained, or needs none
        psnr = float(hole_scores(once((name, kind)), x, mask)["psnr"].mean()) if scored else None
        row = {"name": name, "precision": kind, "hole_psnr": psnr, "images_per_second": found}
        rows.append(row)
    return rows


def write_images(path: Path, count: int) -> None:
    """Corrupted heads (count,1,64,64), no two alike, block by block."""
    y = standin.corrupted_images()
    with atomic(path) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, *y.shape[1:]))
        for start in range(0, count, len(y)):
            part = out[start : start + len(y)]
            part[:] = y[: len(part)] * np.float32(1 - 0.5 * start / count)
        out.flush()


def fill_once(folder: Path, method: str, threads: int) -> dict[str, float]:
    """Fill folder/y.npy with a quality of `nogaps fill`, or with a rival, in a process."""
    source, output = folder / "y.npy", folder / "x_hat.npy"
    if method.startswith("ours, "):
        arguments = ["nogaps", "fill", source, "-o", output, "--quality", method[6:]]
    else:
        arguments = ["benchmarks.rivals", method, source, output]
    found = processes.alone(*arguments, threads=threads)
    output.unlink()
    return found


def measure_files(
    counts: list[int], repetitions: int, minutes: float, paces: dict, small: bool
) -> list[dict]:
    """Rows on files; those that would not end within `minutes` have no runs.

    paces: expected images per second by (method, threads). Only the fewest images are repeated.
    """
    begun, rows = time.perf_counter(), []
    most = thread_counts(small)[-1]
    plan = [(f"ours, {quality}", n) for n in (most, 1) for quality in ("fast", "best")]
    plan = list(dict.fromkeys(plan))[: 1 if small else None]
    others = [] if small else [(name, most) for name in ("scikit-image biharmonic", "coursework")]
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as folder:
        for count in counts:
            write_images(Path(folder) / "y.npy", count)
            few = count == min(counts)
            here = plan + others if few else plan
            part = [{"images": count, "method": m, "threads": n, "runs": []} for m, n in here]
            for row in part * (repetitions if few else 1):
                expected = count / paces.get((row["method"], row["threads"]), float("inf"))
                if time.perf_counter() - begun + expected < 60 * minutes:
                    row["runs"].append(fill_once(Path(folder), row["method"], row["threads"]))
            rows += part
    return rows


def measure_start(repetitions: int, small: bool) -> dict[str, timing.Spread]:
    """Seconds from the start of a process to its end, in turns."""
    lines: dict[str, list[object]] = {
        "python -c pass": ["-c", "pass"],
        "import nogaps": ["-c", "import nogaps"],
        "nogaps --help": ["-m", "nogaps", "--help"],
    }
    with tempfile.TemporaryDirectory(prefix="nogaps-bench-") as name:
        folder = Path(name)
        save_npy(folder / "y.npy", standin.corrupted_images()[:1])
        save_npy(folder / "mask.npy", standin.course_mask())
        files = [folder / "y.npy", "-o", folder / "x_hat.npy", "--mask", folder / "mask.npy"]
        if not small:
            lines |= {
                "import torch": ["-c", "import torch"],
                "import nogaps.Assessment": ["-c", "import nogaps.Assessment"],
                "nogaps fill, one image": ["-m", "nogaps", "fill", *files],
            }
        once = processes.from_start_to_end
        work = {name: functools.partial(once, *line) for name, line in lines.items()}
        found = timing.interleaved(work, repetitions, seconds=60)
    return {name: spread(times) for name, times in found.items()}


def as_markdown(found: dict) -> str:
    """Three tables: in memory, on files, start."""
    counts = sorted({n for row in found["imputers"] for n in row["images_per_second"]})
    head = ["imputer", "precision", *[f"images/s, {n} thread(s)" for n in counts]]
    rows = []
    for row in found["imputers"]:
        rates = [said(row["images_per_second"].get(n)) for n in counts]
        psnr = "" if row["hole_psnr"] is None else f"{row['hole_psnr']:.2f}"
        rows.append([row["name"], row["precision"], *rates, psnr])
    memory = table([*head, "hole PSNR / dB, stand-in"], rows)
    rows = []
    for row in found["files"]:
        each = {k: [one[k] for one in row["runs"]] for k in ("seconds", "peak_mb")}
        cells = [f"{row['images']:,}", row["method"], row["threads"]]
        seconds, peak = (spread(v) if v else None for v in each.values())
        rate = timing.rate(each["seconds"], row["images"]) if seconds else None
        rows.append([*cells, said(seconds), said(rate), said(peak, 0)])
    head = ["images", "method", "threads", "seconds, start to end", "images/s", "peak memory / MB"]
    files = table(head, rows)
    start = table(["what starts", "seconds"], [[k, said(v, 3)] for k, v in found["start"].items()])
    return "\n\n".join([memory, files, start])


def main(
    large: Annotated[bool, typer.Option("--large", help=f"{LARGE:,} images as well.")] = False,
    minutes: Annotated[
        float | None, typer.Option(help="For rows on files; those that would take longer are left.")
    ] = None,
    profile: Annotated[str, typer.Option(help="full, or smoke: a few images.")] = "full",
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print the tables and write them as JSON."""
    check_profile(profile)
    small, where = profile == "smoke", machine()
    counts, turns = ([4], 1) if small else ([*COUNTS, *([LARGE] if large else [])], REPETITIONS)
    imputers = measure_imputers(counts[0], turns, SECONDS, small)
    native = [row for row in imputers if row["precision"] in ("", timing.precision_name())]
    paces = {
        (row["name"], int(n)): rate["median"]
        for row in native
        for n, rate in row["images_per_second"].items()
    }
    minutes = FILES_MINUTES[large] if minutes is None else minutes
    files = measure_files(counts, min(turns, 3), minutes, paces, small)
    start = measure_start(2 * turns, small)
    found = {"machine": where, "imputers": imputers, "files": files, "start": start}
    save_json(out, found)
    print(as_markdown(found))


if __name__ == "__main__":
    run(main)
