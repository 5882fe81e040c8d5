"""Make the calibration of an ensemble from pairs that it was not trained on, and store it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from nogaps.Assessment import Ensemble
from nogaps.imputers.intervals import (
    Calibration,
    Ratios,
    coverage_by_group,
    fit_weights,
    rank_correlation,
    scale_of,
    scale_terms,
)
from nogaps.imputers.loading import CALIBRATION, TrainedEnsemble, weights_fingerprint
from nogaps.interpolation import keep_observed
from nogaps.runtime.files import save_json

__all__ = [  # what the notebook takes from here
    "CALIBRATION",
    "calibrate_ensemble",
    "coverage_by_group",
    "rank_correlation",
    "save_calibration",
]


@torch.no_grad()
def ensemble_terms(
    ensemble: Ensemble, y: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x_hat (N,1,H,W) and `scale_terms` (4,N,1,H,W), both on the CPU.

    Args:
        ensemble: Its `members` are asked.
        y: Corrupted images, (N,1,H,W) in [0,1], on the ensemble's device.
        mask: Bool (1,1,H,W), True = observed, there as well.
    """
    fills, terms = [], []
    for batch in y.split(64):
        members = ensemble.members(batch, mask)
        fills.append(keep_observed(members.mean(0), batch, mask))
        terms.append(scale_terms(members, fills[-1], batch, mask).cpu())
    return torch.cat(fills).cpu(), torch.cat(terms, dim=1)


def calibrate_ensemble(
    ensemble: Ensemble, y: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, level: float = 0.9
) -> TrainedEnsemble:
    """Calibrate an ensemble on pairs that it was not trained on.

    Every image counts as a group, so that images of one subject belong together: see `Ratios`.
    Half of the images give the weights of the scale, the others the factor.

    Args:
        ensemble: Its networks are those of what is returned; on y's device.
        y: Corrupted images, (N,1,H,W) in [0,1].
        x: Clean ones.
        mask: Bool, (1,1,H,W), True = observed.
        level: Share of hole pixels that the intervals cover.

    Raises:
        BadInput: There are too few images.
    """
    x_hat, terms = ensemble_terms(ensemble, y, mask)
    error, mask = x_hat - x.cpu(), mask.cpu()
    weights = fit_weights(terms[:, ::2], error[::2], mask)
    names = [str(k) for k in range(len(error[1::2]))]
    factor = Ratios(error[1::2], scale_of(terms[:, 1::2], weights), mask, names).factor(level)
    networks, fingerprint = list(ensemble.networks), weights_fingerprint(ensemble)
    calibration = Calibration(level, factor, weights, len(networks), fingerprint, len(names))
    return TrainedEnsemble(networks, calibration=calibration).eval()


def save_calibration(path: str | Path, calibration: Calibration, measured: object) -> None:
    """Write a calibration and, for the reader, what was measured with it."""
    save_json(path, asdict(replace(calibration, measured=measured)))
