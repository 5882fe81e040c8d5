"""`nogaps score`: hole scores of a filled file beside the fillings that need no network."""

from __future__ import annotations

from pathlib import Path

import torch

from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, linear
from nogaps.masks import shared_mask
from nogaps.metrics import summarize
from nogaps.runtime.files import BadInput, load_images
from nogaps.standin import kind_of, subjects

LEAST = 6  # rows and columns: the window of the SSIM is mirrored at the borders


def read_truth(
    truth: str | Path, mask_from: str | Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean and corrupted images (N,1,H,W) and the mask (1,1,H,W) of two .npy files.

    Raises BadInput if they cannot be used, or differ in shape.
    """
    array = load_images(mask_from)
    y = torch.from_numpy(array)
    if min(y.shape[2:]) < LEAST:
        found = "×".join(map(str, y.shape[2:]))
        raise BadInput(f"{mask_from}: is {found}, expected at least {LEAST}×{LEAST} for SSIM")
    mask = torch.from_numpy(shared_mask(array, str(mask_from)))[None, None]
    return read_like(truth, y, mask_from), y, mask


def read_like(path: str | Path, y: torch.Tensor, mask_from: str | Path) -> torch.Tensor:
    """Images of the shape of y, which came from `mask_from`. Raises BadInput otherwise."""
    images = torch.from_numpy(load_images(path))
    if images.shape != y.shape:
        found = f"has shape {tuple(images.shape)}"
        raise BadInput(f"{path}: {found}, expected {tuple(y.shape)} as {mask_from} has")
    return images


def groups_of(test_set: str | Path) -> list[str] | None:
    """Subject of each image, where it is known: that of the stand-in."""
    return subjects().tolist() if kind_of(test_set) == "stand-in" else None


def score_files(output: str | Path, truth: str | Path, mask_from: str | Path) -> dict[str, dict]:
    """Scores of `output` and of the classical fillings of `mask_from`, against `truth`.

    All three are .npy files of one shape (N,1,H,W) in [0,1]; kriging takes its covariance from the
    shipped imputer. Raises BadInput otherwise.
    """
    x, y, mask = read_truth(truth, mask_from)
    x_hat = read_like(output, y, mask_from)
    fillings = {
        "linear": linear()(y, mask),
        "biharmonic": biharmonic(y, mask),
        "kriging": load_imputer(quality="fast").interpolation(y, mask),
    }
    name = Path(output).name
    fillings[f"./{name}" if name in fillings else name] = x_hat
    groups = groups_of(mask_from)
    return {name: summarize(filled, x, mask, groups) for name, filled in fillings.items()}


def as_table(rows: dict[str, dict]) -> str:
    """Scores as aligned text, one line per filling, 95 % intervals in brackets."""
    lines = [f"{'filling':20} {'hole RMSE':>24} {'PSNR / dB':>22} {'SSIM':>21}"]
    for name, row in rows.items():
        (a, b), (c, d), (e, f) = row["rmse_95"], row["psnr_95"], row["ssim_95"]
        line = f"{name:20} {row['rmse']:7.4f} [{a:.4f}, {b:.4f}] {row['psnr']:7.2f}"
        lines.append(line + f" [{c:.2f}, {d:.2f}] {row['ssim']:6.3f} [{e:.3f}, {f:.3f}]")
    return "\n".join(lines)
