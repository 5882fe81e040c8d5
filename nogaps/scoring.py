"""`nogaps score`: hole scores of a filled file beside the fillings that need no network."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from nogaps.files import BadInput, atomic, load_images
from nogaps.imputers.classical import biharmonic, linear
from nogaps.imputers.loading import load_imputer
from nogaps.masks import shared_mask
from nogaps.metrics import summarize
from nogaps.standin import kind_of, subjects
from nogaps.submission.arrays import RESULT

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
        shapes = f"shape {tuple(images.shape)}, {mask_from} has {tuple(y.shape)}"
        raise BadInput(f"{path}: {shapes}")
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


def score_folder(folder: str | Path, test_set: str | Path | None, truth: str | Path) -> dict:
    """Hole scores of a submission beside kriging's: rmse, psnr, kriging_rmse, kriging_psnr.

    Empty if its array cannot be scored; `check` says why. Raises BadInput if test_set (else the
    folder's own) or truth cannot be used.
    """
    test_set = test_set or Path(folder) / "test_set.npy"
    x, y, mask = read_truth(truth, test_set)
    try:
        x_hat = read_like(Path(folder) / RESULT, y, test_set)
    except BadInput:
        return {}
    fillings = {"": x_hat, "kriging_": load_imputer(quality="fast").interpolation(y, mask)}
    rows = {name: summarize(filled, x, mask) for name, filled in fillings.items()}
    return {f"{name}{s}": row[s] for name, row in rows.items() for s in ("rmse", "psnr")}


def write_csv(path: str | Path, rows: list[dict]) -> None:
    """One line per submission: dir, valid, findings (their names), then its scores."""
    scores = ["rmse", "psnr", "kriging_rmse", "kriging_psnr"]
    with (
        atomic(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["dir", "valid", "findings", *scores])
        for row in rows:
            names = " ".join(finding["check"] for finding in row["findings"])
            found = [f"{row['scores'][s]:.4f}" if row.get("scores") else "" for s in scores]
            writer.writerow([row["dir"], str(row["valid"]).lower(), names, *found])


def as_table(rows: dict[str, dict]) -> str:
    """Scores as aligned text, one line per filling, 95 % intervals in brackets."""
    lines = [f"{'filling':20} {'hole RMSE':>24} {'PSNR / dB':>22} {'SSIM':>21}"]
    for name, row in rows.items():
        (a, b), (c, d), (e, f) = row["rmse_95"], row["psnr_95"], row["ssim_95"]
        line = f"{name:20} {row['rmse']:7.4f} [{a:.4f}, {b:.4f}] {row['psnr']:7.2f}"
        lines.append(line + f" [{c:.2f}, {d:.2f}] {row['ssim']:6.3f} [{e:.3f}, {f:.3f}]")
    return "\n".join(lines)
