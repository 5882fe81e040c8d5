"""What a submission's notebook must be: each fault becomes one `Finding`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from nogaps.runtime.files import BadInput
from nogaps.submission.figures import Shown, pictures, show
from nogaps.submission.findings import ANSI, Finding, Findings, printable

NOTEBOOK = "Assessment.ipynb"
MAX_BYTES, UNREADABLE_BYTES = 3_000_000, 100_000_000
QUESTIONS, TEN = (1, 2, 3), 10  # each shows ten images
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
HEADING = re.compile(r"^(?:#{1,6}\s|<h[1-6]).*?\bquestion\s*(\d+)", re.I | re.M)
# what precedes must not make it the middle of an address or of a relative path
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~}-])(?:file://)?/(?:home|root|Users|tmp|work|var/folders|private|mnt|media|Volumes|scratch|rds|vol)/[^\s\"'`<>()\[\],;]*"
    r"|\b[A-Za-z]:(?:\\{1,2}|/)Users\b[^\s\"'`<>]*"
)


def joined(value: object) -> str:
    """A notebook's text field: a string, or a list of its lines."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def load_notebook(path: Path) -> dict:
    """A notebook in format 4, whose "cells" are dicts. Raises BadInput for any other file."""
    if not os.path.isfile(path):
        raise BadInput(f"{path}: is not a regular file")
    try:
        if (size := os.path.getsize(path)) > UNREADABLE_BYTES:
            raise BadInput(f"{path}: holds {size / 1e6:.0f} MB, too much to be read")
        notebook = json.loads(path.read_bytes())
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{path}: is not JSON, or is cut short") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    written = notebook.get("nbformat") if isinstance(notebook, dict) else None
    if isinstance(written, int) and written != 4:
        raise BadInput(f"{path}: is in format {written}")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise BadInput(f"{path}: holds no list of cells")
    if written is None:
        raise BadInput(f"{path}: does not say its format (nbformat)")
    return notebook


def read_cells(path: Path) -> list[dict]:
    """Cells of a notebook. Raises BadInput as `load_notebook`."""
    return load_notebook(path)["cells"]


def outputs(cell: dict) -> list[dict]:
    """Outputs of a cell; none for a cell of markdown."""
    found = cell.get("outputs")
    return [out for out in found if isinstance(out, dict)] if isinstance(found, list) else []


def output_data(out: dict) -> dict:
    """What an output shows, by its kind; {} for what was printed."""
    data = out.get("data")
    return data if isinstance(data, dict) else {}


def texts(cell: dict) -> Iterator[str]:
    """The text that a cell has put out, errors excepted."""
    for out in outputs(cell):
        yield ANSI.sub("", joined(out.get("text")))
        for kind, value in output_data(out).items():
            if kind.startswith("text/"):
                yield joined(value)


