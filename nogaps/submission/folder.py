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

LARGE = 1 << 28  # bytes of a file whose hash takes long


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
    references, result = folder / REFERENCES, folder / RESULT
    findings = _check_file(notebook) or check_notebook(notebook)
    checks = {finding.check for finding in findings}
    findings += _check_file(references) or check_references(references)
    faults = _check_file(result) or _check_array(y, result)
    unread = {"missing-file", "outside", "unreadable"} & (checks | {f.check for f in faults})
    if not unread and os.path.getsize(result) <= max(LARGE, 2 * y.nbytes):
        cells, executed = load_notebook(notebook).cells, "not-executed" not in checks
        findings += _check_origin(cells, executed, result, source if faults else None)
    return findings + faults


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
    findings = Findings(printable(path.name))
    if not os.path.isfile(path):
        problem = "not a regular file" if os.path.lexists(path) else "missing"
        fix = "run the notebook from top to bottom" if path.name == RESULT else "hand it in"
        others = {other.name for other in path.parent.glob(f"*{path.suffix}")}
        if others := others - {*DELIVERABLES, "test_set.npy", "README.md"}:
            fix += f", or rename {printable(min(others))} if that is it"
        findings.add("missing-file", problem, f"{path.name} in the folder", fix)
    elif not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        findings.add("outside", f"a symbolic link to {printable(os.path.realpath(path))}")
    return findings


def _check_array(y: np.ndarray, result: Path) -> list[Finding]:
    try:
        return check_array(y, load_npy(result, mmap=True), result.name)
    except BadInput as error:
        findings = Findings(result.name)
        fix = "write it again with np.save(..., allow_pickle=False) and copy the whole file"
        findings.add("unreadable", printable(error.problem, 160), "one array in .npy format", fix)
        return findings


def _check_origin(
    cells: Sequence[NotebookNode], executed: bool, result: Path, source: Path | None
) -> list[Finding]:
    """Check by the hashes that the cells printed whether they wrote the result.

    Args:
        cells: Those of the notebook.
        executed: Whether they hold all their outputs, so that a hash is expected.
        result: The filled test set.
        source: The test set, which may be another one than the notebook's; None: it fits.
    """
    findings = Findings(result.name)
    used = printed_sha256(cells, "test_set.npy")
    if source and used not in (None, expected := sha256(source)):
        problem = f"the notebook filled a test set with sha256 {used[:16]}…"
        findings.add("other-test-set", problem, f"{printable(source.name)} with {expected[:16]}…")
    printed, digest = printed_sha256(cells, RESULT), sha256(result)
    if printed != digest and (printed or executed):
        says = f"the notebook printed {printed[:16]}…" if printed else "the notebook prints none"
        findings.add("stale", f"sha256 {digest[:16]}…, {says}")
    return findings


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
        findings, remarks = Findings(printable(str(folder))), [INTEGRITY]
        findings.add("not-checked", printable(f"{kind}{error}", 200))
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
