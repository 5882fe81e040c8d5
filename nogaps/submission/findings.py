"""What `nogaps check` reports: findings, and the words they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.runtime.errors import BadInput

ANSI = re.compile(r"\x1b\[[0-9;]*m")
COPY = "copy the observed pixels: x_hat = torch.where(mask, y, x_hat)"
RUN_AGAIN = "restart the kernel, run all cells from top to bottom, save"
IN_ORDER = "fill the test set in its order (DataLoader with shuffle=False), each image once"
# of each check: what is expected and how to fix it, where a finding does not say it itself
CHECKS: dict[str, tuple[str, str]] = {
    # the folder
    "outside": (
        "a file in the folder",
        "put the file itself there: a clone or an archive would hold the link only",
    ),
    "other-test-set": (
        "the test set of this check",
        "check against that file (--test-set), or run the notebook on this one",
    ),
    "stale": (
        "the file that the notebook wrote",
        "run the notebook again and hand in both; it prints 'test_set_nogaps.npy sha256: …'",
    ),
    "not-checked": (
        "a submission that can be checked",
        "correct that and check again; please report an error of this program",
    ),
    # the notebook
    "notebook-name": ("Assessment.ipynb", "rename it"),
    "notebook-size": ("under 3 MB", "save figures at a lower resolution and print less"),
    "questions": (
        "the headings Question 1, Question 2, Question 3",
        "open each question with a markdown heading such as '## Question 1: …', in order",
    ),
    "not-executed": ("every code cell executed, outputs saved", RUN_AGAIN),
    "out-of-order": ("counts from 1 upwards in one pass", RUN_AGAIN),
    "error-output": ("no errors", f"correct the cell; {RUN_AGAIN}"),
    "figures": (
        "a figure of 10 images in each question",
        "show the images with matplotlib (plt.show()) and save the notebook with its outputs",
    ),
    "machine-path": ("no path of your machine", "use paths relative to the notebook, run it again"),
    # the array
    "dtype": (
        "float32",
        "fill in [0, 1] and save x_hat.astype(np.float32), observed pixels as they were",
    ),
    "dropped": (
        "a filling of each input",
        "fill every image of the test set, in its order (drop_last=False)",
    ),
    "finite": (
        "finite values",
        "find the division by 0 or the fp16 overflow that makes them; do not replace them by 0",
    ),
    "range": ("[0, 1]", "x_hat.clamp(0, 1) before saving"),
    "inverted-mask": (
        "the opposite",
        "mask is True where observed: x_hat = torch.where(mask, y, network)",
    ),
    "orientation": (
        "the orientation of the test set",
        "leave rows and columns as they are; undo every augmentation",
    ),
    "shuffled": ("image k holds input k", IN_ORDER),
    "duplicated": ("image k holds input k", IN_ORDER),
    "scaled": ("y itself", f"undo the scaling, (x_hat - b) / a; {COPY}"),
    "observed-changed": ("no difference", COPY),
    "not-filled": ("filled holes", "fill all pixels that are 0 in every image of the test set"),
    "constant-fill": (
        "a filling that follows the image",
        "fill each hole from the observed pixels around it",
    ),
    "seams": (
        "about 1, as between observed pixels",
        "use the mask of the test set itself; fill in the intensities of the image at hand",
    ),
}


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

    def add(self, check: str, problem: str, expected: str = "", fix: str = "") -> None:
        """Append a finding about the file, by default with the words of CHECKS."""
        usual = CHECKS.get(check, ("", ""))
        self.append(Finding(check, self.file, problem, expected or usual[0], fix or usual[1]))


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


def images(chosen: np.ndarray) -> str:
    """Return the numbers of the images where (N,) bool says so, as `numbered`."""
    return numbered("image", np.flatnonzero(chosen))


def span(values: np.ndarray) -> str:
    """Return the range of numbers as text: "0.5 to 0.8", or "0.5" where all are equal."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
