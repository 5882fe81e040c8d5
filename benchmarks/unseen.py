"""Ours where it was not trained: other masks, holes wider than lines, images of other sizes.

    python -m benchmarks.unseen runs/frames/heads.npz runs/frames/heads_t1.npz --raw SLICES

Beside classical fillings, with the coverage of the 90 % intervals. Masks: the course's, changed,
and two of other kinds, on the `val` frames and on the stand-in. Holes: squares in the middle of the
`val` frames, and half of the image. Sizes: the `val` frames at 64×64, as in training and on their
side (rows and columns swapped, as a volume may store them), and at their own 128×128, under the
course's mask in tiles (gaps as wide as in training) and drawn twice as large. --raw: a folder with
the slices of `nogaps/data/heads_t1.csv`, of which the 256×256 ones of the stand-in's subjects are
filled at 1 mm. Nothing here trains a network, and nothing was chosen on the stand-in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import harness
from benchmarks.harness import course_mask
from nogaps.Assessment import corrupt
from nogaps.imputers.intervals import coverage_by_group
from nogaps.imputers.loading import load_imputer
from nogaps.imputers.posterior import Posterior
from nogaps.interpolation import biharmonic, kriging
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.prior.frames import load_frames, to_size, unit_range
from nogaps.prior.frames.heads import read_index, read_slice
from nogaps.prior.loading import load_prior
from nogaps.runtime.files import save_json
from nogaps.tables import with_interval

RESULTS = harness.RESULTS / "unseen.json"
INDEX = harness.ROOT / "nogaps" / "data" / "heads_t1.csv"
RAW = 256  # pixels of a side of the raw slices that are filled
MOST = 64  # raw slices per split
EVERY = 4  # of the images with a wide hole, every fourth is filled by the posterior as well
Masks = dict[str, torch.Tensor]  # (1,1,H,W), True = observed, by name


@dataclass(frozen=True)
class Heads:
    """Images (N,1,H,W), their groups, and other heads of their size for a kriging of its own."""

    x: torch.Tensor
    groups: list[str]
    others: torch.Tensor | None = None


def other_masks(size: int) -> Masks:
    """Return the course's mask, changes of it, and two of other kinds; size is 64."""
    course, rows = course_mask(), torch.ones(1, 1, size, size, dtype=torch.bool)
    rows[..., ::4, :] = False
    return {
        "the course's": course,
        "shifted": course.roll((5, 3), (2, 3)),
        "mirrored": course.flip(-1),
        "transposed": course.transpose(2, 3).contiguous(),
        "random half": torch.rand(course.shape, generator=torch.Generator().manual_seed(0)) < 0.5,
        "every 4th row": rows,
    }


def wide_holes(size: int) -> Masks:
    """Return masks with one wide hole each."""
    masks = {}
    for width in (8, 16, 24, 32):
        mask = torch.ones(1, 1, size, size, dtype=torch.bool)
        start = (size - width) // 2
        mask[..., start : start + width, start : start + width] = False
        masks[f"square of {width}"] = mask
    masks["right half"] = torch.arange(size).lt(size // 2).expand(1, 1, size, size).contiguous()
    return masks


def wide_gaps(size: int) -> Masks:
    """Return the course's mask for images of size×size, by how wide its gaps are."""
    course = course_mask()
    times = size // course.shape[-1]
    masks = {"gaps of 2 pixels": course.repeat(1, 1, times, times)}
    if times == 2:
        masks["gaps of 4 pixels"] = course.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return masks


def sizes_of(path: Path) -> dict[str, Heads]:
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


@torch.no_grad()
def measure(heads: Heads, mask: torch.Tensor) -> dict[str, object]:
    """Return scores of ours and of classical fillings, and what the intervals of ours cover.

    "more_db" is what ours has more than the best of the others.
    """
    y, ensemble = corrupt(heads.x, mask), load_imputer()
    parts = [ensemble.with_half_width(batch, mask) for batch in y.split(8)]
    x_hat, half = (torch.cat(part) for part in zip(*parts, strict=True))
    classical = {"biharmonic": biharmonic, "kriging": ensemble.kriging}
    if heads.others is not None:
        classical["kriging, own size"] = kriging(heads.others)
    filled = {"ours": x_hat}
    for name, impute in classical.items():
        filled[name] = torch.cat([impute(batch, mask) for batch in y.split(64)])
    rows = {name: summarize(each, heads.x, mask, heads.groups) for name, each in filled.items()}
    best = max(classical, key=lambda name: rows[name]["psnr"])
    psnr = {name: hole_scores(filled[name], heads.x, mask)["psnr"] for name in ("ours", best)}
    covered = coverage_by_group(x_hat, half, heads.x, mask, heads.groups)
    return {
        "images": len(y),
        "rows": rows,
        "best_other": best,
        "more_db": bootstrap((psnr["ours"] - psnr[best]).astype(float), heads.groups),
        "coverage": float(np.mean(list(covered.values()))),
    }


@torch.no_grad()
def posterior_gain(heads: Heads, mask: torch.Tensor) -> list[float]:
    """Return by how many dB the mean of four draws, from noise alone, exceeds ours in a hole."""
    x, groups, best = heads.x[::EVERY], heads.groups[::EVERY], load_imputer()
    posterior = Posterior(best, load_prior(), 4, strength=1.0, num_inference_steps=20)
    y = corrupt(x, mask)
    psnr = [hole_scores(impute(y, mask), x, mask)["psnr"] for impute in (posterior, best)]
    return bootstrap((psnr[0] - psnr[1]).astype(float), groups)


def measure_all(sets: dict[str, Heads], masks: Callable[[int], Masks]) -> dict[str, dict]:
    """Return `measure` of every set under every mask of its size, and print what ours gains."""
    tables: dict[str, dict] = {}
    for name, heads in sets.items():
        tables[name] = {}
        for key, mask in masks(heads.x.shape[-1]).items():
            row = tables[name][key] = measure(heads, mask)
            more, *ends = row["more_db"]
            more = with_interval(more, ends, sign="+")
            print(f"{name}, {key}: {more} dB over {row['best_other']}", flush=True)
    return tables


def main(
    frames: harness.Frames,
    raw: Annotated[
        Path | None, typer.Option(help="Folder with the slices of nogaps/data/heads_t1.csv.")
    ] = None,
    out: harness.Out = RESULTS,
) -> None:
    """Write hole PSNR of all and the coverage of the 90 % intervals; print what ours gains."""
    sets = {name: Heads(*images) for name, images in harness.heads(frames).items()}
    results = {"masks": measure_all(sets, other_masks)}
    del sets["stand-in"]  # `nogaps fill` warns of wide holes, and no warning is tuned on it
    results["holes"] = measure_all(sets, wide_holes)
    for name, rows in results["holes"].items():
        for hole, mask in wide_holes(64).items():
            rows[hole]["posterior_more_db"] = posterior_gain(sets[name], mask)
    sizes = {name: heads for path in frames for name, heads in sizes_of(path).items()}
    if raw is not None:
        x, groups = raw_slices(raw, "standin")
        sizes[f"stand-in's subjects, {RAW}×{RAW}"] = Heads(x, groups, raw_slices(raw, "train")[0])
    save_json(out, results | {"sizes": measure_all(sizes, wide_gaps)})


if __name__ == "__main__":
    harness.run(main)
