"""Error bars for filled pixels: a scale that follows the error, calibrated on groups of heads.

The half-width of a hole pixel's interval is `factor * scale`. The scale is a sum of four terms that
grow with the error, weighted by non-negative least squares against |error|: the contrast of the
image, the spread of the ensemble's members, the contrast of the 3×3 pixels around, and brightness
(air is dark and easily told). The factor comes from conformal risk control (arXiv 2208.02814,
theorem 1), where the loss is the share of a group's hole pixels outside their intervals.

Guaranteed: for a new group (subject) exchangeable with those calibrated on, under the same mask
and network, the expected share of hole pixels inside is at least the level, provided that the
weights were fitted on other images. Not guaranteed: coverage of one group, image or pixel, of
edges or bright tissue by themselves, or of heads, scanners and masks unlike those calibrated on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from scipy.stats import spearmanr
from torch import nn

from nogaps.imputers.loading import CALIBRATION, weights_file
from nogaps.interpolation import keep_observed, observed_moments
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.files import BadInput, load_json, save_json

TERMS = ("image", "spread", "contrast", "brightness")
LARGEST = 1e6  # of a calibration's numbers; products of them stay finite
FLOOR = 1e-3  # of the scale, a quarter of a grey level: no ratio of error to scale is infinite


@dataclass(frozen=True)
class Calibration:
    """What turns an ensemble's members into intervals.

    level: share of hole pixels to cover. factor: half-width over scale. weights: of TERMS.
    members, imputer: the ensemble it was made for, `identity` of its weights. groups: how many were
    calibrated on.
    """

    level: float
    factor: float
    weights: dict[str, float]
    members: int
    imputer: str
    groups: int


def identity(ensemble: nn.Module) -> str:
    """16 hex digits of an ensemble's weights: intervals belong to one network."""
    return fingerprint(*ensemble.state_dict().values())


