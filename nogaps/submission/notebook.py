"""What a submission's notebook must be: each fault becomes one `Finding`."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import open_regular, parsing
from nogaps.submission.findings import ANSI, Finding, Findings, printable

NOTEBOOK = "Assessment.ipynb"
EXPECTED = "a Jupyter notebook in format 4"
MAX_BYTES, UNREADABLE_BYTES = 3_000_000, 100_000_000
QUESTIONS = (1, 2, 3)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
HEADING = re.compile(r"^(?:#{1,6}\s|<h[1-6]).*?\bquestion\s*(\d+)", re.I | re.M)
BASE64 = r"([A-Za-z0-9+/=\s]+)"
EMBEDDED = re.compile(rf"data:image/(?:png|jpe?g);base64,{BASE64}")
# what precedes must not make it the middle of an address or of a relative path
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~}-])(?:file://)?/(?:home|root|Users|tmp|work|var/folders|private|mnt|media|Volumes|scratch|rds|vol)/[^\s\"'`<>()\[\],;]*"
    r"|\b[A-Za-z]:(?:\\{1,2}|/)Users\b[^\s\"'`<>]*"
)


def load_notebook(path: Path) -> NotebookNode:
    """Read a notebook.

    Returns:
        The notebook, valid by the schema of its format but for unknown fields.

    Raises:
        BadInput: The file is missing, too large, damaged, or not a notebook in format 4.
    """
    with open_regular(path) as file, parsing(path, EXPECTED), warnings.catch_warnings():
        if (size := os.fstat(file.fileno()).st_size) > UNREADABLE_BYTES:
            limit = f"a notebook of at most {UNREADABLE_BYTES / 1e6:.0f} MB"
            raise BadInput(f"has {size / 1e6:.0f} MB", limit, path=path)
        warnings.simplefilter("ignore")  # of cells without an id, which older programs write
        notebook = nbformat.reader.reads(file.read().decode("utf-8-sig"))
        if notebook.get("nbformat") != 4:
            written = notebook.get("nbformat", "an unknown format")
            raise BadInput(f"is in format {written}", EXPECTED, path=path)
        nbformat.validate(notebook, relax_add_props=True)
    return notebook


def outputs(cell: NotebookNode) -> list[NotebookNode]:
    """Return the outputs of a cell; a cell of text has none."""
    return cell.get("outputs", [])


def shown(output: NotebookNode) -> dict[str, str]:
    """Return the texts that an output shows, by their media type; {} for a printed one."""
    data = output.get("data", {})
    return {kind: value for kind, value in data.items() if isinstance(value, str)}


def texts(cell: NotebookNode) -> Iterator[str]:
    """Yield the texts that a cell printed or showed, but not those of errors."""
    for output in outputs(cell):
        if output.output_type == "stream":
            yield ANSI.sub("", output.text)
        yield from (text for kind, text in shown(output).items() if kind.startswith("text/"))


def pictures(output: NotebookNode) -> list[str]:
    """Return the PNG and JPEG images that an output shows, in base64."""
    images = []
    for kind, text in shown(output).items():
        if kind in ("image/png", "image/jpeg"):
            images += re.findall(rf"\A{BASE64}\Z", text)
        elif kind in ("text/html", "image/svg+xml"):
            images += EMBEDDED.findall(text)
    return images


def last_state(text: str) -> str:
    """Return what a terminal shows of a text in the end: of a progress bar its last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def printed_sha256(cells: Sequence[NotebookNode], name: str) -> str | None:
    """Return the sha256 that the notebook printed last for the file `name`, if any."""
    pattern = re.compile(rf"^{re.escape(name)}:?[^\n]*\bsha256:?\s+([0-9a-f]{{64}})\b", re.I | re.M)
    hashes = [h for cell in cells for text in texts(cell) for h in pattern.findall(text)]
    return hashes[-1].lower() if hashes else None


