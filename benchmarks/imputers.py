"""Imputers on real heads: the shipped network beside the fillings that need none.

    python -m benchmarks.imputers runs/frames/heads.npz runs/frames/heads_t1.npz

Scores the stand-in test set, and the `val` split of each frame file of `nogaps prior prepare`
under the course's mask; 95 % intervals by bootstrap over subjects or near-duplicates. Nothing here
trains anything.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from nogaps import standin
from nogaps.Assessment import corrupt, fill
from nogaps.figures import show_rows
from nogaps.files import atomic, save_json
from nogaps.imputers.classical import biharmonic, kriging, linear
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import summarize
from nogaps.prior.heads import load_frames, to_size
from nogaps.scoring import as_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "imputers.json"
FIGURE = ROOT / "docs" / "filled.png"


def heads(frames: list[Path]) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """Images (N,1,64,64) and groups of each set that is scored."""
    sets = {}
    for path in frames:
        x, groups = load_frames(path, "val")
        sets[f"val of {path.name}"] = to_size(x), groups
    clean = torch.from_numpy(standin.clean_images())
    return sets | {"stand-in": (clean, standin.subjects().tolist())}


def measure(frames: list[Path], model: Path | None) -> dict[str, dict[str, dict]]:
    """Scores of every imputer on every set of heads."""
    imputer = load_imputer(model)
    mask = torch.from_numpy(standin.course_mask())[None, None]
    imputers = {
        "linear": linear(),
        "biharmonic": biharmonic,
        "kriging (synthetic)": imputer.interpolation,
        "ours": lambda y, mask: fill(imputer, y, mask),
    }
    if frames:
        x = torch.cat([to_size(load_frames(path, "train")[0]) for path in frames])
        imputers["kriging (real)"] = kriging(x)
    tables: dict[str, dict[str, dict]] = {}
    for name, (x, groups) in heads(frames).items():
        y = corrupt(x, mask)
        tables[name] = {}
        for key, impute in imputers.items():
            start = time.perf_counter()
            x_hat = impute(y, mask)
            seconds = (time.perf_counter() - start) / len(x)
            tables[name][key] = summarize(x_hat, x, mask, groups) | {"seconds_per_image": seconds}
    return tables


def draw(model: Path | None, out: Path) -> None:
    """The README's picture: ten images of the stand-in, corrupted, filled and true."""
    y = torch.from_numpy(standin.corrupted_images()[:10])
    mask = torch.from_numpy(standin.course_mask())[None, None]
    x_hat = fill(load_imputer(model), y, mask)
    rows = {"corrupted": y, "filled": x_hat, "truth": torch.from_numpy(standin.clean_images()[:10])}
    figure = show_rows(rows, "Ten heads that no training has seen")
    with atomic(out) as temporary:
        figure.savefig(temporary)


def main(
    frames: Annotated[list[Path] | None, typer.Argument(help="Frame files.")] = None,
    model: Annotated[Path | None, typer.Option(help="Run folder; else the shipped one.")] = None,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
    figure: Annotated[Path, typer.Option(help="Picture to write.")] = FIGURE,
) -> None:
    """Print one table per set of heads, write them as JSON, and draw ten images."""
    tables = measure(frames or [], model)
    for name, rows in tables.items():
        print(f"\n{name}\n{as_table(rows)}")
        reference = "kriging (real)" if "kriging (real)" in rows else "kriging (synthetic)"
        ratio = rows["ours"]["rmse"] / rows[reference]["rmse"]
        print(f"ours / {reference}: {ratio:.3f} of its RMSE")
    machine = {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}
    save_json(out, {"machine": machine, "tables": tables})
    draw(model, figure)
    print(json.dumps(machine))


if __name__ == "__main__":
    typer.run(main)
