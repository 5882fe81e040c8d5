"""One run per folder: locks that the operating system takes back when their process dies."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from nogaps.runtime.errors import BadInput

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".nogaps.lock"
POLL = 0.05  # seconds between two looks at a lock that is waited for


def try_lock(handle: int, path: Path) -> bool:
    """Lock an open file, or folder, until `handle` is closed; whether `path` is now ours.

    False if another process holds it, or has put another file in its place. A child that inherits
    `handle` holds the lock as well. Raises OSError where there are no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no locks on this system")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except (BlockingIOError, FileNotFoundError):
        return False


@contextlib.contextmanager
def folder_lock(folder: str | Path, wait: float = 2 * POLL) -> Iterator[int | None]:
    """Keep other runs out of `folder` while the context lasts; the folder is made if need be.

    Yields the lock's file descriptor: a child process that inherits it shares the lock. The lock
    lies on `folder/.nogaps.lock`. The system takes it back when the last process that holds it
    ends, however it ends; a file that a killed process left blocks nobody, and the next run
    removes it. Where the file system has no locks, a file in the machine's temporary folder stands
    in: this machine's runs are kept out, those of other machines are not, and a warning says so (a
    mounted Google Drive may have locks, but two machines that mount it never see each other's).
    Without any locks (Windows) a warning says that, and None is yielded.

    wait: seconds to wait for a run that is about to end. Raises BadInput if another run holds the
    folder, or if nothing can be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = _take(folder, wait)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        yield handle
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):  # removed before it is released: it is still ours
                path.unlink()
            os.close(handle)


def _take(folder: Path, wait: float) -> tuple[int | None, Path]:
    """Descriptor and path of the lock that was got: the folder's own, or the one that stands in."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    name = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:16]
    places = (folder / LOCK, Path(tempfile.gettempdir()) / f"nogaps-{user}-{name}.lock")
    for path in places:
        try:
            handle = _wait_for(path, folder, wait)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL):
                raise
            continue
        if path != places[0]:
            text = "cannot be locked for other machines: see that none works in it"
            warnings.warn(f"{folder}: {text}", stacklevel=4)
        return handle, path
    warnings.warn(f"{folder}: cannot be locked: see that no other run works in it", stacklevel=4)
    return None, folder


def _wait_for(path: Path, folder: Path, wait: float) -> int:
    """Open and lock `path`. Raises BadInput if it is held for longer than `wait` seconds."""
    deadline = time.monotonic() + wait
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            if try_lock(handle, path):
                _sign(handle)
                return handle
        except OSError:
            path.unlink(missing_ok=True)  # there are no locks: nobody else can hold it
            os.close(handle)
            raise
        os.close(handle)
        if time.monotonic() >= deadline:
            found = f"in use by another run{_holder(path)}"
            raise BadInput(f"{folder}: {found}; wait for it to end, or choose another folder")
        time.sleep(POLL)


def _sign(handle: int) -> None:
    """Note who holds the lock, for the message that another run gets."""
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(handle, 0)
        started = time.strftime("%H:%M:%S")
        os.write(handle, f"process {os.getpid()} on {platform.node()}, {started}".encode())


def _holder(path: Path) -> str:
    try:
        who = path.read_text(errors="replace")[:100]
    except OSError:
        return ""
    return f" ({who})" if who else ""