def check_notebook(path: str | Path) -> list[Finding]:
    """Check a notebook: its name, size, questions, execution, errors, figures, paths.

    Returns:
        The findings, [] for a valid notebook.
    """
    path = Path(path)
    findings = Findings(printable(path.name))
    if path.name != NOTEBOOK:
        findings.add("notebook-name", f"the notebook is named {findings.file}")
    try:
        notebook = load_notebook(path)
    except BadInput as error:
        fix = "save the executed notebook again in format 4 and copy the whole file"
        findings.add("unreadable", printable(error.problem, 120), EXPECTED, fix)
        return findings
    if (size := path.stat().st_size) >= MAX_BYTES:
        findings.add("notebook-size", f"{size / 1e6:.1f} MB")
    _check_questions(notebook.cells, findings)
    _check_execution(notebook.cells, findings)
    if any(outputs(cell) for cell in notebook.cells):
        _check_figures(notebook.cells, findings)
    for place, cell in enumerate(notebook.cells, 1):
        for output in outputs(cell):
            if output.output_type == "error":
                error = printable(f"{output.ename}: {output.evalue}")
                findings.add("error-output", f"cell {place} ends in {error}")
    _check_paths(notebook, findings)
    return findings


def _headings(cell: NotebookNode) -> list[int]:
    """Return the numbers of the questions that a cell of text opens."""
    if cell.cell_type != "markdown":
        return []
    numbers = [int(n[:9]) for n in HEADING.findall(FENCE.sub("", cell.source))]
    return [n for n in numbers if n in QUESTIONS]


def _check_questions(cells: Sequence[NotebookNode], findings: Findings) -> None:
    order = list(dict.fromkeys(n for cell in cells for n in _headings(cell)))
    missing = [str(n) for n in QUESTIONS if n not in order]
    if missing:
        findings.add("questions", f"no heading for Question {' and '.join(missing)}")
    elif order != sorted(order):
        findings.add("questions", f"the questions come in the order {', '.join(map(str, order))}")


def _check_execution(cells: Sequence[NotebookNode], findings: Findings) -> None:
    """Check that the code cells were executed, from top to bottom in one pass."""
    code = [(n, c) for n, c in enumerate(cells, 1) if c.cell_type == "code" and c.source.strip()]
    left = [place for place, cell in code if cell.execution_count is None]
    if left:
        count = f"{len(left)} of {len(code)} code cells not executed"
        findings.add("not-executed", f"{count}, first cell {left[0]}")
    elif not any(outputs(cell) for _, cell in code):
        findings.add("not-executed", "no code cell has an output")
    else:
        for expected, (place, cell) in enumerate(code, 1):
            if (count := cell.execution_count) != expected:
                problem = f"cell {place} has execution count {count}, not {expected}"
                findings.add("out-of-order", problem)
                return


def count_figures(cells: Sequence[NotebookNode]) -> dict[int, int]:
    """Count the outputs with an image in each question that is opened, and, as 0, before them."""
    question, counts = 0, {0: 0}
    for cell in cells:
        for question in _headings(cell):
            counts.setdefault(question, 0)
        for output in outputs(cell):
            drawn = any(kind.startswith("image/") for kind in shown(output))
            counts[question] += drawn or bool(pictures(output))
    return counts


def _check_figures(cells: Sequence[NotebookNode], findings: Findings) -> None:
    """Check that every question shows a figure; what it shows is for the marker to see."""
    counts = count_figures(cells)
    empty = [f"Question {n}: no figure" for n, count in sorted(counts.items()) if n and not count]
    if empty or not any(counts.values()):
        findings.add("figures", "; ".join(empty) or "no figure in the notebook")


def _check_paths(notebook: NotebookNode, findings: Findings) -> None:
    """Check that sources, outputs and metadata hold no absolute paths."""
    contents = {"metadata": _as_json(notebook.metadata)}
    for place, cell in enumerate(notebook.cells, 1):
        contents[f"cell {place}"] = "\n".join([cell.source, *texts(cell), _as_json(cell.metadata)])
    places: dict[str, str] = {}
    for place, text in contents.items():
        for match in MACHINE_PATH.findall(text):
            places.setdefault(printable(match, 60), place)
    if places:
        listed = ", ".join(f"{path} ({place})" for path, place in list(places.items())[:3])
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        findings.add("machine-path", listed + more)


def _as_json(metadata: NotebookNode) -> str:
    """Return metadata as text whose lines are those of its strings."""
    return json.dumps(metadata, ensure_ascii=False).replace("\\n", "\n")
