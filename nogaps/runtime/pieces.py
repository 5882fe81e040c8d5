"""Long work in pieces that are kept: whoever ends, however it ends, no finished piece is lost.

Each piece is one file, written at once. Several processes share the pieces without a plan: each
takes the next that is neither there nor being made, so fast ones make more of them. Locks see to
that; where the file system has none, some pieces are made twice, to the same bits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nogaps.runtime import processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

POLL = 0.2  # seconds between two looks at pieces that others make


def make_pieces(
    paths: Sequence[Path],
    finished: Callable[[Path], bool],
    make: Callable[[int], None],
    found: Callable[[int], object],
) -> None:
    """Make the pieces that are not finished, together with the other processes of this command.

    make(k) writes paths[k]; found(k) is called for each that was there, or came from another. The
    leader returns when all are finished, and makes itself what a process that died has left; the
    others return when nothing is left to take. Nobody may remove pieces before `processes.meet`.
    """
    first = processes.number() * len(paths) // processes.count()
    left = [*range(first, len(paths)), *range(first)]
    while left:
        taken = [k for k in left if not _settle(k, paths[k], finished, make, found)]
        if len(taken) == len(left):
            if not processes.is_leader():
                return
            time.sleep(POLL)
        left = taken


def _settle(
    k: int,
    path: Path,
    finished: Callable[[Path], bool],
    make: Callable[[int], None],
    found: Callable[[int], object],
) -> bool:
    """Make a piece unless it is there; False if another process is making it."""
    if finished(path):
        found(k)
        return True
    with _claimed(path) as ours:
        if ours and processes.count() > 1 and finished(path):  # just now, by another
            found(k)
        elif ours:
            make(k)
    return ours


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process may make that piece: no other one that lives is making it."""
    lock, handle, ours = path.with_suffix(".lock"), None, True
    with contextlib.ExitStack() as stack:
        if processes.count() > 1:
            with contextlib.suppress(OSError):  # there are no locks here
                handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
                stack.callback(os.close, handle)
                ours = try_lock(handle, lock)
        yield ours
        if ours and handle is not None:
            lock.unlink(missing_ok=True)


def try_lock(handle: int, path: Path) -> bool:
    """Lock an open file until `handle` is closed; whether `path` is now ours."""
    if fcntl is None:
        raise OSError(95, "no locks on this system")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except (BlockingIOError, FileNotFoundError):
        return False
