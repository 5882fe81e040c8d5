"""Check the folders that were handed in, one or many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from nbformat import NotebookNode

from nogaps.masks import shared_mask
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_npy, sha256
from nogaps.runtime.progress import progress
from nogaps.submission.arrays import RESULT, check_array
from nogaps.submission.findings import ERROR, NOTE, Finding, Findings, printable
from nogaps.submission.notebook import NOTEBOOK, check_notebook, load_notebook, printed_sha256
from nogaps.submission.references import REFERENCES, check_references

DELIVERABLES = (NOTEBOOK, RESULT, REFERENCES)
INTEGRITY = "the course also asks for its signed integrity form, which no program can check"


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
    return findings + (_check_file(references) or check_references(references))


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
        return check_array(y, load_npy(result, mmap=True), result.name)
    except BadInput as error:
        findings = Findings(result.name)
        fix = "write it again with np.save(..., allow_pickle=False) and copy the whole file"
        findings.add("unreadable", error.problem, "one array in .npy format", fix)
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
    work = progress(folders, "checking", delay=1)
    return [_row(folder, test_set, alone=len(folders) == 1) for folder in work]


def _row(folder: str | Path, test_set: str | Path | None, alone: bool) -> dict:
    try:
        findings = check_submission(folder, test_set)
    except Exception as error:  # whatever a stranger's files provoke
        if alone and isinstance(error, BadInput):
            raise
        kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
        findings = Findings(str(folder))
        findings.add("not-checked", f"{kind}{error}")
    valid = all(finding.level != ERROR for finding in findings)
    return {"dir": str(folder), "valid": valid, "findings": [asdict(f) for f in findings]}


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
