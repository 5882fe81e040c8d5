"""From the notebook in a folder to the file report.html."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

from nogaps import submission
from nogaps.report.cells import Body
from nogaps.report.page import page, verdict
from nogaps.report.summary import summary
from nogaps.runtime.files import BadInput, atomic, sha256
from nogaps.submission.notebook import NOTEBOOK, outputs, read_cells, texts
from nogaps.verifying import printed_summary
from nogaps.version import __version__

REPORT = "report.html"
MAX_BYTES, MAX_CELLS = 30_000_000, 2_000  # of a notebook that becomes a page
LAST = 100_000  # characters of output in which the summary is looked for
EXPECTED = "expected an executed notebook"


def write_report(
    source: Path, output: Path | None = None, test_set: Path | None = None
) -> dict[str, object]:
    """Write a notebook, or that of a folder, as one page of HTML; the same bytes every time.

    output: else report.html beside it; test_set: for the check, else the one beside it. Returns
    {"report", "bytes", "figures", "code_cells", "valid", "check", "findings"}; "valid" is None
    where the folder cannot be checked, "check" says why. Raises BadInput if the notebook is
    missing, damaged, too large or not executed, or the page cannot be written.
    """
    path = _notebook(source)
    output = output or path.with_name(REPORT)
    if output.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"{output}: is no name for the page, expected one that ends in .html")
    cells = _read(path)
    body = Body()
    shown = "\n".join(filter(None, map(body.render, cells)))
    row, reason = _check(path, test_set)
    found = printed_summary("\n".join(text for cell in cells for text in texts(cell))[-LAST:])
    made = f"Made by nogaps {__version__} from {path.name}, sha256 {sha256(path)}"
    html = page(
        title=body.prose.title or path.stem,
        verdict=_counts(path, body) + verdict(row, reason),
        summary=_section(summary(found)) if found else "",
        headings=body.prose.headings,
        body=shown,
        made=made,
    ).encode("utf-8", "replace")
    with atomic(output) as temporary:
        temporary.write_bytes(html)
    findings = row["findings"] if row else []
    valid = row["valid"] if row else None
    faults = f"{len(findings)} finding{'s' * (len(findings) != 1)}"
    said = {True: "valid", False: f"NOT VALID, {faults}"}.get(valid)
    return {
        "report": output,
        "bytes": len(html),
        "figures": body.figures,
        "code_cells": body.code_cells,
        "valid": valid,
        "check": said or f"not checked: {reason}",
        "findings": findings,
    }


def _notebook(source: Path) -> Path:
    if os.path.isdir(source):
        name = submission.notebook_of(source)
        if name is None:
            raise BadInput(f"{source}: holds no {NOTEBOOK}, {EXPECTED}")
        return source / name
    if not os.path.lexists(source):
        raise BadInput(f"{source}: not found, {EXPECTED}")
    return source


def _read(path: Path) -> list[dict]:
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES and os.path.isfile(path):
            raise BadInput(f"{path}: holds {size / 1e6:.0f} MB")
        cells = read_cells(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}), {EXPECTED}") from error
    except BadInput as error:
        raise BadInput(f"{error}, {EXPECTED} of at most {MAX_BYTES // 10**6} MB") from error
    if len(cells) > MAX_CELLS:
        raise BadInput(f"{path}: holds {len(cells)} cells, expected at most {MAX_CELLS}")
    if not any(outputs(cell) for cell in cells):
        raise BadInput(f"{path}: holds no output of any cell, {EXPECTED}: `nogaps run` does it")
    return cells


def _check(path: Path, test_set: Path | None) -> tuple[dict | None, str]:
    """The row of `submission.report` for the notebook's folder; None and the reason without one."""
    folder = path.parent
    if submission.notebook_of(folder) != path.name:
        return None, f"the folder's {NOTEBOOK} is another notebook, or it holds several"
    try:
        (row,) = submission.report([folder], test_set)
    except BadInput as error:
        if test_set:
            raise
        # the page is for others, to whom this machine's folders say nothing
        return None, str(error).replace(f"{folder}{os.sep}", "")
    return row, ""


def _counts(path: Path, body: Body) -> str:
    return (
        f'<p class="byline">{escape(path.name)}: {body.code_cells} code cells, '
        f"{body.figures} figures</p>"
    )


def _section(content: str) -> str:
    heading = '<h2 id="summary">The run in numbers</h2>'
    return f'<section class="summary" aria-labelledby="summary">{heading}{content}</section>'
