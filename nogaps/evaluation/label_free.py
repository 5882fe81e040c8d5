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

from nogaps.filling.files import Filling, fill
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import bootstrap, hole_scores

ROWS = 8  # length of a segment: what lies above and below a hidden line stays as it is
CONNECTED = np.ones((3, 3))  # slanted lines hang together by corners


def line_segments(mask: np.ndarray, side: int) -> np.ndarray:
    """Lines of observed pixels beside the holes of `mask` (H,W) bool, numbered from 1; 0 elsewhere.

    side: +1 for pixels right of (or below) a hole, -1 for those left of (or above) it, across the
    direction in which the mask changes more often.
    """
    axis = int((mask[:, 1:] != mask[:, :-1]).sum() >= (mask[1:] != mask[:-1]).sum())
    rows = np.moveaxis(mask, axis, 1)  # holes and observed pixels now alternate along axis 1
    beside = np.ones_like(rows)  # nothing is hidden at the border
    if side > 0:
        beside[:, 1:] = rows[:, :-1]
    else:
        beside[:, :-1] = rows[:, 1:]
    lines = rows & ~beside
    band = np.arange(len(rows))[:, None] // ROWS
    found, count = np.zeros(rows.shape, int), 0
    for k in range(band.max() + 1):
        labels, n = ndimage.label(lines & (band == k), CONNECTED)
        found[labels > 0] = labels[labels > 0] + count
        count += n
    return np.moveaxis(found, 1, axis)


def hidden_folds(mask: torch.Tensor, folds: int = 8, seed: int = 0) -> torch.Tensor:
    """Observed pixels to hide in each fold, (folds,M,1,H,W) bool for masks (M,1,H,W).

    Even folds take lines on one side of the holes, odd ones on the other, segment by segment at
    random. Raises ValueError for an odd number of folds, or below 2.
    """
    if folds < 2 or folds % 2:
        raise ValueError(f"{folds} folds: expected an even number, at least 2")
    rng = np.random.default_rng(seed)
    hidden = np.zeros((folds, *mask.shape), bool)
    for k, one in enumerate(mask[:, 0].cpu().numpy()):
        for odd, side in enumerate((1, -1)):
            segments = line_segments(one, side)
            n = segments.max()
            # the first entry is for pixels of no segment; every fold gets as many, to within one
            part = np.concatenate([[-1], rng.permutation(n) % (folds // 2)])
            for fold in range(folds // 2):
                hidden[2 * fold + odd, k, 0] = part[segments] == fold
    return torch.from_numpy(hidden).to(mask.device)


def hidden_mse(
    imputer: Filling, y: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor
) -> np.ndarray:
    """Mean squared error of each image over the pixels of all folds, (N,) float64.

    y: (N,1,H,W) in [0,1]; mask: bool (1,1,H,W) or (N,1,H,W); hidden: (F,1,1,H,W) or (F,N,1,H,W),
    observed pixels to hide. NaN for an image that no fold hides pixels of.
    """
    squares, pixels = np.zeros(len(y)), np.zeros(len(y))
    for more in hidden:
        x_hat = fill(y, mask & ~more, imputer)
        more = more.to(y.device)
        wrong = torch.where(more, x_hat - y, 0).double().square()
        squares += wrong.sum((1, 2, 3)).cpu().numpy()
        pixels += more.expand_as(y).sum((1, 2, 3)).cpu().numpy()
    return np.divide(squares, pixels, out=np.full(len(y), np.nan), where=pixels > 0)


def _row(mse: np.ndarray, groups: Sequence[str] | None) -> dict[str, float | list[float]]:
    mean, low, high = bootstrap(mse, groups)
    psnr = bootstrap(-10 * np.log10(np.maximum(mse, 1e-12)), groups)
    rmse = {"rmse": mean**0.5, "rmse_95": [low**0.5, high**0.5]}
    return rmse | {"psnr": psnr[0], "psnr_95": list(psnr[1:])}


def hidden_score(
    imputer: Filling,
    y: torch.Tensor,
    mask: torch.Tensor,
    folds: int = 8,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    kriging: Filling | None = None,
) -> dict[str, dict[str, float | list[float]]]:
    """Scores of an imputer and of kriging over the same hidden pixels of y: no label is needed.

    y: (N,1,H,W) in [0,1]; mask: bool (1,1,H,W) or (N,1,H,W), True = observed. kriging: else that of
    the shipped imputer. Returns {"imputer": row, "kriging": row, "gain": {...}}; a row has the
    pooled "rmse" and the mean "psnr" in dB with 95 % intervals over groups (else images), and
    "gain" the mean difference of PSNR and its interval. Raises ValueError if nothing can be hidden.
    """
    hidden = hidden_folds(mask, folds, seed)
    reference = kriging or load_imputer(quality="fast").interpolation
    mse = [hidden_mse(each, y, mask, hidden) for each in (imputer, reference)]
    if np.isnan(mse[0]).any():
        raise ValueError("no observed pixel lies beside a hole: nothing can be hidden")
    gain, low, high = bootstrap(gain_db(*mse), groups)
    ours, kriged = (_row(values, groups) for values in mse)
    return {
        "imputer": ours,
        "kriging": kriged,
        "gain": {"psnr": gain, "psnr_95": [low, high]},
    }


def gain_db(mse: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """By how many dB of PSNR `mse` (N,) is better than the reference's, per image."""
    return 10 * np.log10(np.maximum(reference, 1e-12) / np.maximum(mse, 1e-12))


def rank_agreement(
    models: Mapping[str, Filling],
    x: torch.Tensor,
    mask: torch.Tensor,
    folds: int = 8,
    seed: int = 0,
) -> dict[str, object]:
    """How well the label-free score ranks imputers whose true error is known.

    x: clean images (N,1,H,W) in [0,1], corrupted here by mask (1,1,H,W). Returns "models": for each
    the mean "hidden_psnr", from observed pixels only, and the true "hole_psnr", both in dB, and
    "spearman", the rank correlation of the two (NaN for fewer than two models).
    """
    y = torch.where(mask, x, 0)
    hidden = hidden_folds(mask, folds, seed)
    rows = {}
    for name, imputer in models.items():
        mse = hidden_mse(imputer, y, mask, hidden)
        rows[name] = {
            "hidden_psnr": _row(mse, None)["psnr"],
            "hole_psnr": float(hole_scores(fill(y, mask, imputer), x, mask)["psnr"].mean()),
        }
    columns = [[row[key] for row in rows.values()] for key in ("hidden_psnr", "hole_psnr")]
    return {"models": rows, "spearman": float(spearmanr(*columns).statistic)}
