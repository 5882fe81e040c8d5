"""Calibrate the imputer's intervals on real heads, and measure what they cover.

    python -m benchmarks.uncertainty runs/frames/heads.npz runs/frames/heads_t1.npz

The scale's weights are fitted on the `train` split of the frame files, its factor on the groups of
their `val` split; both are written beside the imputer's weights, where `nogaps fill --uncertainty`
finds them. Then, on heads whose truth is known: coverage by group, on groups left out of the
calibration, on the stand-in (never calibrated on), and by brightness, where nothing is guaranteed.
Nothing here trains a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from benchmarks import harness
from benchmarks.harness import course_mask, heads
from nogaps.Assessment import corrupt
from nogaps.figures import show_rows
from nogaps.imputers import intervals
from nogaps.imputers.intervals import Calibration, Ratios
from nogaps.imputers.loading import CALIBRATION, load_imputer, weights_file, weights_fingerprint
from nogaps.imputers.uncertainty import ensemble_terms, save_calibration
from nogaps.prior.frames import load_frames, to_size
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, save_json

RESULTS = harness.RESULTS / "uncertainty.json"
MOST = 300  # images that the weights are fitted on: 620,000 pixels for four numbers


class Filled(NamedTuple):
    """Filled images whose truth is known: x and x_hat (N,1,H,W), terms (4,N,1,H,W)."""

    x: torch.Tensor
    x_hat: torch.Tensor
    terms: torch.Tensor
    groups: list[str]

    @property
    def error(self) -> torch.Tensor:
        """x_hat - x."""
        return self.x_hat - self.x

    def half_width(self, calibration: Calibration, mask: torch.Tensor) -> torch.Tensor:
        """Return half the width of each pixel's interval, (N,1,H,W)."""
        scale = intervals.scale_of(self.terms, calibration.weights)
        return intervals.half_width(self.x_hat, scale, calibration.factor, mask)


def fill(
    ensemble: torch.nn.Module, x: torch.Tensor, groups: list[str], mask: torch.Tensor
) -> Filled:
    """Corrupt x (N,1,H,W) and fill it."""
    return Filled(x, *ensemble_terms(ensemble, corrupt(x, mask), mask), groups)


def join(sets: list[Filled]) -> Filled:
    """Return several sets as one."""
    x, x_hat = torch.cat([s.x for s in sets]), torch.cat([s.x_hat for s in sets])
    terms = torch.cat([s.terms for s in sets], dim=1)
    return Filled(x, x_hat, terms, [name for s in sets for name in s.groups])


def describe(filled: Filled, calibration: Calibration, mask: torch.Tensor) -> dict:
    """Return coverage, also by thirds of brightness, and rank correlation of a set's intervals."""
    half, hole = filled.half_width(calibration, mask), (~mask).expand_as(filled.x)
    by_group = intervals.coverage_by_group(filled.x_hat, half, filled.x, mask, filled.groups)
    covered = np.array(list(by_group.values()))
    inside, grey = (filled.error.abs() <= half)[hole].numpy(), filled.x_hat[hole].numpy()
    third = np.searchsorted(np.quantile(grey, [1 / 3, 2 / 3]), grey)
    return {
        "groups": len(covered),
        "coverage": float(covered.mean()),
        "groups_5_50_95": [float(q) for q in np.quantile(covered, [0.05, 0.5, 0.95])],
        "rank_correlation": intervals.rank_correlation(half, filled.error, mask),
        "coverage_by_brightness": [float(inside[third == k].mean()) for k in range(3)],
    }


def calibrate(
    fit: Filled, val: Filled, mask: torch.Tensor, ensemble: torch.nn.Module, level: float
) -> tuple[Calibration, dict]:
    """Calibrate on val with weights from fit; returns also the coverage of groups left out.

    "half": each half of the groups calibrates for the other; "nine tenths": as many as can.
    """
    weights = intervals.fit_weights(fit.terms, fit.error, mask)
    scale = intervals.scale_of(val.terms, weights)
    ratios = intervals.Ratios(val.error, scale, mask, val.groups)
    rows = {}
    for name, share in (("half", 0.5), ("nine tenths", 0.9)):
        rows[name] = {"coverage": float(cross_validate(ratios, level, share).mean())}
    members, identity = len(ensemble.networks), weights_fingerprint(ensemble)
    factor, groups = ratios.factor(level), len(ratios.names)
    return Calibration(level, factor, weights, members, identity, groups), rows


def draw(filled: Filled, calibration: Calibration, mask: torch.Tensor, out: Path) -> None:
    """Draw ten images: filled, truth, error, half-width (the same colours for both, white is 0)."""
    pick = slice(None, None, max(1, len(filled.x) // 10))
    rows = {"filled": filled.x_hat, "truth": filled.x, "error": filled.error}
    rows["half-width"] = filled.half_width(calibration, mask)
    title = f"Half-widths of {calibration.level:.0%} intervals, beside the error"
    figure = show_rows({k: v[pick] for k, v in rows.items()}, title, 10, ("error", "half-width"))
    with atomic(out) as temporary:
        figure.savefig(temporary)


def cross_validate(
    ratios: Ratios, level: float = 0.9, share: float = 0.5, splits: int = 200, seed: int = 0
) -> np.ndarray:
    """Return the mean coverage of groups left out, (splits,); a random `share` calibrates.

    Raises:
        BadInput: That share is too few groups, or leaves none to test.
    """
    rng, n = np.random.default_rng(seed), len(ratios.names)
    most = round(share * n)
    if most >= n:
        raise BadInput(f"{most} of {n} groups to calibrate on leave none to test", "more groups")
    means = []
    for _ in range(splits):
        order = rng.permutation(n)
        covered = ratios.coverage(ratios.factor(level, order[:most]))
        means.append(covered[order[most:]].mean())
    return np.array(means)


def main(
    frames: harness.Frames,
    model: harness.Model = None,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.95, help="Share of hole pixels to cover.")
    ] = 0.9,
    out: harness.Out = RESULTS,
    figure: Annotated[Path | None, typer.Option(help="Draw ten images there (.png).")] = None,
) -> None:
    """Calibrate, write the calibration beside the imputer's weights, print what it covers."""
    ensemble, mask = load_imputer(model), course_mask()
    x, groups = load_frames(frames, "train")
    step = -(-len(x) // MOST)
    fit, sets = fill(ensemble, to_size(x[::step]), groups[::step], mask), {}
    for name, (clean, names) in heads(frames).items():
        key = name if name == "stand-in" else f"{name} (calibrated on)"  # in-sample
        sets[key] = fill(ensemble, clean, names, mask)
    val = join([filled for name, filled in sets.items() if name != "stand-in"])
    calibration, left_out = calibrate(fit, val, mask, ensemble, level)
    tables = {name: describe(filled, calibration, mask) for name, filled in sets.items()}
    measured = {"heads": tables, "left out": left_out}
    for name, row in (tables | left_out).items():
        print(f"{name}: {row['coverage']:.1%} covered")
    path = weights_file(model).parent / CALIBRATION
    save_calibration(path, calibration, measured)
    numbers = {name: value for name, value in vars(calibration).items() if name != "measured"}
    save_json(out, numbers | measured)
    print(f"{path}: written")
    if figure:
        draw(sets["stand-in"], calibration, mask, figure)


if __name__ == "__main__":
    harness.run(main)
