"""Images larger than the networks were trained for: ours beside classical fillings, on real heads.

    python -m benchmarks.sizes runs/frames/heads.npz runs/frames/heads_t1.npz --raw SLICES

The `val` frames at 64×64, as in training and on their side (rows and columns swapped, as a volume
may store them), and at their own 128×128, under the course's mask in tiles (gaps as wide as in
training) and drawn twice as large (gaps twice as wide). --raw: a folder with the slices of
`nogaps/data/heads_t1.csv`, of which the 256×256 ones of the stand-in's subjects are filled at 1 mm;
nothing was chosen on them. Kriging comes with the covariance that the networks start from, of 64×64
images, and with that of training heads of the same size. Nothing here trains a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import harness
from benchmarks.harness import course_mask, interval, run
from nogaps.Assessment import corrupt
from nogaps.imputers.intervals import coverage_by_group
from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, kriging
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.prior.frames.files import load_frames, to_size, unit_range
from nogaps.prior.frames.heads import read_index, read_slice
from nogaps.runtime.files import save_json

RESULTS = harness.RESULTS / "sizes.json"
INDEX = harness.ROOT / "nogaps" / "data" / "heads_t1.csv"
RAW = 256  # pixels of a side of the raw slices that are filled
MOST = 64  # raw slices per split


@dataclass(frozen=True)
class Heads:
    """Images (N,1,H,W), the group of each, and images of other heads of that size for kriging."""

    x: torch.Tensor
    groups: list[str]
    others: torch.Tensor


def frames_of(path: Path) -> dict[str, Heads]:
    """Return the `val` frames of a file at half size, the same on their side, and at full size."""
    x, groups = load_frames(path, "val")
    others = load_frames(path, "train")[0]
    small, like = to_size(x), to_size(others)
    return {
        f"{path.stem}, 64×64": Heads(small, groups, like),
        f"{path.stem}, 64×64, on their side": Heads(small.mT, groups, like.mT),
        f"{path.stem}, 128×128": Heads(x, groups, others),
    }


def raw_slices(folder: Path, split: str) -> tuple[torch.Tensor, list[str]]:
    """Return evenly spread RAW×RAW slices of a split, noses to the right, and their groups."""
    slices, groups = [], []
    for row in read_index(INDEX):
        if row["split"] == split:
            image = read_slice(folder / row["source_file"])
            if image.shape == (RAW, RAW):
                slices.append(image[:, ::-1] if float(row["flip_left_right"]) else image)
                groups.append(row["group"])
    step = -(-len(slices) // MOST)
    return unit_range(np.stack(slices[::step])), groups[::step]


def masks(size: int) -> dict[str, torch.Tensor]:
    """Return the course's mask for images of size×size, by how wide its gaps are."""
    course = course_mask()
    times = size // course.shape[-1]
    result = {"gaps of 2 pixels": course.repeat(1, 1, times, times)}
    if times == 2:
        result["gaps of 4 pixels"] = course.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return result


@torch.no_grad()
def measure(heads: Heads, mask: torch.Tensor) -> dict[str, object]:
    """Return scores of ours and of classical fillings, and what the intervals of ours cover.

    "more_db" is what ours has more than the best of the others.
    """
    y, ensemble = corrupt(heads.x, mask), load_imputer()
    parts = [ensemble.with_half_width(batch, mask) for batch in y.split(8)]
    x_hat, half = (torch.cat(part) for part in zip(*parts, strict=True))
    classical = {"biharmonic": biharmonic, "kriging": ensemble.kriging}
    classical["kriging, own size"] = kriging(heads.others)
    fillings = {"ours": x_hat}
    for name, impute in classical.items():
        fillings[name] = torch.cat([impute(batch, mask) for batch in y.split(64)])
    rows = {name: summarize(each, heads.x, mask, heads.groups) for name, each in fillings.items()}
    psnr = {name: hole_scores(each, heads.x, mask)["psnr"] for name, each in fillings.items()}
    best = max(classical, key=lambda name: rows[name]["psnr"])
    gain = (psnr["ours"] - psnr[best]).astype(float)
    covered = coverage_by_group(x_hat, half, heads.x, mask, heads.groups)
    return {
        "images": len(y),
        "rows": rows,
        "best_other": best,
        "more_db": bootstrap(gain, heads.groups),
        "coverage": float(np.mean(list(covered.values()))),
    }


def main(
    frames: Annotated[list[Path], typer.Argument(help="Frame files of heads, 128×128.")],
    raw: Annotated[
        Path | None, typer.Option(help="Folder with the slices of nogaps/data/heads_t1.csv.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Write hole PSNR of all and the coverage of the 90 % intervals; print what ours gains."""
    sets = {name: heads for path in frames for name, heads in frames_of(path).items()}
    if raw is not None:
        x, groups = raw_slices(raw, "standin")
        sets[f"stand-in's subjects, {RAW}×{RAW}"] = Heads(x, groups, raw_slices(raw, "train")[0])
    results: dict[str, dict] = {}
    for name, heads in sets.items():
        for key, mask in masks(heads.x.shape[-1]).items():
            row = results[f"{name}, {key}"] = measure(heads, mask)
            more = interval(row["more_db"], 2, "+")
            print(f"{name}, {key}: {more} dB over {row['best_other']}", flush=True)
    save_json(out, results)


if __name__ == "__main__":
    run(main)
