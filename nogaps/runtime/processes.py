"""The processes of one command, as `accelerate launch` and `torchrun` start them.

All of them run the same command. Process 0 decides, locks, prints and finishes. When one fails,
the launcher ends the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from nogaps.runtime.errors import BadInput, Elsewhere

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch.distributed import ProcessGroup, Work

TIMEOUT = timedelta(days=30)  # a process may wait as long as another one works
Item = TypeVar("Item")
Result = TypeVar("Result")


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


@cache
def _state() -> PartialState:
    from accelerate import PartialState

    from nogaps.runtime.device import pick_device

    return PartialState(cpu=pick_device().type == "cpu", timeout=TIMEOUT)


# until the prior's training calls the functions above ---------------------------------------------

FAILED, NO, YES = range(3)
POLL = 0.05


def is_leader() -> bool:
    """Return whether this is process 0."""
    return is_main()


def by_leader(do: Callable[[], object]) -> bool:
    """The leader alone does it, the others wait; whether what it returned counts as true.

    All processes must call this alike. Raises BadInput where the leader did; in the others
    Elsewhere.
    """
    _group()  # at once: who waits to be joined here cannot be interrupted
    if is_main():
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


def _tell(answer: int = FAILED) -> int:
    """The leader's answer, which the others do not give but get."""
    if group := _group():
        import torch
        from torch import distributed

        value = torch.tensor([answer])
        _finish(distributed.broadcast(value, 0, group, async_op=True))
        answer = int(value)
    return answer


def _finish(work: Work) -> None:
    while not work.is_completed():
        time.sleep(POLL)
    try:
        work.wait()
    except RuntimeError as error:
        kind = BadInput if is_main() else Elsewhere
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
    return distributed.new_group(timeout=TIMEOUT, backend="gloo")
