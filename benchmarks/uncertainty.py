"""Calibrate the imputer's intervals on real heads, and measure what they cover.

    python -m benchmarks.uncertainty runs/frames/heads.npz runs/frames/heads_t1.npz

The scale's weights are fitted on the `train` split of the frame files, its factor on the groups of
their `val` split; both are written beside the imputer's weights, where `nogaps fill --uncertainty`
finds them. Then, on heads whose truth is known: coverage by group, on groups left out of the
calibration, on the stand-in (never calibrated on), and where nothing is guaranteed: by brightness
and by width. Nothing here trains a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.harness import run
from benchmarks.imputers import heads
from nogaps import standin
from nogaps.Assessment import corrupt
from nogaps.figures import show_rows
from nogaps.imputers import intervals
from nogaps.imputers.loading import CALIBRATION, load_imputer, weights_file, weights_fingerprint
from nogaps.imputers.uncertainty import ensemble_terms, save_calibration
from nogaps.prior.frames.heads import load_frames, to_size
from nogaps.runtime.files import atomic, save_json

RESULTS = Path(__file__).parent / "results" / "uncertainty.json"
MOST = 300  # images that the weights are fitted on: 620,000 pixels for four numbers


@dataclass(frozen=True)
class Filled:
    """Filled images whose truth is known: x and x_hat (N,1,H,W), terms (4,N,1,H,W)."""

    x: torch.Tensor
    x_hat: torch.Tensor
    terms: torch.Tensor
    groups: list[str]


def filled(
    ensemble: torch.nn.Module, x: torch.Tensor, groups: list[str], mask: torch.Tensor
) -> Filled:
    """What the ensemble makes of x (N,1,H,W) under a mask."""
    x_hat, terms = ensemble_terms(ensemble, corrupt(x, mask), mask)
    return Filled(x, x_hat, terms, groups)


def joined(sets: list[Filled]) -> Filled:
    """Several sets as one."""
    x, x_hat = (torch.cat([getattr(one, name) for one in sets]) for name in ("x", "x_hat"))
    terms = torch.cat([one.terms for one in sets], dim=1)
    return Filled(x, x_hat, terms, [name for one in sets for name in one.groups])


def ratios(one: Filled, weights: dict[str, float], mask: torch.Tensor) -> intervals.Ratios:
    """|error| over scale of a set."""
    scale = intervals.scale_of(one.terms, weights)
    return intervals.Ratios(one.x_hat - one.x, scale, mask, one.groups)


def thirds(half: torch.Tensor, error: torch.Tensor, by: torch.Tensor, hole: torch.Tensor) -> list:
    """Coverage of the pixels in the lower, middle and upper third of `by`."""
    inside, values = (error.abs() <= half)[hole].numpy(), by[hole].numpy()
    third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values)
    return [float(inside[third == k].mean()) for k in range(3)]


def describe(one: Filled, calibration: intervals.Calibration, mask: torch.Tensor) -> dict:
    """Coverage, width and rank correlation of a set's intervals."""
    scale = intervals.scale_of(one.terms, calibration.weights)
    half = intervals.half_width(one.x_hat, scale, calibration.factor, mask)
    error, hole = one.x_hat - one.x, (~mask).expand_as(one.x)
    by_group = intervals.coverage_by_group(one.x_hat, half, one.x, mask, one.groups)
    covered = np.array(list(by_group.values()))
    low, high = intervals.interval(one.x_hat, half)
    return {
        "groups": len(covered),
        "coverage": float(covered.mean()),
        "groups_5_50_95": [float(q) for q in np.quantile(covered, [0.05, 0.5, 0.95])],
        "mean_width": float((high - low)[hole].mean()),
        "rank_correlation": intervals.rank_correlation(half, error, mask),
        "coverage_by_brightness": thirds(half, error, one.x_hat, hole),
        "coverage_by_width": thirds(half, error, half, hole),
    }


