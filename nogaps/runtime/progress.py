"""Progress of long work, for whoever looks: a bar in terminals and notebooks, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from tqdm.std import tqdm

Item = TypeVar("Item")
SHARE, SECONDS = 0.1, 30.0  # a line in a log at every tenth of the work, and after this time
LEAST = 2.0  # seconds between two lines; work that takes less says nothing
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show no progress from now on, or show it again: `nogaps --quiet`."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `nogaps --quiet` was asked for."""
    return _quiet


def progress(
    work: Iterable[Item] | None = None,
    desc: str = "",
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    delay: float = 0.0,
    disable: bool = False,
) -> Lines[Item] | tqdm[Item]:
    """Progress over `work`, or over `total` units that `update` counts; the arguments are tqdm's.

    A bar where stderr is a terminal or belongs to a notebook's kernel. Elsewhere, as in a log file,
    a line at every tenth or after 30 seconds, and none for what takes less than two. Nothing if
    quiet or disabled. What is returned has tqdm's `update`, `set_postfix`, `close`, `n` and
    `total`, can be iterated, and is a context manager.
    """
    total = len(work) if total is None and hasattr(work, "__len__") else total  # type: ignore[arg-type]
    if disable or _quiet or not (sys.stderr.isatty() or _in_notebook()):
        return Lines(work, desc, total, initial, unit, silent=disable or _quiet)
    from tqdm.auto import tqdm

    options = {"total": total, "initial": initial, "unit": unit, "delay": delay}
    return tqdm(work, desc, mininterval=1, **options)


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel; its stderr is no terminal, but can show a bar."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Lines(Generic[Item]):
    """tqdm's part that is used here, for logs: whole lines, few of them, no carriage return."""

    def __init__(
        self,
        work: Iterable[Item] | None,
        desc: str,
        total: int | None,
        initial: int,
        unit: str,
        silent: bool,
    ) -> None:
        self.work, self.desc, self.total, self.unit = work, desc or "progress", total, unit
        self.n = self.initial = self._shown = initial
        self.silent, self.said, self.postfix = silent, False, ""
        self.started = self._last = time.monotonic()

    def __iter__(self) -> Iterator[Item]:
        """The items of `work`, each counted when the next is asked for."""
        with self:
            for item in self.work or ():
                yield item
                self.update()

    def update(self, n: int = 1) -> None:
        """Count n more, and say so if a line is due."""
        self.n += n
        waited = time.monotonic() - self._last
        share = (self.n - self._shown) / self.total if self.total else 0
        if waited >= SECONDS or (waited >= LEAST and share >= SHARE):
            self._say()

    def set_postfix(self, values: Mapping[str, object]) -> None:
        """Figures for the next line."""
        self.postfix = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Say how far it came, if it took long enough to be worth a line."""
        if self.n > self._shown and (self.said or time.monotonic() - self.started >= LEAST):
            self._say()
        self.silent = True

    def __enter__(self) -> Lines[Item]:
        """Itself."""
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _say(self) -> None:
        self._shown, self._last = self.n, time.monotonic()
        if self.silent:
            return
        took = self._last - self.started
        done, rate = f"{self.n}", (self.n - self.initial) / max(took, 1e-9)
        if self.total:
            done = f"{self.n / self.total:4.0%} ({self.n} of {self.total})"
        left = (self.total - self.n) / rate if self.total and rate else 0
        unit = "" if self.unit == "it" else f" {self.unit}s"
        text = f"{self.desc}: {done}{unit} after {clock(took)}"
        text += f", about {clock(left)} left" if left > 0 else ""
        print(text + self.postfix, file=sys.stderr, flush=True)
        self.said = True


Bar = Lines  # or tqdm's: whatever `progress` returns


def clock(seconds: float) -> str:
    """Seconds as minutes:seconds, with hours if there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
