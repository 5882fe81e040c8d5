"""`nogaps report`: the notebook in a folder as one page of HTML, with the run in numbers on top."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from nbformat import NotebookNode

from nogaps import submission
from nogaps.runtime.errors import BadInput, require
from nogaps.runtime.files import atomic, sha256
from nogaps.submission.findings import reason_of
from nogaps.submission.notebook import NOTEBOOK, load_notebook, outputs, pictures, shown, texts
from nogaps.version import __version__

LAST = 100_000  # characters of output in which the summary is looked for
EXPECTED = "an executed notebook"
LARGEST = 1e12  # greater numbers do not come from a run


def write_report(
    source: Path, output: Path | None = None, test_set: Path | None = None
) -> dict[str, object]:
    """Write a notebook as one page of HTML; the same files give the same bytes.

    Args:
        source: The notebook, or its folder.
        output: The page; else report.html beside the notebook.
        test_set: For the check; else the test_set.npy beside the notebook.

    Returns:
        {"report", "bytes", "figures", "code_cells", "valid", "check", "findings"}; "valid" is None
        where the folder cannot be checked, and "check" says why.

    Raises:
        BadInput: The notebook is missing, damaged, too large or not executed, the test set cannot
            be used, the page cannot be written, or nbconvert is not installed.
    """
    path = source
    if os.path.isdir(source):
        if (name := submission.notebook_of(source)) is None:
            raise BadInput(f"has no {NOTEBOOK}", EXPECTED, path=source)
        path = source / name
    output = output or path.with_name("report.html")
    if output.suffix.lower() not in (".html", ".htm"):
        raise BadInput("is not a name for the page", "one that ends in .html", path=output)
    notebook = load_notebook(path)
    if not any(outputs(cell) for cell in notebook.cells):
        raise BadInput("has no outputs", f"{EXPECTED}: `nogaps run` executes it", path=path)
    row, reason = _check(path, test_set)
    code_cells = sum(c.cell_type == "code" and bool(c.source.strip()) for c in notebook.cells)
    html = _render(
        notebook,
        file=path.name,
        name=path.stem,
        row=row,
        reason=reason,
        code_cells=code_cells,
        made=f"Made by nogaps {__version__} from {path.name}, sha256 {sha256(path)}",
    ).encode("utf-8", "replace")
    with atomic(output) as temporary:
        temporary.write_bytes(html)
    return {
        "report": output,
        "bytes": len(html),
        "figures": sum(len(pictures(out)) for cell in notebook.cells for out in outputs(cell)),
        "code_cells": code_cells,
        "valid": row["valid"] if row else None,
        "check": submission.verdict(row) if row else f"not checked: {reason}",
        "findings": row["findings"] if row else [],
    }


def _check(path: Path, test_set: Path | None) -> tuple[dict | None, str]:
    """Return the row of `submission.report` for the notebook's folder; None and why without."""
    folder = path.parent
    if submission.notebook_of(folder) != path.name:
        return None, f"the folder's {NOTEBOOK} is another notebook, or it has several"
    try:
        (row,) = submission.report([folder], test_set)
    except BadInput as error:
        if test_set:
            raise
        return None, reason_of(error)  # to readers of the page, this machine's folders say nothing
    return row, ""


def _render(notebook: NotebookNode, **page: object) -> str:
    """Fill page.html.j2 with a notebook and what is known of it."""
    require("notebook", "nbconvert")
    from nbconvert import HTMLExporter

    from nogaps.report import cells

    template, style, script = (
        (files("nogaps.report") / f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("html.j2", "css", "js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    printed = "\n".join(text for cell in notebook.cells for text in texts(cell))
    values = _printed_summary(printed[-LAST:])
    page |= {"style": style, "script": script, "policy": policy}
    page |= {"summary": summarize(values) if values else None}
    prose = cells.Prose()
    names = (cells.terminal, cells.has_columns, cells.coloured, cells.cut, cells.gist)
    filters = {function.__name__: function for function in (*names, shown, pictures)}
    filters |= {"prose": prose.render, "captions": prose.captions}
    exporter = HTMLExporter(raw_template=template, template_paths=[], filters=filters)
    exporter.environment.globals["prose_of_page"] = prose
    html, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    return html


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _printed_summary(text: str) -> dict:
    """Return the last JSON object with a profile in what a notebook printed; {} without one."""
    summary: dict = {}
    for match in re.finditer(r"^\{", text, re.M):
        with contextlib.suppress(ValueError, RecursionError):
            value, _ = json.JSONDecoder().raw_decode(text, match.start())
            summary = value if "profile" in value else summary
    return summary


def summarize(values: Mapping) -> dict[str, dict | list]:
    """Sort the summary that a notebook printed into texts for the tables of the page.

    Returns:
        "facts" and "times" by name; "scores", a row for each filling below the head; "files":
        name, what else is known, sha256.
    """
    facts, scores, times, files = {}, {}, {}, []
    for key, value in values.items():
        if not isinstance(value, dict):
            facts[key] = words(value)
        elif "sha256" in value:
            details = [words(entry) for name, entry in value.items() if name != "sha256"]
            files.append((key, ", ".join(details), words(value["sha256"])))
        elif key == "seconds" and _are_numbers(value):
            times |= {name: duration(seconds) for name, seconds in value.items()}
        elif value and key.startswith("hole ") and _are_numbers(value):
            scores[key] = value
        else:
            facts |= {f"{key}, {name}": words(entry) for name, entry in value.items()}
    names = dict.fromkeys(name for column in scores.values() for name in column)
    columns = [_aligned([column.get(name) for name in names]) for column in scores.values()]
    rows = [["filling", *scores], *zip(names, *columns, strict=True)] if scores else []
    return {"facts": facts, "scores": rows, "times": times, "files": files}


def _are_numbers(values: Mapping) -> bool:
    return all(type(n) in (int, float) and abs(n) < LARGEST for n in values.values())


def _aligned(values: Sequence[float | None]) -> list[str]:
    """Write numbers with as many decimals as the one that has most; "" for none."""
    decimals = max(len(str(value).partition(".")[2]) for value in values)
    return ["" if value is None else f"{value:.{min(decimals, 6)}f}" for value in values]


def duration(seconds: float) -> str:
    """Return seconds as people say them: "42 min 20 s"."""
    if not 0 <= seconds < 1e8:
        return words(seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def words(value: object) -> str:
    """Return a scalar, or the shape of an array, for people."""
    if isinstance(value, list):
        return " × ".join(words(part) for part in value[:8] if not isinstance(part, (list, dict)))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return (f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value))[:200]