def calibrated(
    fit: Filled, val: Filled, mask: torch.Tensor, members: int, identity: str, level: float
) -> tuple[intervals.Calibration, dict]:
    """Calibration on val with weights from fit, and the coverage of groups that are left out.

    "half": each half of the groups calibrates for the other; "nine tenths": as many as can.
    """
    weights = intervals.fit_weights(fit.terms, fit.x_hat - fit.x, mask)
    found = ratios(val, weights, mask)
    names = (level, found.factor(level), weights, members, identity, len(found.names))
    rows = {}
    for name, share in (("half", 0.5), ("nine tenths", 0.9)):
        covered = intervals.cross_validate(found, level, share)
        low, high = np.quantile(covered, [0.025, 0.975])
        rows[name] = {"coverage": float(covered.mean()), "splits_95": [float(low), float(high)]}
    return intervals.Calibration(*names), rows


def as_table(tables: dict[str, dict], left_out: dict[str, dict]) -> str:
    """What was measured, as aligned text."""
    lines = [f"{'heads':40} groups coverage  5, 50, 95 % of groups  width  rank  by brightness"]
    for name, row in tables.items():
        spread = " ".join(f"{value:.3f}" for value in row["groups_5_50_95"])
        by = " ".join(f"{value:.3f}" for value in row["coverage_by_brightness"])
        line = f"{name:40} {row['groups']:6} {row['coverage']:8.3f}  {spread:>21}"
        lines.append(f"{line} {row['mean_width']:7.3f} {row['rank_correlation']:5.2f}  {by}")
    for name, row in left_out.items():
        low, high = row["splits_95"]
        lines.append(
            f"calibrated on {name} of the groups, tested on the others: "
            f"{row['coverage']:.3f} [{low:.3f}, {high:.3f}] over random splits"
        )
    return "\n".join(lines)


def draw(one: Filled, calibration: intervals.Calibration, mask: torch.Tensor, out: Path) -> None:
    """Ten images: filled, truth, error, half-width (the same colours for both, white is 0)."""
    pick = slice(None, None, max(1, len(one.x) // 10))
    scale = intervals.scale_of(one.terms, calibration.weights)
    half = intervals.half_width(one.x_hat, scale, calibration.factor, mask)
    rows = {"filled": one.x_hat, "truth": one.x, "error": one.x_hat - one.x, "half-width": half}
    title = f"Half-widths of {calibration.level:.0%} intervals, beside the error"
    figure = show_rows({k: v[pick] for k, v in rows.items()}, title, 10, ("error", "half-width"))
    with atomic(out) as temporary:
        figure.savefig(temporary)


def main(
    frames: Annotated[list[Path], typer.Argument(help="Frame files with a train and a val split.")],
    model: Annotated[Path | None, typer.Option(help="Run folder; else the shipped one.")] = None,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.95, help="Share of hole pixels to cover.")
    ] = 0.9,
    out: Annotated[Path, typer.Option(help="JSON of what is measured.")] = RESULTS,
    figure: Annotated[Path | None, typer.Option(help="Draw ten images there (.png).")] = None,
) -> None:
    """Calibrate, write the calibration beside the imputer's weights, print what it covers."""
    ensemble = load_imputer(model)
    mask = torch.from_numpy(standin.course_mask())[None, None]
    x, groups = load_frames(frames, "train")
    step = -(-len(x) // MOST)
    fit = filled(ensemble, to_size(x[::step]), groups[::step], mask)
    sets = {}
    for name, (clean, names) in heads(frames).items():
        key = name if name == "stand-in" else f"{name} (calibrated on)"  # in-sample
        sets[key] = filled(ensemble, clean, names, mask)
    val = joined([one for name, one in sets.items() if name != "stand-in"])
    identity = weights_fingerprint(ensemble)
    members = len(ensemble.networks)
    calibration, left_out = calibrated(fit, val, mask, members, identity, level)
    tables = {name: describe(one, calibration, mask) for name, one in sets.items()}
    measured = {"heads": tables, "left out": left_out}
    print(f"factor {calibration.factor:.3f}, weights", calibration.weights)
    print(as_table(tables, left_out))
    path = weights_file(model).parent / CALIBRATION
    save_calibration(path, calibration, measured)
    numbers = {name: value for name, value in vars(calibration).items() if name != "measured"}
    save_json(out, numbers | measured)
    print(f"{path}: written")
    if figure:
        draw(sets["stand-in"], calibration, mask, figure)


if __name__ == "__main__":
    run(main)
