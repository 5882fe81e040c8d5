"""The page around a notebook's cells: head, verdict, contents. Style and script stand inside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from nogaps.report.prose import Heading

DEEPEST = 3  # level of headings in the contents


def page(
    title: str, verdict: str, summary: str, headings: Sequence[Heading], body: str, made: str
) -> str:
    """The whole page. All arguments but `title` and `made` are HTML; the page loads nothing.

    Its policy allows one style and one script, by their sha256, and pictures inside the page:
    whatever else might slip through, a browser neither runs nor fetches it.
    """
    style, script = (_part(f"page.{kind}") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the notebook</a>
<div class="page">
<header>
<h1>{escape(title)}</h1>
{verdict}
</header>
{contents(headings, bool(summary))}
<main id="content">
{summary}
{body}
</main>
</div>
<footer>{escape(made)}</footer>
<script>{script}</script>
</body>
</html>
"""


def _part(name: str) -> str:
    return (files("nogaps.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def contents(headings: Sequence[Heading], summed_up: bool) -> str:
    """Links to the headings of a page, and the button that opens all code."""
    listed = [heading for heading in headings if heading.level <= DEEPEST]
    top = min((heading.level for heading in listed), default=1)
    if summed_up:
        listed.insert(0, Heading(top, "The run in numbers", "summary"))
    links = "".join(
        f'<li class="level-{one.level - top + 1}">'
        f'<a href="#{escape(one.anchor)}">{escape(one.text)}</a></li>'
        for one in listed
    )
    return (
        '<nav aria-label="Contents"><p class="label">Contents</p>'
        f'<ol>{links}</ol><button type="button" class="all-code" aria-pressed="false" hidden>'
        "Show all code</button></nav>"
    )


def verdict(row: Mapping | None, reason: str) -> str:
    """What `nogaps check` says of the folder: a badge, and every finding with its mend.

    row: of `submission.report`; None if the folder could not be checked, for this reason.
    """
    if row is None:
        return f'<p class="verdict"><span class="badge">not checked</span> {escape(reason)}</p>'
    if row["valid"]:
        return (
            '<p class="verdict"><span class="badge good">✓ valid</span> '
            "<code>nogaps check</code> finds nothing to mend in what is handed in.</p>"
        )
    count = len(row["findings"])
    items = "".join(
        f"<li><p><code>{escape(f['check'])}</code> <strong>{escape(f['file'])}:</strong> "
        f"{escape(f['found'])}; expected {escape(f['expected'])}.</p>"
        f'<p class="mend">To mend: {escape(f["mend"])}.</p></li>'
        for f in row["findings"]
    )
    return (
        '<p class="verdict"><span class="badge bad">✗ not valid</span> <code>nogaps check</code> '
        f'has {count} finding{"s" * (count > 1)}.</p><ol class="findings">{items}</ol>'
    )
