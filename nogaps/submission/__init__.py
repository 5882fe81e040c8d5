"""`nogaps check`: is a submission valid? Every finding says what, where and how to mend it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nogaps.files import BadInput, load_images, load_npy, sha256
from nogaps.submission.arrays import RESULT, check_array, shared_mask
from nogaps.submission.findings import Finding, Findings, printable
from nogaps.submission.notebook import NOTEBOOK, check_notebook, check_references, printed_sha256

__all__ = ["Finding", "check_array", "check_notebook", "check_submission", "notes", "report"]

REFERENCES = "References.md"
DELIVERABLES = (NOTEBOOK, RESULT, REFERENCES)
LARGE = 1 << 28  # bytes beyond which an array is looked at without being loaded
INTEGRITY = "the course also asks for its signed integrity form, which no program can check"


def check_submission(folder: str | Path, test_set: str | Path | None = None) -> list[Finding]:
    """Findings about the deliverables in `folder`, [] if they are valid.

    test_set: the corrupted images, else `folder/test_set.npy`. Raises BadInput if neither can be
    read; whatever is wrong with a deliverable is a finding.
    """
    folder, y, source = _open(folder, test_set)
    notebook = folder / (_notebook(folder) or NOTEBOOK)
    checks = {notebook: check_notebook, folder / REFERENCES: check_references}
    findings: list[Finding] = []
    for path, check in checks.items():
        findings += check(path) if path.is_file() else _missing(path)
    result = folder / RESULT
    if not result.is_file():
        return findings + _missing(result)
    blind = {"missing-file", "unreadable", "not-executed"} & {
        finding.check for finding in findings if finding.file == notebook.name
    }
    return findings + _check_result(y, result, source, None if blind else notebook)


def _open(folder: str | Path, test_set: str | Path | None) -> tuple[Path, np.ndarray, Path]:
    """The folder, the test set (N,1,H,W) and its file."""
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise BadInput(f"{folder}: is not a folder, expected one with {', '.join(DELIVERABLES)}")
    source = Path(test_set) if test_set else folder / "test_set.npy"
    if not os.path.isfile(source):
        raise BadInput(f"{source}: not found, expected the test set (or name it by --test-set)")
    y = load_images(source)
    try:
        shared_mask(y)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error
    return folder, y, source


def _notebook(folder: Path) -> str | None:
    """Name of the notebook: Assessment.ipynb, else the only other notebook in the folder."""
    others = sorted(path.name for path in folder.glob("*.ipynb") if path.is_file())
    if NOTEBOOK in others:
        return NOTEBOOK
    return others[0] if len(others) == 1 and not (folder / NOTEBOOK).exists() else None


def _missing(path: Path) -> list[Finding]:
    findings = Findings(path.name)
    given = {*DELIVERABLES, "test_set.npy", "README.md"}
    others = sorted({other.name for other in path.parent.glob(f"*{path.suffix}")} - given)
    mend = "run the notebook from top to bottom" if path.name == RESULT else "hand it in"
    if others:
        mend += f", or rename {printable(others[0])} if that is it"
    found = "not a regular file" if os.path.lexists(path) else "missing"
    findings.add("missing-file", found, f"{path.name} in the folder", mend)
    return findings.all


def _check_result(
    y: np.ndarray, result: Path, source: Path, notebook: Path | None
) -> list[Finding]:
    """Findings about the filled test set, and whether `notebook` wrote it, from `source`."""
    findings = Findings(result.name)
    try:
        x_hat = load_npy(result, mmap=result.stat().st_size > LARGE)
        digest = sha256(result)
    except Exception as error:  # numpy's parser of headers raises more than it documents
        found = printable(str(error).removeprefix(f"{result}: "))
        mend = "write it again with np.save(..., allow_pickle=False) and copy the whole file"
        findings.add("unreadable", found, "one array in .npy format", mend)
        return findings.all
    faults = check_array(y, x_hat, result.name)
    if notebook is not None:
        used = printed_sha256(notebook, "test_set.npy")
        if faults and used and used != sha256(source):
            found = f"the notebook filled a test set with sha256 {used[:16]}…"
            mend = "check against that file (--test-set), or run the notebook on this one"
            expected = f"{printable(source.name)} with {sha256(source)[:16]}…"
            findings.add("other-test-set", found, expected, mend)
        _check_stale(digest, printed_sha256(notebook, RESULT), findings)
    return findings.all + faults


def _check_stale(digest: str, printed: str | None, findings: Findings) -> None:
    """Compare the array's sha256 with the one that the notebook printed."""
    if printed != digest:
        said = f"the notebook printed {printed[:16]}…" if printed else "the notebook prints none"
        mend = f"run the notebook again and hand in both; it prints '{RESULT} sha256: …'"
        found = f"sha256 {digest[:16]}…, {said}"
        findings.add("stale", found, "the file that the notebook wrote", mend)


def notes(folder: str | Path) -> list[str]:
    """Remarks that are no findings: the integrity form, and what differs from the last commit."""
    folder = Path(folder)
    committed = _committed(folder)
    if not committed:
        return [INTEGRITY]
    remarks = [INTEGRITY]
    for name in DELIVERABLES:
        path = folder / name
        if not path.is_file():
            continue
        if name not in committed:
            remarks.append(f"{name} is not committed")
        elif _blob(path, len(committed[name])) != committed[name]:
            remarks.append(f"{name} differs from what is committed")
    return remarks


def _committed(folder: Path) -> dict[str, str]:
    """Blob ids of the deliverables in HEAD; {} outside a work tree or without git.

    Only `ls-tree`, with lazy fetching off: `status` and `diff` would run the programs that the
    configuration of a stranger's repository names.
    """
    command = ["git", "-c", "core.fsmonitor=false", "ls-tree", "-z", "HEAD", "--", *DELIVERABLES]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    entries = [entry.split("\t", 1) for entry in done.stdout.decode("utf-8", "replace").split("\0")]
    return {entry[1]: entry[0].split()[2] for entry in entries if len(entry) == 2}


def _blob(path: Path, length: int) -> str:
    """Git's id of a file's content, in sha1 (40 digits) or sha256."""
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    digest = hashlib.sha1 if length == 40 else hashlib.sha256
    return digest(b"blob %d\0" % len(data) + data).hexdigest()


def report(folders: Sequence[str | Path], test_set: str | Path | None = None) -> list[dict]:
    """One row per folder: {"dir", "valid", "findings": [dict, …], "notes": [str, …]}."""
    rows = []
    for folder in folders:
        findings = check_submission(folder, test_set)
        faults = [asdict(finding) for finding in findings]
        row = {"dir": str(folder), "valid": not faults, "findings": faults, "notes": notes(folder)}
        rows.append(row)
    return rows
