"""Notes on a submission: what a program cannot be sure of, and a marker may look at."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK, load_notebook, printed_sha256, texts
from nogaps.submission.references import REFERENCES

DELIVERABLES = (NOTEBOOK, RESULT, REFERENCES)
INTEGRITY = "the course also asks for its signed integrity form, which no program can check"
MAX_BYTES = 1 << 28  # of a file that is compared with the committed one
# a worker that is cleaned up after its work prints one as well
TRACEBACK = re.compile(r"^(Exception ignored.*\n)?Traceback \(most recent call last\)", re.M)


def notes(folder: str | Path, test_set: str | Path | None = None) -> list[str]:
    """Return notes on a submission, whatever its files hold.

    Args:
        folder: Holds the notebook, the result and References.md.
        test_set: The corrupted images; else `folder/test_set.npy`.

    Returns:
        Notes on the integrity form, on the notebook, and on what differs from the last commit.
    """
    folder = Path(folder)
    source = Path(test_set) if test_set else folder / "test_set.npy"
    return [INTEGRITY, *_of_notebook(folder / NOTEBOOK, source), *_of_commit(folder)]


def _of_notebook(path: Path, source: Path) -> list[str]:
    try:
        cells = load_notebook(path).cells
    except BadInput:
        return []
    remarks = [
        f"{path.name}: cell {place} printed the traceback of an error"
        for place, cell in enumerate(cells, 1)
        if any(not match[1] for text in texts(cell) for match in TRACEBACK.finditer(text))
    ]
    used = printed_sha256(cells, "test_set.npy")
    if used and os.path.isfile(source) and used != sha256(source):
        remarks.append(f"{path.name} ran on another file than this {source.name}, sha256 {used}")
    return remarks


def _of_commit(folder: Path) -> list[str]:
    """Return what differs from HEAD, where the folder lies in a git work tree."""
    committed = _committed(folder)
    remarks = []
    for path in [folder / name for name in DELIVERABLES if committed]:
        if not os.path.isfile(path):
            continue
        if path.name not in committed:
            remarks.append(f"{path.name} is not committed")
        elif committed[path.name] not in _blobs(path, len(committed[path.name])):
            remarks.append(f"{path.name} differs from what is committed")
    return remarks


def _committed(folder: Path) -> dict[str, str]:
    """Return git's ids of the deliverables in HEAD; {} outside a work tree or without git.

    Only `ls-tree` is run, with lazy fetching off: `status` and `diff` would run the programs that
    the configuration of a stranger's repository names.
    """
    command = ["git", "-c", "core.fsmonitor=false", "ls-tree", "-z", "HEAD", "--", *DELIVERABLES]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=20, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    entries = [entry.split("\t", 1) for entry in done.stdout.decode("utf-8", "replace").split("\0")]
    return {entry[1]: entry[0].split()[2] for entry in entries if len(entry) == 2}


def _blobs(path: Path, length: int) -> set[str]:
    """Return git's ids of a file, in sha1 (40 digits) or sha256; of a text also with LF."""
    try:
        data = path.read_bytes() if os.path.getsize(path) <= MAX_BYTES else b""
    except OSError:
        return set()
    digest = hashlib.sha1 if length == 40 else hashlib.sha256
    # git may have changed the ends of lines of a text
    contents = [data] if path.suffix == ".npy" else [data, data.replace(b"\r\n", b"\n")]
    return {digest(b"blob %d\0" % len(content) + content).hexdigest() for content in contents}
