"""`nogaps check`: is a submission valid? Check folders, score them, write the staff's table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from nbformat import NotebookNode

from nogaps.evaluation.scoring import read_truth
from nogaps.imputers.loading import load_imputer
from nogaps.masks import shared_mask
from nogaps.metrics import summarize
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, load_images, load_npy, sha256
from nogaps.runtime.progress import progress
from nogaps.submission.arrays import RESULT, check_array
from nogaps.submission.findings import ERROR, NOTE, Finding, Findings, printable
from nogaps.submission.notebook import NOTEBOOK, check_notebook, load_notebook, printed_sha256
from nogaps.submission.similarity import others

REFERENCES = "References.md"
DELIVERABLES = (NOTEBOOK, RESULT, REFERENCES)
LINK = re.compile(r"https?://\w|\bdoi\.org/|\b10\.\d{4,9}/\S")
INTEGRITY = "the course also asks for its signed integrity form, which no program can check"
UNSCORED = {"missing-file", "outside", "unreadable", "shape", "number", "finite", "range"}
SCORES = ("rmse", "psnr", "kriging_rmse", "kriging_psnr")


def check_submission(folder: str | Path, test_set: str | Path | None = None) -> list[Finding]:
    """Check what was handed in.

    Args:
        folder: Holds the notebook, the result and References.md.
        test_set: The corrupted images; else `folder/test_set.npy`.

    Returns:
        The errors and notes; a submission is valid if no finding has the level "error".

    Raises:
        BadInput: There is no such folder, or the test set cannot be used.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise BadInput("is not a folder", f"one with {', '.join(DELIVERABLES)}", path=folder)
    source = Path(test_set) if test_set else folder / "test_set.npy"
    y = _load_test_set(source)
    notebook = folder / (notebook_of(folder) or NOTEBOOK)
    references, result = folder / REFERENCES, folder / RESULT
    findings = _check_file(notebook) or check_notebook(notebook)
    findings += _check_file(result) or _check_array(y, result)
    checks = {finding.check for finding in findings}
    if not checks & {"missing-file", "outside", "unreadable", "shape", "number"}:
        whole = not checks & {"not-executed", "no-outputs"}
        findings += _check_origin(load_notebook(notebook).cells, whole, result, source)
    return findings + (_check_file(references) or _check_references(references))


def _load_test_set(source: Path) -> np.ndarray:
    """Load corrupted images (N,1,H,W) whose mask can be found."""
    if not os.path.isfile(source):
        raise BadInput("not found", "the test set (or name it by --test-set)", path=source)
    y = load_images(source)
    shared_mask(y, str(source))
    return y


def notebook_of(folder: Path) -> str | None:
    """Return the name of the notebook: Assessment.ipynb, else the only other one in the folder."""
    names = sorted(path.name for path in folder.glob("*.ipynb") if os.path.isfile(path))
    if NOTEBOOK in names:
        return NOTEBOOK
    return names[0] if len(names) == 1 and not (folder / NOTEBOOK).exists() else None


def _check_file(path: Path) -> list[Finding]:
    """Check that a file is there, and in the folder itself."""
    findings = Findings(path.name)
    if not os.path.isfile(path):
        problem = "not a regular file" if os.path.lexists(path) else "missing"
        fix, others = "hand it in", {other.name for other in path.parent.glob(f"*{path.suffix}")}
        if others := others - {*DELIVERABLES, "test_set.npy", "README.md"}:
            fix += f", or rename {printable(min(others))} if that is it"
        findings.add("missing-file", problem, f"{path.name} in the folder", fix)
    elif not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        findings.add("outside", f"a symbolic link to {os.path.realpath(path)}")
    return findings


def _check_array(y: np.ndarray, result: Path) -> list[Finding]:
    try:
        return check_array(y, load_npy(result, mmap=True))
    except BadInput as error:
        findings = Findings(result.name)
        fix = "write it again with np.save(..., allow_pickle=False) and copy the whole file"
        findings.add("unreadable", error.problem, "one array in .npy format", fix)
        return findings


def _check_references(path: Path) -> list[Finding]:
    """Check that References.md is text in UTF-8 that links a source."""
    findings = Findings(path.name)
    try:
        with open(path, encoding="utf-8-sig") as file:
            if not LINK.search(file.read(1_000_000)):
                findings.add("references", "no link to a source")
    except (OSError, ValueError) as error:
        findings.add("unreadable", str(error), "text in UTF-8", "save it as UTF-8")
    return findings


