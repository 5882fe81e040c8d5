"""A score without labels: hide further observed pixels of the test set itself, fill, compare.

The stripes of the mask, shifted by one pixel across themselves, cut a line of observed pixels off
every run. These lines, in segments of eight rows, are dealt to folds; each fold's pixels are hidden
in turn and predicted from what is left. Gaps grow from two pixels to three where pixels are hidden,
so that scores are lower than in the true holes: they rank imputers, and stand beside kriging's on
the same pixels (compare zero-shot SSDU, arXiv 2102.07737, which holds out measured samples alike).
An imputer that was trained on these very pixels is flattered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import spearmanr

from nogaps.api import fill
from nogaps.filling.method import Filling, FillingMethod
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import bootstrap, hole_scores, score_row

ROWS = 8  # length of a segment: what lies above and below a hidden line stays as it is
CONNECTED = np.ones((3, 3))  # slanted lines are connected by corners


def line_segments(mask: np.ndarray, side: int) -> np.ndarray:
    """Number the lines of observed pixels beside the holes of a mask, cut into segments.

    Args:
        mask: bool (H,W), True = observed.
        side: 1 for pixels right of (or below) a hole, -1 for those left of (or above) it, across
            the direction in which the mask changes more often.

    Returns:
        Numbers from 1, (H,W) int; 0 elsewhere.
    """
    axis = int((mask[:, 1:] != mask[:, :-1]).sum() >= (mask[1:] != mask[:-1]).sum())
    rows = np.moveaxis(mask, axis, 1)  # holes and observed pixels now alternate along axis 1
    beside = np.roll(rows, side, axis=1)
    beside[:, 0 if side > 0 else -1] = True  # nothing is hidden at the border
    lines = rows & ~beside
    segments = np.zeros(rows.shape, int)
    for top in range(0, len(rows), ROWS):
        labels, _ = ndimage.label(lines[top : top + ROWS], CONNECTED)
        segments[top : top + ROWS] = np.where(labels, labels + segments.max(), 0)
    return np.moveaxis(segments, 1, axis)


def hidden_folds(mask: torch.Tensor, folds: int = 8, seed: int = 0) -> torch.Tensor:
    """Choose observed pixels to hide in each fold, (folds,M,1,H,W) bool, True = hidden.

    Even folds take lines on one side of the holes, odd ones on the other, segment by segment at
    random.

    Args:
        mask: bool (M,1,H,W), True = observed.
        folds: An even number, else ValueError.
        seed: Of the random choice.
    """
    if folds < 2 or folds % 2:
        raise ValueError(f"{folds} folds: expected an even number, at least 2")
    rng = np.random.default_rng(seed)
    hidden = np.zeros((folds, *mask.shape), bool)
    for k, observed in enumerate(mask[:, 0].cpu().numpy()):
        for odd, side in enumerate((1, -1)):
            segments = line_segments(observed, side)
            # the first entry is for pixels of no segment; every fold gets as many, to within one
            part = np.concatenate([[-1], rng.permutation(segments.max()) % (folds // 2)])
            for fold in range(folds // 2):
                hidden[2 * fold + odd, k, 0] = part[segments] == fold
    return torch.from_numpy(hidden).to(mask.device)


def hidden_score(
    imputer: FillingMethod | Filling,
    y: torch.Tensor,
    mask: torch.Tensor,
    folds: int = 8,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    kriging: Filling | None = None,
) -> dict[str, dict[str, float | list[float]]]:
    """Score an imputer and kriging on the same hidden pixels of y; no label is needed.

    Args:
        imputer: Called as `x_hat = imputer(y, mask)`.
        y: Corrupted images (N,1,H,W) in [0,1].
        mask: bool (1,1,H,W) or (N,1,H,W), True = observed.
        folds, seed: See `hidden_folds`.
        groups: Of the images; intervals resample groups, else images.
        kriging: Else that of the shipped imputer.

    Returns:
        Rows "imputer" and "kriging" with the pooled "rmse" and the mean "psnr" in dB, and "gain"
        with the mean difference of PSNR, each with a 95 % interval.

    Raises:
        ValueError: No observed pixel lies beside a hole.
    """
    hidden = hidden_folds(mask, folds, seed)
    if not hidden.any(0).flatten(1).any(1).all():
        raise ValueError("no observed pixel lies beside a hole: nothing can be hidden")
    reference = kriging or load_imputer(quality="fast").kriging
    mse, reference_mse = (_hidden_mse(each, y, mask, hidden) for each in (imputer, reference))
    psnr, reference_psnr = _psnr(mse), _psnr(reference_mse)
    gain, *interval = bootstrap(psnr - reference_psnr, groups)
    return {
        "imputer": score_row(mse, groups, psnr=psnr),
        "kriging": score_row(reference_mse, groups, psnr=reference_psnr),
        "gain": {"psnr": gain, "psnr_95": interval},
    }


def _hidden_mse(
    imputer: Filling, y: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor
) -> np.ndarray:
    """Mean squared error of each image over the pixels of all folds, (N,)."""
    squares, pixels = np.zeros(len(y)), np.zeros(len(y))
    for fold in hidden:
        x_hat = fill(y, mask & ~fold, model=imputer)
        fold = fold.to(y.device)
        squares += torch.where(fold, x_hat - y, 0).double().square().sum((1, 2, 3)).cpu().numpy()
        pixels += fold.expand_as(y).sum((1, 2, 3)).cpu().numpy()
    return squares / pixels


def _psnr(mse: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.maximum(mse, 1e-12))


def rank_agreement(
    models: Mapping[str, FillingMethod | Filling],
    x: torch.Tensor,
    mask: torch.Tensor,
    folds: int = 8,
    seed: int = 0,
) -> dict[str, object]:
    """Measure how well the label-free score ranks imputers whose true error is known.

    The clean images x (N,1,H,W) in [0,1] are corrupted here by the mask (1,1,H,W).

    Returns:
        "models": the mean "hidden_psnr", from observed pixels only, and the true "hole_psnr" of
        each, in dB; "spearman": the rank correlation of the two (NaN for fewer than two models).
    """
    y = torch.where(mask, x, 0)
    hidden = hidden_folds(mask, folds, seed)
    rows = {
        name: {
            "hidden_psnr": float(_psnr(_hidden_mse(imputer, y, mask, hidden)).mean()),
            "hole_psnr": float(hole_scores(fill(y, mask, model=imputer), x, mask)["psnr"].mean()),
        }
        for name, imputer in models.items()
    }
    columns = [[row[key] for row in rows.values()] for key in ("hidden_psnr", "hole_psnr")]
    return {"models": rows, "spearman": float(spearmanr(*columns).statistic)}
