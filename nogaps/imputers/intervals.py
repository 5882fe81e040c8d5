"""Intervals for filled pixels: a scale that follows the error, calibrated on groups of heads.

The half-width of a hole pixel's interval is `factor * scale`. The scale is a sum of four terms that
grow with the error, weighted by non-negative least squares against |error|: the contrast of the
image, the spread of the ensemble's members, the contrast of the 3×3 pixels around, and brightness
(air is dark and easily filled). The factor comes from conformal risk control (arXiv 2208.02814,
theorem 1), where the loss is the share of a group's hole pixels outside their intervals.

Guaranteed: for a new group (subject) exchangeable with those calibrated on, under the same mask
and network, the expected share of hole pixels inside is at least the level, provided that the
weights were fitted on other images. Not guaranteed: coverage of one group, image or pixel, of
edges or bright tissue by themselves, or of heads, scanners and masks unlike those calibrated on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from scipy.stats import spearmanr

from nogaps.interpolation import observed_moments
from nogaps.runtime.errors import BadInput

TERMS = ("image", "spread", "contrast", "brightness")
FLOOR = 1e-3  # smallest scale, a quarter of a grey level: nothing is divided by zero


@dataclass(frozen=True)
class Calibration:
    """What turns the members of an ensemble into intervals.

    Attributes:
        level: Share of hole pixels to cover.
        factor: Half-width over scale.
        weights: Of TERMS.
        members: How many networks the ensemble has.
        imputer: `weights_fingerprint` of the ensemble.
        groups: How many were calibrated on.
        measured: For readers of the file: what the intervals cover, or what they were made from.
    """

    level: float
    factor: float
    weights: dict[str, float]
    members: int
    imputer: str
    groups: int
    measured: object = field(default=None, repr=False)


def scale_terms(
    members: torch.Tensor, x_hat: torch.Tensor, y: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return the terms of the scale, (4,N,1,H,W) float32 in the order of TERMS, all at least 0.

    Args:
        members: What each network fills in, (K,N,1,H,W).
        x_hat: Their mean, (N,1,H,W) in [0,1].
        y: Corrupted images, (N,1,H,W) in [0,1].
        mask: Bool, (1,1,H,W) or (N,1,H,W), True = observed.
    """
    _, std = observed_moments(y, mask)
    around = F.unfold(F.pad(x_hat, (1, 1, 1, 1), mode="replicate"), 3)
    contrast = around.std(1, correction=0).view_as(x_hat)
    return torch.stack([std.expand_as(x_hat), members.std(0, correction=0), contrast, x_hat])


def scale_of(terms: torch.Tensor, weights: Mapping[str, float]) -> torch.Tensor:
    """Return the scale (N,1,H,W), at least FLOOR, from `scale_terms` and their weights."""
    weight = torch.tensor([weights[name] for name in TERMS], dtype=terms.dtype, device=terms.device)
    return FLOOR + torch.einsum("t,tnchw->nchw", weight, terms)


def fit_weights(terms: torch.Tensor, error: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Fit weights of TERMS to |error| over hole pixels by non-negative least squares.

    Args:
        terms: From `scale_terms`, of images that do not give the factor.
        error: x_hat - x, (N,1,H,W).
        mask: Bool, True = observed.
    """
    hole = (~mask).expand_as(error)
    weights, _ = nnls(terms[:, hole].double().numpy().T, error[hole].abs().double().numpy())
    return dict(zip(TERMS, map(float, weights), strict=True))


class Ratios:
    """|error| / scale of all hole pixels, sorted once: factors and coverages of many splits.

    Args:
        error: x_hat - x, (N,1,H,W).
        scale: From `scale_of`, (N,1,H,W).
        mask: Bool, True = observed.
        groups: One name per image; groups without a hole pixel are left out.
    """

    def __init__(
        self, error: torch.Tensor, scale: torch.Tensor, mask: torch.Tensor, groups: Sequence[str]
    ) -> None:
        hole = (~mask).expand_as(error)
        ratio = (error.abs().double() / scale.double())[hole].numpy()
        images = hole.flatten(1).sum(1).numpy()
        self.names, group_index = np.unique(np.asarray(groups)[images > 0], return_inverse=True)
        order = np.argsort(ratio, kind="stable")
        self.ratio = ratio[order]
        self.group = np.repeat(group_index, images[images > 0])[order]
        self.pixels = np.bincount(self.group, minlength=len(self.names))

    def factor(self, level: float, picks: np.ndarray | None = None) -> float:
        """Return the least factor whose risk bound keeps the level.

        With n groups the mean share outside, each group weighted equally, must be at most
        1 - level - level / n (arXiv 2208.02814, theorem 1).

        Args:
            level: Share of hole pixels to cover.
            picks: Indices of the groups to calibrate on; None for all.

        Raises:
            BadInput: There are fewer groups than level / (1 - level).
        """
        picked = np.zeros(len(self.names))
        picked[slice(None) if picks is None else picks] = 1
        n = int(picked.sum())
        least = math.ceil(level / (1 - level) - 1e-9)
        if n < least:
            raise BadInput(f"{n} groups are too few for intervals of {level:.0%}", f"{least}")
        share = np.cumsum((picked / self.pixels)[self.group]) / n
        required = level + level / n
        return float(self.ratio[np.searchsorted(share, min(required, share[-1]) - 1e-12)])

    def coverage(self, factor: float) -> np.ndarray:
        """Return the share of each group's hole pixels inside, in the order of `names`."""
        inside = self.group[: np.searchsorted(self.ratio, factor, side="right")]
        return np.bincount(inside, minlength=len(self.names)) / self.pixels


def half_width(
    x_hat: torch.Tensor, scale: torch.Tensor, factor: float, mask: torch.Tensor
) -> torch.Tensor:
    """Return half-widths (N,1,H,W): 0 at observed pixels, in holes at most what [0,1] holds."""
    most = torch.maximum(x_hat, 1 - x_hat)  # beyond, both ends are clipped: nothing is gained
    return torch.where(mask, torch.zeros_like(x_hat), torch.minimum(factor * scale, most))


def interval(x_hat: torch.Tensor, half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lower and upper ends of x_hat ± half, (N,1,H,W) each, clipped to [0,1].

    The truth lies in [0,1], so that clipping covers no less.
    """
    return (x_hat - half).clamp(0, 1), (x_hat + half).clamp(0, 1)


def coverage_by_group(
    x_hat: torch.Tensor,
    half: torch.Tensor,
    x: torch.Tensor,
    mask: torch.Tensor,
    groups: Sequence[str],
) -> dict[str, float]:
    """Return the share of each group's hole pixels whose truth x lies within `half` of x_hat."""
    ratios = Ratios(x_hat - x, half.clamp(min=1e-12), mask, groups)
    return dict(zip(map(str, ratios.names), map(float, ratios.coverage(1)), strict=True))


def rank_correlation(half: torch.Tensor, error: torch.Tensor, mask: torch.Tensor) -> float:
    """Return Spearman's correlation of half-width and |error| over all hole pixels."""
    hole = (~mask).expand_as(error)
    return float(spearmanr(half[hole].numpy(), error[hole].abs().numpy()).statistic)