def _check_origin(
    cells: Sequence[NotebookNode], whole: bool, result: Path, source: Path
) -> list[Finding]:
    """Check by the hashes that the cells printed whether they filled `source` into `result`.

    whole: Whether the cells hold all their outputs, so that a hash may be expected.
    """
    findings = Findings(result.name)
    used, expected = printed_sha256(cells, "test_set.npy"), sha256(source)
    if used not in (None, expected):
        problem = f"the notebook filled a test set with sha256 {used[:16]}…"
        findings.add("other-test-set", problem, f"{printable(source.name)} with {expected[:16]}…")
    printed, digest = printed_sha256(cells, RESULT), sha256(result)
    if printed is None and whole:
        findings.add("no-hash", "the notebook does not print which file it wrote")
    elif printed not in (None, digest):
        problem = f"sha256 {digest[:16]}…, the notebook printed {printed[:16]}…"
        findings.add("stale", problem)
    return findings


def report(folders: Sequence[str | Path], test_set: str | Path | None = None) -> list[dict]:
    """Check folders; among several, one that cannot be checked does not stop the others.

    Args:
        folders: What was handed in.
        test_set: The corrupted images for all of them; else each folder's own.

    Returns:
        A row for each: {"dir", "valid", "findings": [dict, …]}; valid: no finding is an error.

    Raises:
        BadInput: The common test set, or the only folder, cannot be used.
    """
    if test_set and folders:
        _load_test_set(Path(test_set))
    rows = []
    for folder in progress(folders, "checking", delay=1):
        try:
            findings = check_submission(folder, test_set)
        except Exception as error:  # whatever a stranger's files provoke
            if len(folders) == 1 and isinstance(error, BadInput):
                raise
            kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
            findings = Findings(str(folder))
            findings.add("not-checked", f"{kind}{error}")
        valid = all(finding.level != ERROR for finding in findings)
        row = {"dir": str(folder), "valid": valid, "findings": [asdict(f) for f in findings]}
        rows.append(row)
    return rows


def verdict(row: dict) -> str:
    """Return the verdict of a row of `report`: "valid", "NOT VALID, 2 errors, 1 note"."""
    levels = [finding["level"] for finding in row["findings"]]
    counts = [(levels.count(level), level) for level in (ERROR, NOTE)]
    words = [f"{count} {level}{'s' * (count != 1)}" for count, level in counts if count]
    return ", ".join(["valid" if row["valid"] else "NOT VALID", *words])


def as_text(rows: Sequence[dict]) -> str:
    """Return the rows of `report` as text: a line for each folder, error, note and score."""
    lines = []
    for row in rows:
        lines.append(f"{row['dir']}: {verdict(row)}")
        findings = sorted(row["findings"], key=lambda finding: finding["level"])
        lines += [f"  {Finding(**finding)}" for finding in findings]
        lines += [f"  {name}: {value:.4f}" for name, value in row.get("scores", {}).items()]
    return "\n".join([*lines, INTEGRITY])


def score_folders(rows: list[dict], test_set: str | Path | None, truth: str | Path) -> None:
    """Add "scores" to rows of `report`: those of SCORES, or {} for an array that has none.

    An array is scored as it is: no value is clipped, and only axes of length 1 are put in place.

    Args:
        rows: What `report` returned; one that could not be checked stays as it is.
        test_set: For all of them; else each folder's own.
        truth: The complete images.

    Raises:
        BadInput: The truth or a test set cannot be used.
    """

    @cache
    def known(source: Path) -> tuple[torch.Tensor, torch.Tensor, dict]:
        x, y, mask = read_truth(truth, source)
        return x, mask, summarize(load_imputer(quality="fast").kriging(y, mask), x, mask)

    for row in rows:
        checks = {f["check"] for f in row["findings"] if f["file"] == RESULT}
        if any(finding["check"] == "not-checked" for finding in row["findings"]):
            continue
        x, mask, kriging = known(Path(test_set or Path(row["dir"]) / "test_set.npy"))
        row["scores"] = {}
        if not UNSCORED & checks:
            array = load_npy(Path(row["dir"]) / RESULT).reshape(x.shape)
            scores = summarize(torch.from_numpy(array.astype(np.float32)), x, mask)
            scores |= {f"kriging_{name}": value for name, value in kriging.items()}
            row["scores"] = {name: scores[name] for name in SCORES}


def write_csv(path: str | Path, rows: list[dict], alike: dict | None = None) -> None:
    """Write one line per submission: dir, valid, errors, notes, scores, what it is like.

    Args:
        path: The file to write.
        rows: What `report` returned, with or without scores.
        alike: What `compare_folders` returned; the last two columns name other submissions.
    """
    head = ["dir", "valid", "errors", "notes", *SCORES, "same_as", "nearly_same_as"]
    lines = [head]
    for row in rows:
        line = [row["dir"], str(row["valid"]).lower()]
        for level in (ERROR, NOTE):
            line.append(" ".join(f["check"] for f in row["findings"] if f["level"] == level))
        line += [f"{row['scores'][s]:.4f}" if row.get("scores") else "" for s in SCORES]
        like = [others(alike, row["dir"], same) if alike else [] for same in (True, False)]
        lines.append(line + ["; ".join(names) for names in like])
    options = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with atomic(path) as temporary, open(temporary, "w", **options) as file:
        csv.writer(file).writerows(lines)
