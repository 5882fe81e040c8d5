"""The one error that users are meant to see, in parts that each interface can word its own way."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from importlib.util import find_spec
from pathlib import Path


class Advice(Enum):
    """What helps against an error, in the words of the command line.

    The Python interface and the demo have words of their own for the same advice.
    """

    MASK = "a mask (--mask MASK.npy), or missing pixels that are NaN (--missing nan)"
    MISSING_NAN = "--missing nan if NaN is what is missing, else --mask MASK.npy"
    QUALITY_BEST = "uncertainty.json beside its weights, and all networks (--quality best)"
    PLANE = "the plane of the slices (--plane sagittal)"


class BadInput(ValueError):
    """The user's input cannot be used: one line says which, what is wrong, and what was expected.

    Args:
        problem: What is wrong; the whole line where the other parts are not given.
        expected: What would be right, and what to do.
        path: The file or folder that is at fault.
        advice: Takes the place of `expected` where each interface has its own words for it.
    """

    def __init__(
        self,
        problem: str,
        expected: str = "",
        *,
        path: str | Path | None = None,
        advice: Advice | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem, self.expected, self.path, self.advice = problem, expected, path, advice

    def line(self, words: Mapping[Advice, str] | None = None, name: str | None = None) -> str:
        """Return the message on one line, whatever the names in it hold.

        Args:
            words: An interface's own words for each advice; else those of the command line.
            name: Shown in place of `path`.
        """
        expected = self.expected
        if self.advice is not None:
            expected = (words or {}).get(self.advice, self.advice.value)
        at_fault = self.path if name is None else name
        start = "" if at_fault is None else f"{at_fault}: "
        end = f", expected {expected}" if expected else ""
        return " ".join(f"{start}{self.problem}{end}".split())

    def __str__(self) -> str:
        """Return the line of the command line."""
        return self.line()


class Elsewhere(BadInput):
    """Bad input that another process of the same command has met, and says."""


def require(extra: str, *modules: str) -> None:
    """Raise BadInput unless the modules of an extra of nogaps are installed."""
    for name in modules:
        if find_spec(name) is None:
            advice = f"pip install 'nogaps[{extra}]'"
            raise BadInput(f"{name} is not installed; this installs it: {advice}")
