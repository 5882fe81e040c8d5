"""`nogaps score`: hole scores of a filled file beside the fillings that need no network."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from nogaps.files import BadInput, atomic, load_images, sha256
from nogaps.imputers.classical import biharmonic, linear
from nogaps.imputers.loading import load_imputer
from nogaps.masks import shared_mask
from nogaps.metrics import summarize
from nogaps.standin import kind_of, subjects
from nogaps.submission.alike import others
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


def score_folders(rows: list[dict], test_set: str | Path | None, truth: str | Path) -> None:
    """Add "scores" to rows of `submission.report`, {} where the array cannot be scored.

    Hole scores beside kriging's: rmse, psnr, kriging_rmse, kriging_psnr. Rows that could not be
    checked are left out. Raises BadInput if truth or a test set (else each folder's own) cannot be
    used.
    """
    known: dict[str, tuple] = {}
    for row in rows:
        if any(finding["check"] == "not-checked" for finding in row["findings"]):
            continue
        source = test_set or Path(row["dir"]) / "test_set.npy"
        if (digest := sha256(source)) not in known:
            x, y, mask = read_truth(truth, source)
            kriging = load_imputer(quality="fast").interpolation(y, mask)
            known[digest] = (x, y, mask, _brief(kriging, x, mask, "kriging_"))
        x, y, mask, beside = known[digest]
        try:
            x_hat = read_like(Path(row["dir"]) / RESULT, y, source)
        except BadInput:
            row["scores"] = {}
        else:
            row["scores"] = _brief(x_hat, x, mask) | beside


def _brief(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, start: str = "") -> dict:
    found = summarize(x_hat, x, mask)
    return {f"{start}{score}": found[score] for score in ("rmse", "psnr")}


def write_csv(path: str | Path, rows: list[dict], alike: dict | None = None) -> None:
    """One line per submission: dir, valid, findings (their names), its scores, what it is like.

    alike: from `compare_folders`; the last two columns name others, with "; " between them.
    """
    scores = ["rmse", "psnr", "kriging_rmse", "kriging_psnr"]
    with (
        atomic(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["dir", "valid", "findings", *scores, "same_as", "nearly_same_as"])
        for row in rows:
            names = " ".join(finding["check"] for finding in row["findings"])
            found = [f"{row['scores'][s]:.4f}" if row.get("scores") else "" for s in scores]
            like = [others(alike, row["dir"], same) if alike else [] for same in (True, False)]
            first = [row["dir"], str(row["valid"]).lower(), names]
            writer.writerow([*first, *found, *map("; ".join, like)])


def as_table(rows: dict[str, dict]) -> str:
    """Scores as aligned text, one line per filling, 95 % intervals in brackets."""
    lines = [f"{'filling':20} {'hole RMSE':>24} {'PSNR / dB':>22} {'SSIM':>21}"]
    for name, row in rows.items():
        (a, b), (c, d), (e, f) = row["rmse_95"], row["psnr_95"], row["ssim_95"]
        line = f"{name:20} {row['rmse']:7.4f} [{a:.4f}, {b:.4f}] {row['psnr']:7.2f}"
        lines.append(line + f" [{c:.2f}, {d:.2f}] {row['ssim']:6.3f} [{e:.3f}, {f:.3f}]")
    return "\n".join(lines)