def last_state(text: str) -> str:
    """What a terminal shows at the end of a text: of a progress bar its last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def printed_sha256(cells: list[dict], name: str) -> str | None:
    """The sha256 that a notebook last printed for the file `name`; None if it printed none."""
    pattern = re.compile(rf"^{re.escape(name)}:?[^\n]*\bsha256:?\s+([0-9a-f]{{64}})\b", re.I | re.M)
    hashes = [h for cell in cells for text in texts(cell) for h in pattern.findall(text)]
    return hashes[-1].lower() if hashes else None


def check_notebook(path: str | Path) -> list[Finding]:
    """Findings about a notebook: name, size, questions, execution, errors, figures, paths."""
    path = Path(path)
    findings = Findings(printable(path.name))
    if path.name != NOTEBOOK:
        found = f"the notebook is named {findings.file}"
        findings.add("notebook-name", found, NOTEBOOK, "rename it")
    try:
        notebook = load_notebook(path)
    except BadInput as error:
        found = str(error).removeprefix(f"{path}: ")
        mend = "save the executed notebook again in format 4 and copy the whole file"
        findings.add("unreadable", printable(found), "a Jupyter notebook, format 4", mend)
        return findings.all
    cells = notebook["cells"]
    if (size := os.path.getsize(path)) >= MAX_BYTES:
        mend = "save figures at a lower resolution and print less"
        findings.add("notebook-size", f"{size / 1e6:.1f} MB", "under 3 MB", mend)
    _check_questions(cells, findings)
    if _check_execution(cells, findings):
        _check_figures(cells, findings)
    _check_errors(cells, findings)
    _check_paths(notebook, findings)
    return findings.all


def _headings(cell: dict) -> list[int]:
    """Numbers of the questions that a markdown cell opens."""
    if cell.get("cell_type") != "markdown":
        return []
    return [int(n[:9]) for n in HEADING.findall(FENCE.sub("", joined(cell.get("source"))))]


def _check_questions(cells: list[dict], findings: Findings) -> None:
    order = list(dict.fromkeys(n for cell in cells for n in _headings(cell) if n in QUESTIONS))
    missing = [n for n in QUESTIONS if n not in order]
    if missing:
        found = "no heading for Question " + " and ".join(map(str, missing))
    elif order != sorted(order):
        found = "the questions come in the order " + ", ".join(map(str, order))
    else:
        return
    mend = "open each question with a markdown heading such as '## Question 1: …', in order"
    findings.add("questions", found, "the headings Question 1, Question 2, Question 3", mend)


def _check_execution(cells: list[dict], findings: Findings) -> bool:
    """Add what is wrong with the counts; False if the notebook holds no results at all."""
    code = [
        (place, cell)
        for place, cell in enumerate(cells, 1)
        if cell.get("cell_type") == "code" and joined(cell.get("source")).strip()
    ]
    counts = [cell.get("execution_count") for _, cell in code]
    left = [place for (place, _), count in zip(code, counts, strict=True) if count is None]
    executed = any(outputs(cell) for _, cell in code)
    mend = "restart the kernel, run all cells from top to bottom, save"
    if left or not executed:
        found = "no code cell has an output"
        if left:
            found = f"{len(left)} of {len(code)} code cells not executed, first cell {left[0]}"
        findings.add("not-executed", found, "every code cell executed, outputs saved", mend)
        return executed
    for expected, ((place, _), count) in enumerate(zip(code, counts, strict=True), 1):
        if type(count) is not int or count != expected:
            found = f"cell {place} has execution count {printable(repr(count), 20)}, not {expected}"
            findings.add("out-of-order", found, f"counts 1 to {len(code)} in one pass", mend)
            break
    return executed


def _check_errors(cells: list[dict], findings: Findings) -> None:
    for place, cell in enumerate(cells, 1):
        for out in outputs(cell):
            if out.get("output_type") == "error":
                error = printable(f"{joined(out.get('ename'))}: {joined(out.get('evalue'))}")
                mend = "correct the cell, restart the kernel and run all cells"
                findings.add("error-output", f"cell {place} ends in {error}", "no errors", mend)


def count_images(cells: list[dict]) -> dict[int, Shown]:
    """What is shown in each question that is opened, and in what comes before, 0; images to TEN."""
    question: int = 0
    found: dict[int, list[str]] = {0: []}
    for cell in cells:
        for opened in _headings(cell):
            question = opened if opened in QUESTIONS else question
            found.setdefault(question, [])
        for out in outputs(cell):
            found[question] += pictures({kind: joined(v) for kind, v in output_data(out).items()})
    return {question: show(encoded, TEN) for question, encoded in found.items()}


def _check_figures(cells: list[dict], findings: Findings) -> None:
    """Name questions without a figure that shows images; how many it shows is for `notes`."""
    shown = count_images(cells)
    before = shown.pop(0)
    empty = [
        f"Question {n}: {found.figures or 'no'} figure{'s' * (found.figures > 1)}"
        + ", without an image in what can be read" * (found.figures > 0)
        for n, found in sorted(shown.items())
        if not found.parts
    ]
    if empty or not (shown or before.parts):
        mend = "show the images with matplotlib (plt.show()) and save the notebook with its outputs"
        found = "; ".join(empty) or "no figure in the notebook"
        findings.add("figures", found, f"a figure of {TEN} images in each question", mend)


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, however deep."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            rest += value.values() if isinstance(value, dict) else value


def _check_paths(notebook: dict, findings: Findings) -> None:
    """Name absolute paths in sources, outputs and metadata."""
    where = [("metadata", _strings(notebook.get("metadata")))]
    for place, cell in enumerate(notebook["cells"], 1):
        strings = [joined(cell.get("source")), *texts(cell), *_strings(cell.get("metadata"))]
        where.append((f"cell {place}", iter(strings)))
    places: dict[str, str] = {}
    for place, strings in where:
        for match in MACHINE_PATH.findall("\n".join(strings)):
            places.setdefault(printable(match, 60), place)
    if places:
        shown = ", ".join(f"{text} ({place})" for text, place in list(places.items())[:3])
        found = shown + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        mend = "use paths relative to the notebook, run it again"
        findings.add("machine-path", found, "no path of your machine", mend)
