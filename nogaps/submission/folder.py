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
from nogaps.submission.findings import Finding, Findings, printable
from nogaps.submission.notebook import NOTEBOOK, check_notebook, load_notebook, printed_sha256
from nogaps.submission.notes import DELIVERABLES, INTEGRITY, notes
from nogaps.submission.references import REFERENCES, check_references

LARGE = 1 << 28  # bytes beyond which an array is checked without being loaded
TOO_LARGE = 1 << 30  # bytes beyond which no file is taken for a test set


def check_submission(folder: str | Path, test_set: str | Path | None = None) -> list[Finding]:
    """Check what was handed in.

    Args:
        folder: Holds the notebook, the result and References.md.
        test_set: The corrupted images; else `folder/test_set.npy`.

    Returns:
        The findings, [] for a valid submission.

    Raises:
        BadInput: There is no such folder, or the test set cannot be used.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise BadInput("is not a folder", f"one with {', '.join(DELIVERABLES)}", path=folder)
    source = Path(test_set) if test_set else folder / "test_set.npy"
    y = _load_test_set(source)
    notebook = folder / (notebook_of(folder) or NOTEBOOK)
    findings = _check_file(notebook) or check_notebook(notebook)
    faults = {finding.check for finding in findings}
    references, result = folder / REFERENCES, folder / RESULT
    findings += _check_file(references) or check_references(references)
    if missing := _check_file(result):
        return [*findings, *missing]
    readable = not faults & {"missing-file", "outside", "unreadable"}
    cells = load_notebook(notebook).cells if readable else None
    return [*findings, *_check_result(y, result, source, cells, "not-executed" not in faults)]


def _load_test_set(source: Path) -> np.ndarray:
    """Load corrupted images (N,1,H,W) whose mask can be found."""
    if not os.path.isfile(source):
        raise BadInput("not found", "the test set (or name it by --test-set)", path=source)
    if (size := os.path.getsize(source)) > TOO_LARGE:
        raise BadInput(f"has {size / 1e6:.0f} MB", "a test set", path=source)
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
    findings = Findings(printable(path.name))
    if not os.path.isfile(path):
        problem = "not a regular file" if os.path.lexists(path) else "missing"
        findings.add("missing-file", problem, f"{path.name} in the folder", _fix_missing(path))
    elif not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        problem = f"a symbolic link to {printable(os.path.realpath(path))}"
        fix = "put the file itself there: a clone or an archive would hold the link only"
        findings.add("outside", problem, "a file in the folder", fix)
    return findings


def _fix_missing(path: Path) -> str:
    given = {*DELIVERABLES, "test_set.npy", "README.md"}
    others = sorted({other.name for other in path.parent.glob(f"*{path.suffix}")} - given)
    fix = "run the notebook from top to bottom" if path.name == RESULT else "hand it in"
    return fix + (f", or rename {printable(others[0])} if that is it" if others else "")


def _check_result(
    y: np.ndarray,
    result: Path,
    source: Path,
    cells: Sequence[NotebookNode] | None,
    executed: bool,
) -> list[Finding]:
    """Check the filled test set, and whether the notebook's cells wrote it.

    executed: The notebook holds all its outputs, and should have printed the file's sha256.
    """
    findings = Findings(result.name)
    try:
        size = os.path.getsize(result)
        x_hat = load_npy(result, mmap=size > LARGE)
        digest = None if size > max(LARGE, 2 * y.nbytes) else sha256(result)
    except (BadInput, OSError) as error:
        problem = error.problem if isinstance(error, BadInput) else str(error.strerror)
        fix = "write it again with np.save(..., allow_pickle=False) and copy the whole file"
        findings.add("unreadable", printable(problem, 160), "one array in .npy format", fix)
        return findings
    faults = check_array(y, x_hat, result.name)
    if cells is not None:
        used = printed_sha256(cells, "test_set.npy")
        if faults and used and used != sha256(source):
            expected = f"{printable(source.name)} with {sha256(source)[:16]}…"
            fix = "check against that file (--test-set), or run the notebook on this one"
            problem = f"the notebook filled a test set with sha256 {used[:16]}…"
            findings.add("other-test-set", problem, expected, fix)
        printed = printed_sha256(cells, RESULT)
        if digest and printed != digest and (printed or executed):
            says = (
                f"the notebook printed {printed[:16]}…" if printed else "the notebook prints none"
            )
            fix = f"run the notebook again and hand in both; it prints '{RESULT} sha256: …'"
            problem = f"sha256 {digest[:16]}…, {says}"
            findings.add("stale", problem, "the file that the notebook wrote", fix)
    return [*findings, *faults]


def report(folders: Sequence[str | Path], test_set: str | Path | None = None) -> list[dict]:
    """Check folders; among several, one that cannot be checked does not stop the others.

    Args:
        folders: What was handed in.
        test_set: The corrupted images for all of them; else each folder's own.

    Returns:
        A row for each: {"dir", "valid", "findings": [dict, …], "notes": [str, …]}.

    Raises:
        BadInput: The common test set, or the only folder, cannot be used.
    """
    if test_set and folders:
        _load_test_set(Path(test_set))
    work = progress(folders, "checking", delay=1)
    return [_row(folder, test_set, alone=len(folders) == 1) for folder in work]


def _row(folder: str | Path, test_set: str | Path | None, alone: bool) -> dict:
    try:
        findings, remarks = check_submission(folder, test_set), notes(folder, test_set)
    except Exception as error:  # whatever a stranger's files provoke
        if alone and isinstance(error, BadInput):
            raise
        kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
        fix = "correct that and check again; please report an error of this program"
        unchecked = Findings(printable(str(folder)))
        problem = printable(f"{kind}{error}", 200)
        unchecked.add("not-checked", problem, "a submission that can be checked", fix)
        findings, remarks = unchecked, [INTEGRITY]
    faults = [asdict(finding) for finding in findings]
    return {"dir": str(folder), "valid": not faults, "findings": faults, "notes": remarks}


def as_text(rows: Sequence[dict]) -> str:
    """Return the rows of `report` as text: a line for each folder, finding, score and note.

    A note that all of several folders have stands once, at the end.
    """
    common = list[str]()
    if len(rows) > 1:
        common = [note for note in rows[0]["notes"] if all(note in row["notes"] for row in rows)]
    lines = []
    for row in rows:
        lines.append(f"{row['dir']}: {'valid' if row['valid'] else 'NOT VALID'}")
        lines += [f"  {Finding(**finding)}" for finding in row["findings"]]
        lines += [f"  {name}: {value:.4f}" for name, value in row.get("scores", {}).items()]
        lines += [f"  note: {note}" for note in row["notes"] if note not in common]
    return "\n".join(lines + [f"note, for all: {note}" for note in common])