def scale_terms(
    members: torch.Tensor, x_hat: torch.Tensor, y: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The terms of the scale in the order of TERMS, (4,N,1,H,W) float32, all at least 0.

    members: (K,N,1,H,W) fills; x_hat: their mean; y, x_hat: (N,1,H,W) in [0,1]; mask: bool,
    (1,1,H,W) or (N,1,H,W), True = observed.
    """
    _, std = observed_moments(y, mask)
    around = F.unfold(F.pad(x_hat, (1, 1, 1, 1), mode="replicate"), 3)
    contrast = around.std(1, correction=0).view_as(x_hat)
    return torch.stack([std.expand_as(x_hat), members.std(0, correction=0), contrast, x_hat])


def scale_of(terms: torch.Tensor, weights: Mapping[str, float]) -> torch.Tensor:
    """Scale (N,1,H,W), at least FLOOR, from `scale_terms` and their weights."""
    weight = torch.tensor([weights[name] for name in TERMS], dtype=terms.dtype, device=terms.device)
    return FLOOR + torch.einsum("t,tnchw->nchw", weight, terms)


def fit_weights(terms: torch.Tensor, error: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Weights of TERMS that fit |error| over hole pixels, by non-negative least squares.

    terms: from `scale_terms`; error: x_hat - x, (N,1,H,W). Not for images that `calibrate` sees.
    """
    hole = (~mask).expand_as(error)
    found, _ = nnls(terms[:, hole].double().numpy().T, error[hole].abs().double().numpy())
    return dict(zip(TERMS, map(float, found), strict=True))


class Ratios:
    """|error| / scale of all hole pixels, sorted once: factors and coverages of many splits.

    error, scale: (N,1,H,W); groups: one name per image. Groups without a hole pixel are left out.
    """

    def __init__(
        self, error: torch.Tensor, scale: torch.Tensor, mask: torch.Tensor, groups: Sequence[str]
    ) -> None:
        hole = (~mask).expand_as(error)
        ratio = (error.abs().double() / scale.double())[hole].numpy()
        images = hole.flatten(1).sum(1).numpy()
        self.names, which = np.unique(np.asarray(groups)[images > 0], return_inverse=True)
        order = np.argsort(ratio, kind="stable")
        self.ratio = ratio[order]
        self.group = np.repeat(which, images[images > 0])[order]
        self.pixels = np.bincount(self.group, minlength=len(self.names))

    def factor(self, level: float, picks: np.ndarray | None = None) -> float:
        """Least factor whose risk bound keeps the level; picks: group indices, None for all.

        Of n groups, at most 1 - level - level / n of the hole pixels may lie outside, each group
        counting the same: the bound of conformal risk control for a loss of at most 1. Raises
        BadInput for fewer groups than that takes.
        """
        picked = np.ones(len(self.names), bool) if picks is None else np.zeros(len(self.names))
        if picks is not None:
            picked[picks] = 1
        n = int(picked.sum())
        least = math.ceil(level / (1 - level) - 1e-9)
        if n < least:
            raise BadInput(f"{n} groups: too few for intervals of {level:.0%}, expected {least}")
        share = np.cumsum((picked / self.pixels)[self.group]) / n
        inside = level + level / n
        return float(self.ratio[np.searchsorted(share, min(inside, share[-1]) - 1e-12)])

    def coverage(self, factor: float) -> np.ndarray:
        """Share of each group's hole pixels inside, in the order of `names`."""
        inside = self.group[: np.searchsorted(self.ratio, factor, side="right")]
        return np.bincount(inside, minlength=len(self.names)) / self.pixels


def calibrate(
    error: torch.Tensor,
    scale: torch.Tensor,
    mask: torch.Tensor,
    groups: Sequence[str],
    level: float = 0.9,
) -> float:
    """Factor by which the scale (N,1,H,W) becomes a half-width; see the module for its guarantee.

    error: x_hat - x of images whose truth is known, (N,1,H,W); groups: subject of each image.
    Raises BadInput for fewer than level / (1 - level) groups.
    """
    return Ratios(error, scale, mask, groups).factor(level)


def cross_validate(
    ratios: Ratios, level: float = 0.9, share: float = 0.5, splits: int = 200, seed: int = 0
) -> np.ndarray:
    """Mean coverage of groups left out, (splits,): a random `share` of them calibrates each time.

    Raises BadInput if that share is too few groups, or leaves none to test.
    """
    rng, n = np.random.default_rng(seed), len(ratios.names)
    most = round(share * n)
    if most >= n:
        raise BadInput(f"{n} groups: {most} to calibrate on leave none to test, expected more")
    found = []
    for _ in range(splits):
        order = rng.permutation(n)
        covered = ratios.coverage(ratios.factor(level, order[:most]))
        found.append(covered[order[most:]].mean())
    return np.array(found)


def half_width(
    x_hat: torch.Tensor, scale: torch.Tensor, factor: float, mask: torch.Tensor
) -> torch.Tensor:
    """Half-widths (N,1,H,W) float32: 0 at observed pixels, in holes at most what [0,1] holds."""
    most = torch.maximum(x_hat, 1 - x_hat)  # beyond, both ends are clipped: nothing is gained
    return torch.where(mask, torch.zeros_like(x_hat), torch.minimum(factor * scale, most))


def interval(x_hat: torch.Tensor, half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper ends of x_hat ± half, clipped to [0,1], (N,1,H,W) each.

    The truth lies in [0,1], so clipping covers no less.
    """
    return (x_hat - half).clamp(0, 1), (x_hat + half).clamp(0, 1)


def coverage_by_group(
    x_hat: torch.Tensor,
    half: torch.Tensor,
    x: torch.Tensor,
    mask: torch.Tensor,
    groups: Sequence[str],
) -> dict[str, float]:
    """Share of each group's hole pixels whose truth x lies within `half` of x_hat."""
    found = Ratios(x_hat - x, half.clamp(min=1e-12), mask, groups)
    return dict(zip(map(str, found.names), map(float, found.coverage(1)), strict=True))


def rank_correlation(half: torch.Tensor, error: torch.Tensor, mask: torch.Tensor) -> float:
    """Spearman's correlation of half-width and |error| over all hole pixels."""
    hole = (~mask).expand_as(error)
    return float(spearmanr(half[hole].numpy(), error[hole].abs().numpy()).statistic)


class Calibrated(nn.Module):
    """An ensemble with its calibration: fills as the ensemble does, and knows its intervals.

    ensemble: `members(y, mask)` gives (K,N,1,H,W); its own call gives their mean, observed pixels
    exact.
    """

    def __init__(self, ensemble: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        self.ensemble, self.calibration = ensemble, calibration
        self.trained_on = getattr(ensemble, "trained_on", None)

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """y (N,1,H,W) in [0,1], mask bool (1,1,H,W) or (N,1,H,W): x_hat (N,1,H,W)."""
        return self.ensemble(y, mask)

    def with_half_width(
        self, y: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_hat and its half-widths, (N,1,H,W) each; 0 at observed pixels."""
        members = self.ensemble.members(y, mask)
        if len(members) != self.calibration.members:
            expected = f"its intervals expected {self.calibration.members}"
            raise BadInput(f"the ensemble: has {len(members)} members, {expected}")
        x_hat = keep_observed(members.mean(0), y, mask)
        scale = scale_of(scale_terms(members, x_hat, y, mask), self.calibration.weights)
        return x_hat, half_width(x_hat, scale, self.calibration.factor, mask)


@torch.no_grad()
def ensemble_terms(
    ensemble: nn.Module, y: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """x_hat (N,1,H,W) and `scale_terms` (4,N,1,H,W) on the CPU, and how many members there are.

    y: (N,1,H,W) in [0,1]; mask: bool (1,1,H,W), True = observed; both on the ensemble's device.
    """
    fills, terms, members = [], [], torch.empty(0)
    for batch in y.split(64):
        members = ensemble.members(batch, mask)
        fills.append(keep_observed(members.mean(0), batch, mask))
        terms.append(scale_terms(members, fills[-1], batch, mask).cpu())
    return torch.cat(fills).cpu(), torch.cat(terms, dim=1), len(members)


def calibrate_ensemble(
    ensemble: nn.Module, y: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, level: float = 0.9
) -> Calibrated:
    """The ensemble with intervals from pairs it was not trained on: y, x (N,1,H,W) in [0,1].

    Every image counts as a group: images of one subject belong together, see `calibrate`. One half
    of the images gives the weights, the other the factor. mask: bool (1,1,H,W), on y's device.
    Raises BadInput for too few images.
    """
    x_hat, terms, members = ensemble_terms(ensemble, y, mask)
    error = x_hat - x.cpu()
    weights = fit_weights(terms[:, ::2], error[::2], mask.cpu())
    names = [str(k) for k in range(len(error[1::2]))]
    found = Ratios(error[1::2], scale_of(terms[:, 1::2], weights), mask.cpu(), names)
    factor = found.factor(level)
    made = Calibration(level, factor, weights, members, identity(ensemble), len(names))
    return Calibrated(ensemble, made)


def calibration_file(model: str | Path | None = None) -> Path:
    """Where the calibration of an imputer lies: beside its weights; None: the shipped one."""
    return weights_file(model).parent / CALIBRATION


def save_calibration(path: str | Path, calibration: Calibration, measured: object) -> None:
    """Write a calibration and, for the reader, what was measured with it."""
    save_json(path, asdict(calibration) | {"measured": measured})


def load_calibrated(ensemble: nn.Module, model: str | Path | None = None) -> Calibrated:
    """The ensemble of `model` with the calibration beside its weights.

    Raises BadInput if there is none, if it is damaged, or belongs to another network.
    """
    path = calibration_file(model)
    if not hasattr(ensemble, "members"):
        raise BadInput(f"{path.parent}: is one network here, expected all of them (--quality best)")
    if not os.path.exists(path):
        raise BadInput(f"{path}: not found, expected the calibration that `nogaps train` writes")
    found = {name: value for name, value in load_json(path).items() if name != "measured"}
    try:
        calibration = Calibration(**found)
        numbers = [calibration.weights[name] for name in TERMS]
        numbers += [calibration.level, calibration.factor, calibration.groups]
        sound = all(0 <= n <= LARGEST for n in numbers) and calibration.level < 1
    except (TypeError, KeyError) as error:
        raise BadInput(f"{path}: lacks numbers of a calibration, expected all") from error
    if not sound:
        raise BadInput(f"{path}: holds a number out of range, expected 0 to {LARGEST:g}")
    if calibration.imputer != identity(ensemble):
        raise BadInput(f"{path}: belongs to other weights, expected a new calibration")
    return Calibrated(ensemble, calibration)
