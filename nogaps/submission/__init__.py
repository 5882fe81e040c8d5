"""`nogaps check`: is a submission valid? Every finding says what, where and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nogaps.masks import shared_mask
from nogaps.runtime.files import BadInput, load_images, load_npy, sha256
from nogaps.runtime.progress import progress
from nogaps.submission.arrays import RESULT, check_array
from nogaps.submission.findings import Finding, Findings, printable
from nogaps.submission.notebook import NOTEBOOK, check_notebook, printed_sha256, read_cells
from nogaps.submission.notes import DELIVERABLES, INTEGRITY, notes
from nogaps.submission.references import REFERENCES, check_references

__all__ = [
    "Finding",
    "as_text",
    "check_array",
    "check_notebook",
    "check_submission",
    "notebook_of",
    "notes",
    "report",
]

LARGE = 1 << 28  # bytes beyond which an array is looked at without being loaded
TOO_LARGE = 1 << 30  # bytes beyond which no file is taken for a test set


def check_submission(folder: str | Path, test_set: str | Path | None = None) -> list[Finding]:
    """Findings about the deliverables in `folder`, [] if they are valid.

    test_set: the corrupted images, else `folder/test_set.npy`. Raises BadInput if neither can be
    read; whatever is wrong with a deliverable is a finding.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise BadInput(f"{folder}: is not a folder, expected one with {', '.join(DELIVERABLES)}")
    source = Path(test_set) if test_set else folder / "test_set.npy"
    y = _load_test_set(source)
    notebook = folder / (notebook_of(folder) or NOTEBOOK)
    told = _check_file(notebook) or check_notebook(notebook)
    references = folder / REFERENCES
    findings = told + (_check_file(references) or check_references(references))
    result = folder / RESULT
    missing = _check_file(result)
    if missing:
        return findings + missing
    faults = {finding.check for finding in told}
    cells = None if faults & {"missing-file", "outside", "unreadable"} else read_cells(notebook)
    return findings + _check_result(y, result, source, cells, "not-executed" not in faults)


def _load_test_set(source: Path) -> np.ndarray:
    """Corrupted images (N,1,H,W) whose mask can be found. Raises BadInput otherwise."""
    if not os.path.isfile(source):
        raise BadInput(f"{source}: not found, expected the test set (or name it by --test-set)")
    if (size := os.path.getsize(source)) > TOO_LARGE:
        raise BadInput(f"{source}: holds {size / 1e6:.0f} MB, expected a test set")
    y = load_images(source)
    shared_mask(y, str(source))
    return y


def notebook_of(folder: Path) -> str | None:
    """Name of the notebook: Assessment.ipynb, else the only other notebook in the folder."""
    others = sorted(path.name for path in folder.glob("*.ipynb") if os.path.isfile(path))
    if NOTEBOOK in others:
        return NOTEBOOK
    return others[0] if len(others) == 1 and not (folder / NOTEBOOK).exists() else None


def _check_file(path: Path) -> list[Finding]:
    """Is it there, and in the folder itself?"""
    findings = Findings(printable(path.name))
    if not os.path.isfile(path):
        found = "not a regular file" if os.path.lexists(path) else "missing"
        findings.add("missing-file", found, f"{path.name} in the folder", _mend_missing(path))
    elif not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        found = f"a symbolic link to {printable(os.path.realpath(path))}"
        mend = "put the file itself there: a clone or an archive would hold the link only"
        findings.add("outside", found, "a file in the folder", mend)
    return findings.all


def _mend_missing(path: Path) -> str:
    given = {*DELIVERABLES, "test_set.npy", "README.md"}
    others = sorted({other.name for other in path.parent.glob(f"*{path.suffix}")} - given)
    mend = "run the notebook from top to bottom" if path.name == RESULT else "hand it in"
    return mend + (f", or rename {printable(others[0])} if that is it" if others else "")


def _check_result(
    y: np.ndarray, result: Path, source: Path, cells: list[dict] | None, executed: bool
) -> list[Finding]:
    """Findings about the filled test set, and whether the notebook's cells wrote it.

    executed: the notebook holds all its outputs, and should have printed the file's sha256.
    """
    findings = Findings(result.name)
    try:
        size = os.path.getsize(result)
        x_hat = load_npy(result, mmap=size > LARGE)
        digest = None if size > max(LARGE, 2 * y.nbytes) else sha256(result)
    except (BadInput, OSError) as error:
        found = printable(str(error).removeprefix(f"{result}: ").split(", expected")[0], 160)
        mend = "write it again with np.save(..., allow_pickle=False) and copy the whole file"
        findings.add("unreadable", found, "one array in .npy format", mend)
        return findings.all
    faults = check_array(y, x_hat, result.name)
    if cells is not None:
        used = printed_sha256(cells, "test_set.npy")
        if faults and used and used != sha256(source):
            found = f"the notebook filled a test set with sha256 {used[:16]}…"
            mend = "check against that file (--test-set), or run the notebook on this one"
            expected = f"{printable(source.name)} with {sha256(source)[:16]}…"
            findings.add("other-test-set", found, expected, mend)
        printed = printed_sha256(cells, RESULT)
        if digest and (printed or executed):
            _check_stale(digest, printed, findings)
    return findings.all + faults


def _check_stale(digest: str, printed: str | None, findings: Findings) -> None:
    """Compare the array's sha256 with the one that the notebook printed."""
    if printed != digest:
        said = f"the notebook printed {printed[:16]}…" if printed else "the notebook prints none"
        mend = f"run the notebook again and hand in both; it prints '{RESULT} sha256: …'"
        found = f"sha256 {digest[:16]}…, {said}"
        findings.add("stale", found, "the file that the notebook wrote", mend)


def report(folders: Sequence[str | Path], test_set: str | Path | None = None) -> list[dict]:
    """One row per folder: {"dir", "valid", "findings": [dict, …], "notes": [str, …]}.

    test_set: for all of them, else each folder's own. Raises BadInput if it cannot be read, or if
    the only folder cannot be checked. Among several such a folder has the finding "not-checked",
    so that one does not stop the others.
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
        found = printable(f"{kind}{error}", 200)
        mend = "mend that and check again; an error of this program please report"
        unchecked = Findings(printable(str(folder)))
        unchecked.add("not-checked", found, "a submission that can be checked", mend)
        findings, remarks = unchecked.all, [INTEGRITY]
    faults = [asdict(finding) for finding in findings]
    return {"dir": str(folder), "valid": not faults, "findings": faults, "notes": remarks}


def as_text(rows: Sequence[dict]) -> str:
    """What `report` found, for people: a line per folder, finding, score and note.

    A note that all of several folders have is said once, at the end.
    """
    common = list[str]()
    if len(rows) > 1:
        common = [note for note in rows[0]["notes"] if all(note in row["notes"] for row in rows)]
    lines = []
    for row in rows:
        lines += [f"{row['dir']}: {'valid' if row['valid'] else 'NOT VALID'}"]
        lines += [
            f"  [{f['check']}] {f['file']}: {f['found']}; expected {f['expected']}. "
            f"To mend: {f['mend']}"
            for f in row["findings"]
        ]
        lines += [f"  {name}: {value:.4f}" for name, value in row.get("scores", {}).items()]
        lines += [f"  note: {note}" for note in row["notes"] if note not in common]
    return "\n".join(lines + [f"note, for all: {note}" for note in common])
