"""What a filling is worth: beside the truth, as `nogaps score` has it, and without labels.

Without labels, further observed pixels of the test set itself are hidden, filled and compared. The
stripes of the mask, shifted by one pixel across themselves, cut a line of observed pixels off every
run. These lines, in segments of eight rows, are dealt to folds; each fold's pixels are hidden in
turn and predicted from what is left. Gaps grow from two pixels to three where pixels are hidden, so
that scores are lower than in the true holes: they rank imputers, and stand beside kriging's on the
same pixels (compare zero-shot SSDU, arXiv 2102.07737, which holds out measured samples alike). An
imputer that was trained on these very pixels is flattered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import spearmanr

from nogaps.api import fill
from nogaps.filling import Filling, FillingMethod
from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, linear
from nogaps.masks import shared_mask
from nogaps.metrics import bootstrap, hole_scores, score_row, summarize
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images
from nogaps.standin import kind_of, subjects

PIXELS, ROWS = 512, 1024  # that are compared, of an image; images at a time
SEGMENT = 8  # rows of a hidden line: what lies above and below it stays as it is
CONNECTED = np.ones((3, 3))  # slanted lines are connected by corners
LEAST = 6  # rows and columns: the window of the SSIM is mirrored at the borders


def read_truth(
    truth: str | Path, mask_from: str | Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read clean images x and corrupted images y, both (N,1,H,W), and find the mask (1,1,H,W).

    Raises:
        BadInput: A file cannot be used, or they differ in shape or order.
    """
    array = load_images(mask_from)
    y = torch.from_numpy(array)
    if min(y.shape[2:]) < LEAST:
        problem = "holds images of {}×{} pixels".format(*y.shape[2:])
        raise BadInput(problem, f"at least {LEAST}×{LEAST} for SSIM", path=mask_from)
    mask = torch.from_numpy(shared_mask(array, str(mask_from)))[None, None]
    return _read_like(truth, y, mask, mask_from), y, mask


def _read_like(
    path: str | Path, y: torch.Tensor, mask: torch.Tensor, mask_from: str | Path
) -> torch.Tensor:
    """Read images of the shape and the order of y (N,1,H,W), which came from `mask_from`.

    Raises:
        BadInput: The observed pixels of an image are those of another one, or turned.
    """
    x = torch.from_numpy(load_images(path))
    if x.shape != y.shape:
        expected = f"{tuple(y.shape)} as {mask_from} has"
        raise BadInput(f"has shape {tuple(x.shape)}", expected, path=path)

    def observed(images: torch.Tensor) -> torch.Tensor:
        values = images[:, 0][:, mask[0, 0]]
        return values[:, :: -(-values.shape[1] // PIXELS)].contiguous()

    known = observed(y)
    for start in range(0, len(x), ROWS):
        exact = "donot_use_mm_for_euclid_dist"
        apart = torch.cdist(observed(x[start : start + ROWS]), known, compute_mode=exact)
        own = apart.diagonal(start).clone()
        nearest, other = apart.min(1)
        if (wrong := nearest < own / 2).any():
            k = int(wrong.nonzero()[0])
            problem = f"image {start + k} is image {int(other[k])} of {mask_from}"
            raise BadInput(problem, "the same order", path=path)
        if x.shape[2] == x.shape[3]:
            turned = observed(x[start : start + ROWS].mT) - known[start : start + ROWS]
            if turned.norm(dim=1).mean() < own.mean() / 2:
                raise BadInput(f"is {mask_from} transposed", "the same axes", path=path)
    return x


def score_files(output: str | Path, truth: str | Path, mask_from: str | Path) -> dict[str, dict]:
    """Score `output` and the classical fillings of `mask_from` against `truth`.

    All are .npy files of images (N,1,H,W) in [0,1]; the mask is found in the corrupted ones.

    Returns:
        `summarize` of each filling by name; kriging has the covariance of the shipped imputer.

    Raises:
        BadInput: A file cannot be used, or they differ in shape or order.
    """
    x, y, mask = read_truth(truth, mask_from)
    x_hat = _read_like(output, y, mask, mask_from)
    fillings = {
        "linear": linear()(y, mask),
        "biharmonic": biharmonic(y, mask),
        "kriging": load_imputer(quality="fast").kriging(y, mask),
    }
    name = Path(output).name  # a file may be named like a method
    fillings[f"./{name}" if name in fillings else name] = x_hat
    groups = subjects().tolist() if kind_of(mask_from) == "stand-in" else None
    return {name: summarize(filled, x, mask, groups) for name, filled in fillings.items()}


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
    for top in range(0, len(rows), SEGMENT):
        labels, _ = ndimage.label(lines[top : top + SEGMENT], CONNECTED)
        segments[top : top + SEGMENT] = np.where(labels, labels + segments.max(), 0)
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
