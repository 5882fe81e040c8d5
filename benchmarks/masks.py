"""The shipped network under masks it was not trained for, beside kriging, on the stand-in.

python -m benchmarks.masks
python -m benchmarks.masks runs/frames/heads_t1.npz      (the `val` split of a frame file)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import harness
from benchmarks.harness import course_mask, run
from benchmarks.imputers import heads
from nogaps.Assessment import corrupt, fill
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import summarize
from nogaps.runtime.files import save_json

RESULTS = harness.RESULTS / "masks.json"


def masks(course: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the course's mask (1,1,H,W), changes of it, and two of other kinds."""
    chance = torch.rand(course.shape, generator=torch.Generator().manual_seed(0))
    rows = torch.ones_like(course)
    rows[..., ::4, :] = False
    return {
        "the course's": course,
        "shifted": course.roll((5, 3), (2, 3)),
        "mirrored": course.flip(-1),
        "transposed": course.transpose(2, 3).contiguous(),
        "random half": chance < 0.5,
        "every 4th row": rows,
    }


def main(
    frames: Annotated[list[Path] | None, typer.Argument(help="Frame files.")] = None,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print and write the mean hole PSNR of both."""
    ours = load_imputer()
    kriging, tables = ours.kriging, {}
    for name, (x, groups) in heads(frames or []).items():
        print(f"\n{name}: hole PSNR in dB\n{'mask':15} {'ours':>6} {'kriging':>8}")
        tables[name] = {}
        for key, mask in masks(course_mask()).items():
            y = corrupt(x, mask)
            filled = {"ours": fill(ours, y, mask), "kriging": kriging(y, mask)}
            rows = {name: summarize(x_hat, x, mask, groups) for name, x_hat in filled.items()}
            tables[name][key] = rows
            print(f"{key:15} {rows['ours']['psnr']:6.2f} {rows['kriging']['psnr']:8.2f}")
    save_json(out, tables)


if __name__ == "__main__":
    run(main)
