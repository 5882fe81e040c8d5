"""The processes of one command, as `accelerate launch` and `torchrun` start them.

All of them run the same command. Process 0 decides, locks, prints and finishes. When one fails,
the launcher ends the others. Two commands do not work in one folder at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from nogaps.runtime.errors import BadInput, Elsewhere

if TYPE_CHECKING:
    from accelerate import PartialState

TIMEOUT = timedelta(days=30)  # a process may wait as long as another one works
LOCK = ".nogaps.lock"
Item = TypeVar("Item")


def count() -> int:
    """Return how many processes run this command; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def number() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ.get("RANK") or 0) if count() > 1 else 0


def is_main() -> bool:
    """Return whether this is process 0."""
    return number() == 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let process 0 go through the block before the others enter it.

    Raises:
        Elsewhere: In the others, where process 0 has failed in the block.
    """
    if count() > 1:
        _state()  # before the block: the others would wait for ever for one that failed unjoined
    if not is_main():
        wait_for_everyone()
    yield
    if is_main():
        wait_for_everyone()


def wait_for_everyone() -> None:
    """Wait until every process is here.

    Raises:
        BadInput: In process 0, where another process has ended.
        Elsewhere: In the others.
    """
    if count() == 1:
        return
    try:
        _state().wait_for_everyone()
    except RuntimeError as error:
        kind = BadInput if is_main() else Elsewhere
        raise kind("another process has ended too early", "the same command again") from error


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's contiguous share of `items`."""
    if count() == 1:
        return items
    with _state().split_between_processes(items) as own:
        return own


def refuse_several(name: str) -> None:
    """Raise BadInput if several processes run the command `name`, which is not shared."""
    if count() > 1:
        kind = BadInput if is_main() else Elsewhere
        raise kind(f"{name}: is done by one process", f"no launcher of {count()}")


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if it is missing.

    The operating system releases the lock of a process that is killed.

    Args:
        folder: The folder to which one run at a time may write.

    Raises:
        BadInput: Another run holds the folder, or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK).acquire(0.1).lock
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


@cache
def _state() -> PartialState:
    from accelerate import PartialState

    from nogaps.runtime.device import pick_device

    return PartialState(cpu=pick_device().type == "cpu", timeout=TIMEOUT)
