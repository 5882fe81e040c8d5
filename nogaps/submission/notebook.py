"""What a submission's notebook holds, and what it must be: each fault becomes one `Finding`."""

from __future__ import annotations

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
HEADING = re.compile(r"^(?:#{1,6}\s|<h[1-6]).*?\bquestion\s*([123])\b", re.I | re.M)
BASE64 = r"([A-Za-z0-9+/=\s]+)"
EMBEDDED = re.compile(rf"data:image/(?:png|jpe?g);base64,{BASE64}")
WIDGETS = "application/vnd.jupyter.widget-state+json"
# a line of code that is more than a comment
WORKING = re.compile(r"^[ \t]*[^\s#]", re.M)
OMITTED = (
    "in Colab, Edit → Notebook settings, switch off 'Omit code cell output when saving this"
    " notebook', run all cells, save"
)
# a worker that is cleaned up after its work prints one as well
TRACEBACK = re.compile(r"^(Exception ignored.*\n)?Traceback \(most recent call last\)", re.M)
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


def printed_sha256(cells: Sequence[NotebookNode], name: str) -> str | None:
    """Return the sha256 that the notebook printed last for the file `name`, if any."""
    pattern = re.compile(rf"^{re.escape(name)}:?[^\n]*\bsha256:?\s+([0-9a-f]{{64}})\b", re.I | re.M)
    hashes = [h for cell in cells for text in texts(cell) for h in pattern.findall(text)]
    return hashes[-1].lower() if hashes else None


def check_notebook(path: str | Path) -> list[Finding]:
    """Check a notebook: its name, format, questions, execution, outputs, figures, paths.

    Returns:
        The errors and notes, [] for a notebook that needs none.
    """
    path = Path(path)
    findings = Findings(path.name)
    if path.name != NOTEBOOK:
        findings.add("notebook-name", f"the notebook is named {findings.file}")
    try:
        notebook = load_notebook(path)
    except BadInput as error:
        fix = (
            "open it in Jupyter, save it (in format 4; if too large, without outputs that need much"
        )
        findings.add("unreadable", error.problem, error.expected, f"{fix}), copy the whole file")
        return findings
    if (size := path.stat().st_size) >= MAX_BYTES:
        findings.add("notebook-size", f"{size / 1e6:.1f} MB")
    widgets = notebook.metadata.get("widgets", {WIDGETS: ["state"]})
    if not isinstance(widgets, dict) or "state" not in (widgets.get(WIDGETS) or []):
        findings.add("widgets", "'state' is missing from metadata.widgets: GitHub shows nothing")
    _check_questions(notebook.cells, findings)
    _check_execution(notebook, findings)
    paths: dict[str, int] = {}
    for place, cell in enumerate(notebook.cells, 1):
        for output in outputs(cell):
            if output.output_type == "error":
                problem = f"cell {place} ends in {output.ename}: {output.evalue}"
                findings.add("error-output", problem)
        words = "\n".join(texts(cell))
        if any(not match[1] for match in TRACEBACK.finditer(words)):
            findings.add("traceback", f"cell {place} printed the traceback of an error")
        paths |= dict.fromkeys(MACHINE_PATH.findall(f"{cell.source}\n{words}"), place)
    if paths:
        listed = [f"{printable(path, 60)} (cell {place})" for path, place in paths.items()]
        more = [f"{len(listed) - 3} more"] * (len(listed) > 3)
        findings.add("machine-path", ", ".join(listed[:3] + more))
    return findings


def _is_executed(cell: NotebookNode) -> bool:
    """Return whether a code cell was executed; Colab may save it without its count."""
    info = cell.metadata.get("executionInfo")
    done = isinstance(info, dict) and info.get("status") == "ok"
    return cell.execution_count is not None or bool(outputs(cell)) or done


def _check_execution(notebook: NotebookNode, findings: Findings) -> None:
    """Check that the code cells were executed in one pass, and hold what the sheet asks for."""
    code = [(n, c) for n, c in enumerate(notebook.cells, 1) if c.cell_type == "code"]
    code = [(n, c) for n, c in code if WORKING.search(c.source) or _is_executed(c)]
    left = [place for place, cell in code if not _is_executed(cell)]
    colab = notebook.metadata.get("colab")
    omitted = OMITTED if isinstance(colab, dict) and colab.get("private_outputs") else ""
    counts = enumerate(((place, cell.execution_count) for place, cell in code), 1)
    wrong = [(place, n, right) for right, (place, n) in counts if n not in (None, right)]
    if left:
        count = f"{len(left)} of {len(code)} code cells not executed"
        findings.add("not-executed", f"{count}, first cell {left[0]}", fix=omitted)
    elif not any(outputs(cell) for _, cell in code):
        findings.add("no-outputs", "no code cell has an output", fix=omitted)
    elif wrong:
        findings.add("out-of-order", "cell {} has execution count {}, not {}".format(*wrong[0]))


def count_figures(cells: Sequence[NotebookNode]) -> dict[int, int]:
    """Count the outputs with an image in each question that is opened, and, as 0, before them."""
    question, counts = 0, {0: 0}
    for cell in cells:
        if cell.cell_type == "markdown":
            for number in HEADING.findall(cell.source):
                question = int(number)
                counts.setdefault(question, 0)
        for output in outputs(cell):
            drawn = any(kind.startswith("image/") for kind in shown(output))
            counts[question] += drawn or bool(pictures(output))
    return counts


def _check_questions(cells: Sequence[NotebookNode], findings: Findings) -> None:
    """Check that each question is opened, in order, and shows a figure; what, a marker sees."""
    counts = count_figures(cells)
    if (order := [n for n in counts if n]) != [1, 2, 3]:
        findings.add("questions", f"headings of questions: {order}")
    if not any(outputs(cell) for cell in cells):
        return
    empty = [f"Question {n}: no figure" for n, count in sorted(counts.items()) if n and not count]
    if empty or not any(counts.values()):
        findings.add("figures", "; ".join(empty) or "no figure in the notebook")
