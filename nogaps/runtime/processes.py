"""The processes of one command, as `accelerate launch` and `torchrun` start them.

All of them run the same command. The leader, process 0, decides, locks, prints and finishes; the
others help, and learn from it whether to go on. Whoever waits here can be interrupted, and waits
as long as it takes, which is not so of the collective calls themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from nogaps.runtime.errors import BadInput, Elsewhere

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Work

FAILED, NO, YES = range(3)  # what the leader tells
FOREVER = timedelta(days=365)
POLL = 0.05  # seconds between two looks at what is waited for
Result = TypeVar("Result")
_heard = False  # has the leader told anything yet?


def count() -> int:
    """How many processes run this command; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK") or 0) if count() > 1 else 0


def is_leader() -> bool:
    """Whether this one locks, prints and finishes."""
    return number() == 0


def by_leader(do: Callable[[], object]) -> bool:
    """The leader alone does it, the others wait; whether what it returned counts as true.

    All processes must call this alike. Raises BadInput where the leader did; in the others
    Elsewhere.
    """
    _group()  # at once: who waits to be joined here cannot be interrupted
    if is_leader():
        try:
            answer = YES if do() else NO
        except BadInput:
            _tell(FAILED)
            raise
        return _tell(answer) == YES
    answer = _tell()
    if answer == FAILED:
        raise Elsewhere("the leading process has failed")
    return answer == YES


def after_leader(do: Callable[[], Result]) -> Result:
    """What it returns, done by the leader first: where that raises BadInput the others stop."""
    results: list[Result] = []
    by_leader(lambda: results.append(do()))
    return results[0] if results else do()


def meet() -> None:
    """Wait until all processes are here."""
    if group := _group():
        from torch import distributed

        _finish(distributed.barrier(group, async_op=True))


def speaks() -> bool:
    """After bad input: whether this process is to say it, or the leader has met the same.

    Before the leader has told anything, what one process meets all of them are likely to meet.
    """
    if _heard or count() == 1:
        return True
    return _tell(FAILED) != FAILED or is_leader()


def refuse_several(name: str) -> None:
    """Raise BadInput if a command that one process does has several."""
    if count() > 1:
        raise BadInput(f"{name}: is done by one process, expected no launcher of {count()}")


def _tell(answer: int = FAILED) -> int:
    """The leader's answer, which the others do not give but get."""
    global _heard
    if group := _group():
        import torch
        from torch import distributed

        value = torch.tensor([answer])
        _finish(distributed.broadcast(value, 0, group, async_op=True))
        answer, _heard = int(value), True
    return answer


def _finish(work: Work) -> None:
    while not work.is_completed():
        time.sleep(POLL)
    try:
        work.wait()
    except RuntimeError as error:
        kind = BadInput if is_leader() else Elsewhere
        raise kind("another process has ended too early: give the same command again") from error


def _group() -> ProcessGroup | None:
    """All processes, if there are several."""
    return _new_group() if count() > 1 else None


@cache
def _new_group() -> ProcessGroup:
    """Over gloo, which needs no device; beside NCCL where training has set that up."""
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return distributed.new_group(timeout=FOREVER, backend="gloo")
