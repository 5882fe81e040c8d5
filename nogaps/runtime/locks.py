"""One run per folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nogaps.runtime.errors import BadInput

LOCK = ".nogaps.lock"


@contextmanager
def folder_lock(folder: str | Path, wait: float = 0.1) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if it is missing.

    The operating system releases the lock of a process that is killed.

    Args:
        folder: The folder to which one run at a time may write.
        wait: Seconds to wait for a run that is about to end.

    Raises:
        BadInput: Another run holds the folder, or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK).acquire(wait).lock
    except Timeout:
        problem = "in use by another run; wait for it to end, or choose another folder"
        raise BadInput(problem, path=folder) from None
    except OSError as error:
        raise BadInput(f"cannot be written ({error.strerror or error})", path=folder) from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # while it is held: nobody else has it
        lock.release()
