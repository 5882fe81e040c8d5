"""What a submission's notebook and References.md must be: each fault becomes one `Finding`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from nogaps.files import BadInput
from nogaps.submission.findings import ANSI, Finding, Findings, printable

NOTEBOOK = "Assessment.ipynb"
MAX_BYTES = 3_000_000
QUESTIONS = (1, 2, 3)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
HEADING = re.compile(r"^(?:#{1,6}\s|<h[1-6]).*?\bquestion\s*(\d+)", re.I | re.M)
# what precedes must not make it the middle of an address or of a relative path
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~}-])(?:file://)?/(?:home|root|Users|tmp|work|var/folders)/[^\s\"'`<>()\[\],;]*"
    r"|\b[A-Za-z]:(?:\\{1,2}|/)Users\b[^\s\"'`<>]*"
)
PLACEHOLDER = re.compile(
    r"\b(?:TODO|FIXME|TBD|XXX)\b|(?i:[\[<{](?:insert|your|fill|add|replace)\b[^\]>}\n]*[\]>}](?!\()"
    r"|lorem ipsum|\bto be (?:filled|added|completed)\b)"
)
OPEN_SECTION = re.compile(r"declaration|student", re.I)


def joined(value: object) -> str:
    """A notebook's text field: a string, or a list of its lines."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""


def read_cells(path: Path) -> list[dict]:
    """Cells of a notebook in format 4. Raises BadInput if it cannot be read or is another file."""
    if not os.path.isfile(path):
        raise BadInput(f"{path}: is not a regular file")
    try:
        notebook = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{path}: is not JSON, or is cut short") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise BadInput(f"{path}: holds no list of cells")
    return cells


def outputs(cell: dict) -> list[dict]:
    """Outputs of a cell; none for a cell of markdown."""
    found = cell.get("outputs")
    return [out for out in found if isinstance(out, dict)] if isinstance(found, list) else []


def _data(out: dict) -> dict:
    data = out.get("data")
    return data if isinstance(data, dict) else {}


def texts(cell: dict) -> Iterator[str]:
    """The text that a cell has put out, errors excepted."""
    for out in outputs(cell):
        yield ANSI.sub("", joined(out.get("text")))
        for kind, value in _data(out).items():
            if kind.startswith("text/"):
                yield joined(value)


def printed_sha256(path: Path, name: str) -> str | None:
    """The sha256 that the notebook last printed for the file `name`; None if it printed none."""
    try:
        cells = read_cells(path)
    except BadInput:
        return None
    pattern = re.compile(rf"^{re.escape(name)}:?[^\n]*\bsha256:?\s+([0-9a-f]{{64}})\b", re.I | re.M)
    hashes = [h for cell in cells for text in texts(cell) for h in pattern.findall(text)]
    return hashes[-1].lower() if hashes else None


def check_notebook(path: str | Path) -> list[Finding]:
    """Findings about a notebook: name, size, questions, execution, errors, figures, paths."""
    path = Path(path)
    findings = Findings(path.name)
    if path.name != NOTEBOOK:
        findings.add("notebook-name", f"the notebook is named {path.name}", NOTEBOOK, "rename it")
    try:
        size = path.stat().st_size
        if size >= MAX_BYTES:
            mend = "save figures at a lower resolution and print less"
            findings.add("notebook-size", f"{size / 1e6:.1f} MB", "under 3 MB", mend)
        cells = read_cells(path)
    except (BadInput, OSError) as error:
        found = str(error).removeprefix(f"{path}: ")
        mend = "save the executed notebook again and copy the whole file"
        findings.add("unreadable", printable(found), "a Jupyter notebook, format 4", mend)
        return findings.all
    _check_questions(cells, findings)
    if _check_execution(cells, findings):
        _check_figures(cells, findings)
    _check_errors(cells, findings)
    _check_paths(cells, findings)
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


def _check_figures(cells: list[dict], findings: Findings) -> None:
    question, figures = 0, dict.fromkeys((0, *QUESTIONS), 0)
    for cell in cells:
        question = next((n for n in reversed(_headings(cell)) if n in QUESTIONS), question)
        images = [out for out in outputs(cell) if any(k.startswith("image/") for k in _data(out))]
        figures[question] += len(images)
    opened = {n for cell in cells for n in _headings(cell)}
    empty = [n for n in QUESTIONS if n in opened and not figures[n]]
    if not empty and sum(figures.values()) >= len(QUESTIONS):
        return
    found = f"{sum(figures.values())} figures in all"
    found += f", none in Question {' and '.join(map(str, empty))}" if empty else ""
    mend = "show the images with matplotlib (plt.show()) and save the notebook with its outputs"
    findings.add("figures", found, "at least three, one or more in each question", mend)


def _check_paths(cells: list[dict], findings: Findings) -> None:
    places: dict[str, int] = {}
    for place, cell in enumerate(cells, 1):
        for text in (joined(cell.get("source")), *texts(cell)):
            for match in MACHINE_PATH.findall(text):
                places.setdefault(printable(match, 60), place)
    if places:
        shown = ", ".join(f"{text} (cell {place})" for text, place in list(places.items())[:3])
        found = shown + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        mend = "use paths relative to the notebook, run it again"
        findings.add("machine-path", found, "no path of your machine", mend)


def _closed_part(text: str) -> str:
    """`text` without the sections that are left open for the student's own declaration."""
    kept, inside = [], 0
    for line in text.splitlines():
        level = len(line) - len(line.lstrip("#"))
        if level and (not inside or level <= inside):
            inside = level if level > 1 and OPEN_SECTION.search(line) else 0
        kept += [] if inside else [line]
    return "\n".join(kept)


def check_references(path: str | Path) -> list[Finding]:
    """Findings about References.md: empty, without a link, or with a placeholder left in it."""
    path = Path(path)
    findings = Findings(path.name)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        found = printable(getattr(error, "strerror", None) or "not text in UTF-8")
        findings.add("unreadable", found, "a text file in UTF-8", "save it again as UTF-8")
        return findings.all
    if not text.strip():
        findings.add("references", "empty", "sources of ideas, code and data", "name your sources")
        return findings.all
    text = _closed_part(text)
    if not re.search(r"https?://\w|\bdoi\.org/|\b10\.\d{4,9}/\S", text):
        findings.add("references", "no link", "at least one link to a source", "add the links")
    if match := PLACEHOLDER.search(text):
        found = f"the placeholder {printable(match[0], 40)!r}"
        findings.add("references", found, "no placeholders", "fill it in or remove it")
    return findings.all
