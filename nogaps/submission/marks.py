"""The staff's table: hole scores of every submission, and the submissions that resemble it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from nogaps.evaluation.scoring import read_truth
from nogaps.imputers.loading import load_imputer
from nogaps.metrics import summarize
from nogaps.runtime.files import atomic, load_npy, sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.findings import ERROR, NOTE
from nogaps.submission.similarity import others

UNSCORED = {"missing-file", "outside", "unreadable", "shape", "number", "finite", "range"}


def score_folders(rows: list[dict], test_set: str | Path | None, truth: str | Path) -> None:
    """Add "scores" to rows of `submission.report`: rmse, psnr, kriging_rmse, kriging_psnr.

    An array that cannot be scored gets {}, a row that could not be checked nothing. It is scored as
    it is: no value is clipped, and only axes of length 1 are put in place.

    Args:
        rows: What `submission.report` returned.
        test_set: For all of them; else each folder's own.
        truth: The complete images.

    Raises:
        BadInput: The truth or a test set cannot be used.
    """
    known: dict[str, tuple] = {}
    for row in rows:
        if any(finding["check"] == "not-checked" for finding in row["findings"]):
            continue
        source = test_set or Path(row["dir"]) / "test_set.npy"
        if (digest := sha256(source)) not in known:
            x, y, mask = read_truth(truth, source)
            kriging = load_imputer(quality="fast").kriging(y, mask)
            known[digest] = (x, y, mask, _brief(kriging, x, mask, "kriging_"))
        x, y, mask, beside = known[digest]
        row["scores"] = {}
        if not UNSCORED & {f["check"] for f in row["findings"] if f["file"] == RESULT}:
            array = load_npy(Path(row["dir"]) / RESULT).reshape(y.shape)
            x_hat = torch.from_numpy(array.astype(np.float32))
            row["scores"] = _brief(x_hat, x, mask) | beside


def _brief(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, start: str = "") -> dict:
    scores = summarize(x_hat, x, mask)
    return {f"{start}{score}": scores[score] for score in ("rmse", "psnr")}


def write_csv(path: str | Path, rows: list[dict], alike: dict | None = None) -> None:
    """Write one line per submission: dir, valid, errors, notes, scores, what it is like.

    Args:
        path: The file to write.
        rows: What `submission.report` returned, with or without scores.
        alike: What `compare_folders` returned; the last two columns name other submissions.
    """
    scores = ["rmse", "psnr", "kriging_rmse", "kriging_psnr"]
    with (
        atomic(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["dir", "valid", "errors", "notes", *scores, "same_as", "nearly_same_as"])
        for row in rows:
            names = [
                " ".join(f["check"] for f in row["findings"] if f["level"] == level)
                for level in (ERROR, NOTE)
            ]
            values = [f"{row['scores'][s]:.4f}" if row.get("scores") else "" for s in scores]
            like = [others(alike, row["dir"], same) if alike else [] for same in (True, False)]
            first = [row["dir"], str(row["valid"]).lower(), *names]
            writer.writerow([*first, *values, *map("; ".join, like)])
