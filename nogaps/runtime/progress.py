"""Progress of long work, for whoever looks: a bar in terminals and notebooks, lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm.std import tqdm

Item = TypeVar("Item")
SECONDS = 20.0  # between two lines of a log; what takes less prints none
LINE = (
    "{desc}: {percentage:3.0f}% ({n_fmt} of {total_fmt}) after {elapsed}, {remaining} left{postfix}"
)
quiet = False  # whether no progress is shown: `nogaps --quiet`


def progress(
    work: Iterable[Item] | None = None, desc: str = "progress", delay: float = 0.0, **options: Any
) -> tqdm[Item]:
    """Show progress over `work`, or over `total` units that `update` counts.

    A bar where stderr is a terminal or belongs to a notebook's kernel; elsewhere, as in a log
    file, a whole line every 20 seconds. The arguments are tqdm's.
    """
    from tqdm.std import tqdm  # not tqdm.auto, whose widgets a saved notebook cannot show

    options["disable"] = options.get("disable", False) or quiet
    if sys.stderr.isatty() or "ipykernel.kernelapp" in sys.modules:
        return tqdm(work, desc, mininterval=1, delay=delay, **options)
    options |= {"miniters": 1, "mininterval": SECONDS, "delay": SECONDS, "bar_format": LINE}
    return tqdm(work, desc, file=_Lines(), **options)


class _Lines:
    """A stream for tqdm that prints each new state of a bar as a line."""

    last = ""

    def write(self, text: str) -> None:
        """Print the state without carriage returns; tqdm writes the last one twice."""
        if (line := text.strip()) not in ("", self.last):
            print(line, file=sys.stderr)
            self.last = line

    def flush(self) -> None:
        """Write what was printed to the log."""
        sys.stderr.flush()
