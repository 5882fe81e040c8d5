"""What `nogaps check` reports: errors and notes, and the table of both."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.runtime.errors import BadInput

ANSI = re.compile(r"\x1b\[[0-9;]*m")
ERROR, NOTE = "error", "note"
RUN_AGAIN = "restart the kernel, run all cells from top to bottom, save"
IN_ORDER = "fill the test set in its order (DataLoader with shuffle=False), each image once"
PRINT_HASH = (
    "none is needed; to show it, run a last cell: import hashlib; print('test_set_nogaps.npy"
    " sha256:', hashlib.sha256(open('test_set_nogaps.npy', 'rb').read()).hexdigest())"
)
DROP_WIDGETS = (
    "remove the entry, the outputs stay: import nbformat; n = nbformat.read('Assessment.ipynb', 4);"
    " n.metadata.pop('widgets'); nbformat.write(n, 'Assessment.ipynb')"
)
FILL = "put the network's values into all pixels that are 0 in every image of the test set"
NOT_FINITE = "find the division by 0 or the fp16 overflow that makes them; 0 would be no filling"
# what is expected, and how to fix it; "" where a finding says it itself
ERRORS = {  # breaches of the course's sheet, and what nobody could mark
    "not-checked": ("a submission that can be checked", "correct that and check again"),
    "missing-file": ("a file of this name in the folder", "hand it in"),
    "outside": ("a file in the folder", "put it there itself; a clone holds the link only"),
    "unreadable": ("", ""),
    "notebook-name": ("Assessment.ipynb", "rename it"),
    "not-executed": ("every code cell executed", RUN_AGAIN),
    "no-outputs": ("the outputs of the cells", "run all cells, save with their outputs"),
    "error-output": ("no errors", f"correct the cell; {RUN_AGAIN}"),
    "figures": ("10 images shown in each question", "show them with plt.show(), run all, save"),
    "widgets": ("a notebook that GitHub can show", DROP_WIDGETS),
    "shape": ("", "save one filled image for each of the test set, in one channel"),
    "number": ("one filling of each input", IN_ORDER),
    "finite": ("finite values", NOT_FINITE),
    "range": ("[0, 1]", "save the images in the intensities of the test set"),
    "scaled": ("the intensities of the test set", "undo the scaling: (x_hat - b) / a"),
    "orientation": ("that of the test set", "leave rows and columns; undo every augmentation"),
    "order": ("image k holds input k", IN_ORDER),
    "inverted-mask": ("the opposite", "mask is True where observed: torch.where(mask, y, x_hat)"),
    "not-filled": ("filled holes", FILL),
}
NOTES = {  # what the sheet does not ask for, but a marker may like to know
    "questions": ("Question 1, 2 and 3", "open each with a heading such as '## Question 1: …'"),
    "out-of-order": ("counts from 1 upwards in one pass", RUN_AGAIN),
    "traceback": ("no traceback", "look at what failed in that cell"),
    "notebook-size": ("under 3 MB", "save figures at a lower resolution and print less"),
    "machine-path": ("relative paths", "change it in the code; in a library's warning it may stay"),
    "no-hash": ("the sha256 of the file it wrote", PRINT_HASH),
    "stale": ("the file that the notebook wrote", "hand in both files of one run"),
    "other-test-set": (
        "that of this check",
        "check against that file (--test-set), or run on this",
    ),
    "references": ("sources with links", "name and link your sources"),
    "axes": ("", ""),
    "dtype": ("float32", "keep the images in float32, from the network to np.save"),
    "overshoot": ("[0, 1]", "x_hat.clamp(0, 1) before saving"),
    "observed-changed": ("no difference", "copy them: x_hat = torch.where(mask, y, x_hat)"),
}


@dataclass(frozen=True)
class Finding:
    """One fault of a submission: in which file, what was found, what was expected, how to fix it.

    `check` is the name of the fault, such as "shape"; `level` is "error" or "note".
    """

    check: str
    file: str
    found: str
    expected: str
    fix: str
    level: str

    def __str__(self) -> str:
        """Return all of it on one line."""
        text = f"{self.level} [{self.check}] {self.file}: {self.found}; expected {self.expected}."
        return " ".join(f"{text} To fix: {self.fix}".split())


class Findings(list[Finding]):
    """The findings about one file."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = printable(file)

    def add(self, check: str, problem: str, expected: str = "", fix: str = "") -> None:
        """Append a finding about the file, by default with the words of ERRORS or NOTES."""
        level = ERROR if check in ERRORS else NOTE
        usual = (ERRORS | NOTES)[check]
        found, wanted = printable(problem, 300), expected or usual[0]
        self.append(Finding(check, self.file, found, wanted, fix or usual[1], level))


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


def numbered(name: str, places: Iterable[int]) -> str:
    """Return the first five numbers of things: "image 3", "images 1, 2, 3, 4, 5 and 9 more"."""
    numbers = [str(int(place)) for place in places]
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"{name}{'s' * (len(numbers) != 1)} {', '.join(numbers[:5])}{more}"


def span(values: np.ndarray) -> str:
    """Return the range of numbers as text: "0.5 to 0.8", or "0.5" where all are equal."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
