"""What `nogaps check` reports: findings, and the words they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.runtime.errors import BadInput

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Finding:
    """One fault of a submission: in which file, what was found, what was expected, how to fix it.

    `check` is the name of the fault, such as "shape".
    """

    check: str
    file: str
    found: str
    expected: str
    fix: str

    def __str__(self) -> str:
        """Return all of it on one line."""
        text = f"[{self.check}] {self.file}: {self.found}; expected {self.expected}."
        return " ".join(f"{text} To fix: {self.fix}".split())


class Findings(list[Finding]):
    """The findings about one file."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def add(self, check: str, found: str, expected: str, fix: str) -> None:
        """Append a finding about the file."""
        self.append(Finding(check, self.file, found, expected, fix))


def printable(text: str, length: int = 80) -> str:
    """Return `text` on one line, cut, without what a terminal cannot encode or would obey."""
    line = "".join(c if c.isprintable() else " " for c in ANSI.sub("", text[: 20 * length]))
    line = " ".join(line.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def reason_of(error: Exception) -> str:
    """Return the line of an error, which names a file without its folder."""
    if isinstance(error, BadInput) and error.path is not None:
        return error.line(name=Path(error.path).name)
    return str(error)


def numbered(name: str, places: Iterable[int], shown: int = 5) -> str:
    """Return the first few numbers of things: "image 3", "images 1, 2, 3, 4, 5 and 9 more"."""
    numbers = [str(int(place)) for place in places]
    more = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return f"{name}{'s' * (len(numbers) != 1)} {', '.join(numbers[:shown])}{more}"


def images(places: Iterable[int]) -> str:
    """Return the numbers of images, counted from 0, as `numbered`."""
    return numbered("image", places)


def span(values: np.ndarray) -> str:
    """Return the range of numbers as text: "0.5 to 0.8", or "0.5" where all are equal."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
