"""Cells of a notebook as HTML: prose, code that folds away, outputs."""

from __future__ import annotations

import re
from html import escape

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from nogaps.report.figures import picture
from nogaps.report.prose import Prose
from nogaps.report.sources import gist, titles
from nogaps.submission.figures import ALL_PIXELS, pictures
from nogaps.submission.findings import ANSI
from nogaps.submission.notebook import joined, last_state, output_data, outputs

LONGEST = 20_000  # characters of one output, or of code, that are shown
COLUMNS = re.compile(r"\S {2,}\S")  # in several lines: a table, which is not to be wrapped
LANGUAGE, FORMAT = PythonLexer(), HtmlFormatter(nowrap=True)


class Body:
    """HTML of one notebook's cells, in order; counts the figures and code cells it has shown."""

    def __init__(self) -> None:
        self.prose = Prose()
        self.figures = self.code_cells = 0
        self._pixels = ALL_PIXELS

    def render(self, cell: dict) -> str:
        """One cell with its outputs; "" for an empty one."""
        source, kind = joined(cell.get("source")), cell.get("cell_type")
        if not source.strip() and not outputs(cell):
            return ""
        if kind == "markdown":
            return f'<div class="prose">{self.prose.render(source, _attachments(cell))}</div>'
        if kind != "code":
            return f"<pre>{escape(cut(source))}</pre>"
        self.code_cells += 1
        results = self._outputs(cell, source)
        return code(source, cell.get("execution_count")) + results

    def _outputs(self, cell: dict, source: str) -> str:
        found = [(out, _pictures(out)) for out in outputs(cell)]
        names, count = titles(source), sum(len(encoded) for _, encoded in found)
        if len(names) != count:  # drawn in a loop, or not all of them: which is which is not known
            names = [""] * count
        shown = []
        for out, encoded in found:
            shown += [self._figure(one, names.pop(0)) for one in encoded]
            shown += [] if encoded else [self._text(out)]
        return "".join(shown)

    def _figure(self, encoded: str, title: str) -> str:
        self.figures += 1
        headings = self.prose.headings
        known = title or (f"in “{headings[-1].text}”" if headings else "")
        name = f"Figure {self.figures}" + (f": {known}" if known else "")
        found, pixels = picture(encoded, name, self._pixels)
        self._pixels -= pixels
        if not found:
            return f'<p class="absent">[{escape(name)}: cannot be shown]</p>'
        return (
            f'<figure><div class="card">{found}</div>'
            f"<figcaption>{escape(name)}</figcaption></figure>"
        )

    def _text(self, out: dict) -> str:
        """An output that is no picture. HTML is never taken over: its plain form is shown."""
        kind, data = out.get("output_type"), output_data(out)
        if kind == "error":
            lines = out.get("traceback")
            named = f"{joined(out.get('ename'))}: {joined(out.get('evalue'))}"
            text = "\n".join(map(str, lines)) if isinstance(lines, list) else named
            return output(text or named, "error")
        if kind == "stream":
            return output(joined(out.get("text")), "log" if out.get("name") == "stderr" else "")
        if "text/markdown" in data:
            return f'<div class="prose">{self.prose.render(joined(data["text/markdown"]))}</div>'
        if "text/plain" in data:
            return output(joined(data["text/plain"]))
        kinds = ", ".join(sorted(map(str, data)))[:80]
        return f'<p class="absent">[output of kind {escape(kinds)}: not shown]</p>' if data else ""


def _pictures(out: dict) -> list[str]:
    return pictures({kind: joined(value) for kind, value in output_data(out).items()})


def _attachments(cell: dict) -> dict[str, str]:
    """The first picture of every attachment of a cell, in base64."""
    attached = cell.get("attachments")
    found = {}
    for name, kinds in attached.items() if isinstance(attached, dict) else ():
        values = [joined(value) for value in kinds.values()] if isinstance(kinds, dict) else []
        found |= {name: values[0]} if values else {}
    return found


def cut(text: str) -> str:
    """The start of a text that is too long, and how much is missing."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]}\n… {more} more characters in the notebook"


def output(text: str, kind: str = "") -> str:
    """A text that a cell has put out, as a terminal would have shown it at the end."""
    text = last_state(ANSI.sub("", text)).strip("\n")
    if not text.strip():
        return ""
    text = cut(text)
    table = sum(bool(COLUMNS.search(line)) for line in text.splitlines()) > 1
    classes = " ".join(["out", *kind.split(), *["columns"] * table])
    return f'<pre class="{classes}">{escape(text)}</pre>'


def code(source: str, count: object) -> str:
    """A code cell that is folded up, with what it defines, or its first line, to know it by."""
    lines = source.strip("\n").splitlines()
    number = f"[{count}]" if type(count) is int and abs(count) < 1e6 else "[ ]"
    text = "\n".join(lines)
    coloured = highlight(text, LANGUAGE, FORMAT) if len(text) <= LONGEST else escape(cut(text))
    return (
        f'<details class="code"><summary><span class="count">{number}</span>'
        f'<code class="gist">{escape(gist(source)[:200])}</code>'
        f'<span class="lines">{len(lines)} line{"s" * (len(lines) != 1)}</span></summary>'
        f'<pre class="source"><code>{coloured.rstrip()}</code></pre></details>'
    )
