"""Holes wider than lines: ours, classical fillings, draws from the prior, and the intervals.

python -m benchmarks.wide_holes runs/frames/heads.npz runs/frames/heads_t1.npz

Squares in the middle of the `val` frames, and half of the image. `posterior, 0.3` starts its draws
from what ours filled, at that share of the noise schedule; `posterior, 1` from noise alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import harness
from benchmarks.harness import run
from benchmarks.imputers import heads
from nogaps.Assessment import corrupt
from nogaps.imputers.intervals import coverage_by_group
from nogaps.imputers.loading import load_imputer
from nogaps.imputers.posterior import Posterior
from nogaps.interpolation import biharmonic
from nogaps.metrics import summarize
from nogaps.prior.loading import load_prior
from nogaps.runtime.files import save_json

RESULTS = harness.RESULTS / "wide_holes.json"
STAND_IN = "stand-in"  # nothing is measured on it that a warning is tuned by


def holes(size: int = 64) -> dict[str, torch.Tensor]:
    """Return masks (1,1,size,size), True = observed, with one wide hole each."""
    masks = {}
    for width in (8, 16, 24, 32):
        mask = torch.ones(1, 1, size, size, dtype=torch.bool)
        start = (size - width) // 2
        mask[..., start : start + width, start : start + width] = False
        masks[f"square of {width}"] = mask
    masks["right half"] = torch.arange(size).lt(size // 2).expand(1, 1, size, size).contiguous()
    return masks


def main(
    frames: Annotated[list[Path], typer.Argument(help="Frame files.")],
    draws: Annotated[int, typer.Option(help="Draws of the posterior; 0: no such rows.")] = 2,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print and write the mean hole PSNR of each method, and the coverage of 90 % intervals."""
    ours, tables = load_imputer(), {}
    methods = {"ours": ours, "kriging": ours.kriging, "biharmonic": biharmonic}
    for strength, steps in ((0.3, 10), (1, 30)) if draws else ():
        posterior = Posterior(ours, load_prior(), draws, strength, steps)
        methods[f"posterior, {strength:g}"] = posterior
    sets = {name: images for name, images in heads(frames).items() if name != STAND_IN}
    for name, (x, groups) in sets.items():
        tables[name] = {}
        for hole, mask in holes(x.shape[-1]).items():
            y = corrupt(x, mask)
            with torch.no_grad():
                filled = {key: method(y, mask) for key, method in methods.items()}
                half = ours.with_half_width(y, mask)[1]
            row = {key: summarize(x_hat, x, mask, groups) for key, x_hat in filled.items()}
            covered = coverage_by_group(filled["ours"], half, x, mask, groups)
            tables[name][hole] = {"rows": row, "coverage": float(np.mean(list(covered.values())))}
            psnr = "  ".join(f"{key} {scores['psnr']:.2f}" for key, scores in row.items())
            print(f"{name}, {hole}: {psnr}  covered {tables[name][hole]['coverage']:.3f}")
            save_json(out, tables)


if __name__ == "__main__":
    run(main)
