"""`nogaps score`: hole scores of a filled file beside the fillings that need no network."""

from __future__ import annotations

from pathlib import Path

import torch

from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, linear
from nogaps.masks import shared_mask
from nogaps.metrics import summarize
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images
from nogaps.standin import kind_of, subjects

PIXELS, ROWS = 512, 1024  # that are compared, of an image; images at a time
LEAST = 6  # rows and columns: the window of the SSIM is mirrored at the borders


def read_truth(
    truth: str | Path, mask_from: str | Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read clean images x and corrupted images y (N,1,H,W), and find the mask (1,1,H,W).

    Args:
        truth: .npy file of x.
        mask_from: .npy file of y.

    Raises:
        BadInput: A file cannot be used, or they differ in shape or order.
    """
    array = load_images(mask_from)
    y = torch.from_numpy(array)
    if min(y.shape[2:]) < LEAST:
        size = "×".join(map(str, y.shape[2:]))
        problem = f"holds images of {size} pixels"
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

    Args:
        output: .npy file of filled images (N,1,H,W) in [0,1].
        truth: .npy file of clean images.
        mask_from: .npy file of corrupted images, in which the mask is found.

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
