"""What `nogaps check` says: findings, and the words they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Finding:
    """One fault of a submission: what was found where, what was expected, and how to mend it."""

    check: str
    file: str
    found: str
    expected: str
    mend: str

    def __str__(self) -> str:
        """All of it on one line."""
        text = f"{self.file}: [{self.check}] {self.found}; expected {self.expected}."
        return " ".join(f"{text} To mend: {self.mend}".split())


@dataclass
class Findings:
    """The findings about one file."""

    file: str
    all: list[Finding] = field(default_factory=list)

    def add(self, check: str, found: str, expected: str, mend: str) -> None:
        """Append a finding about the file."""
        self.all.append(Finding(check, self.file, found, expected, mend))


def printable(text: str, length: int = 80) -> str:
    """`text` on one line, cut, and free of what a terminal cannot encode or would obey."""
    line = "".join(c if c.isprintable() else " " for c in ANSI.sub("", text[: 20 * length]))
    line = " ".join(line.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def numbered(name: str, places: Iterable[int], shown: int = 5) -> str:
    """Things by their numbers, the first few of many: "image 3", "images 1, 2 and 9 more"."""
    numbers = [str(int(place)) for place in places]
    more = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return f"{name}{'s' * (len(numbers) != 1)} {', '.join(numbers[:shown])}{more}"


def images(places: Iterable[int]) -> str:
    """Images by their numbers, counted from 0."""
    return numbered("image", places)


def span(values: np.ndarray) -> str:
    """The range of some numbers as text."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
