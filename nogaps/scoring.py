"""`nogaps score`: hole scores of a filled file beside the fillings that need no network."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from nogaps.Assessment import find_mask
from nogaps.files import BadInput, atomic, load_images
from nogaps.imputers.classical import biharmonic, kriging, linear
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import summarize
from nogaps.standin import kind_of, subjects

RESULT = "test_set_nogaps.npy"


def classical_rows(
    y: torch.Tensor, mask: torch.Tensor, covariance_from: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Linear, biharmonic and kriging fillings of y (N,1,H,W); mask (1,1,H,W).

    Kriging takes its covariance from clean images (N,1,H,W), else from the shipped imputer.
    """
    if covariance_from is None:
        krige = load_imputer(device=y.device).interpolation
    else:
        krige = kriging(covariance_from)
    return {
        "linear": linear()(y, mask),
        "biharmonic": biharmonic(y, mask),
        "kriging": krige(y, mask),
    }


def score_files(output: str | Path, truth: str | Path, mask_from: str | Path) -> dict[str, dict]:
    """Scores of `output` and of the classical fillings of `mask_from`, against `truth`.

    All three are .npy files of one shape (N,1,H,W) in [0,1]. Raises BadInput otherwise.
    """
    paths = (output, truth, mask_from)
    x_hat, x, y = (torch.from_numpy(load_images(path)) for path in paths)
    for path, images in ((output, x_hat), (truth, x)):
        if images.shape != y.shape:
            shapes = f"shape {tuple(images.shape)}, {mask_from} has {tuple(y.shape)}"
            raise BadInput(f"{path}: {shapes}")
    try:
        mask = find_mask(y)
    except ValueError as error:
        raise BadInput(f"{mask_from}: {error}") from error
    fillings = classical_rows(y, mask) | {str(Path(output).name): x_hat}
    groups = subjects() if kind_of(mask_from) == "stand-in" else None
    return {name: summarize(filled, x, mask, groups) for name, filled in fillings.items()}


def score_folder(folder: str | Path, test_set: str | Path | None, truth: str | Path) -> dict:
    """Hole scores of a submission beside kriging's: rmse, psnr, kriging_rmse, kriging_psnr.

    Empty if its array cannot be scored; `check` says why. Raises BadInput if test_set (else the
    folder's own) or truth cannot be used.
    """
    test_set = test_set or Path(folder) / "test_set.npy"
    rows = {"kriging": score_files(truth, truth, test_set)["kriging"]}
    try:
        rows[""] = score_files(Path(folder) / RESULT, truth, test_set)[RESULT]
    except BadInput:
        return {}
    names = {"": "", "kriging": "kriging_"}
    return {f"{names[k]}{s}": rows[k][s] for k in ("", "kriging") for s in ("rmse", "psnr")}


def write_csv(path: str | Path, rows: list[dict]) -> None:
    """One line per submission: dir, valid, findings (their names), then its scores."""
    scores = ["rmse", "psnr", "kriging_rmse", "kriging_psnr"]
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
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
