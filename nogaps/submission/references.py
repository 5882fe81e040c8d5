"""What a submission's References.md must be: sources named, nothing left of a template."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nogaps.submission.findings import Finding, Findings, printable

REFERENCES = "References.md"
MAX_BYTES = 1_000_000
PLACEHOLDER = re.compile(
    r"\b(?:TODO|FIXME|TBD|XXX)\b"
    r"|(?i:[\[<{](?:insert|your|fill|add|replace)\b[^\]>}\n]{0,200}[\]>}](?!\()"
    r"|lorem ipsum|\bto be (?:filled|added|completed)\b)"
)
LINK = re.compile(r"https?://\w|\bdoi\.org/|\b10\.\d{4,9}/\S")
UNDERLINED = re.compile(r"^(?=\S)([^\n#]+)\n(=+|-{2,})[ \t]*$", re.M)
OPEN_SECTION = re.compile(r"declaration|student", re.I)


def check_references(path: str | Path) -> list[Finding]:
    """Check References.md: it must be text in UTF-8 with a link and without a placeholder.

    Returns:
        The findings, [] for a valid file. Sections for the student's own declaration may be open.
    """
    path = Path(path)
    findings = Findings(path.name)
    try:
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise ValueError(f"{size / 1e6:.1f} MB, too large for a list of sources")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        problem = printable(str(error))
        findings.add("unreadable", problem, "a text file in UTF-8", "save it again as UTF-8")
        return findings
    closed = _closed_part(text)
    if not text.strip():
        findings.add("references", "empty", "sources of ideas, code and data", "name your sources")
    elif not LINK.search(closed):
        findings.add("references", "no link", "at least one link to a source", "add the links")
    if match := PLACEHOLDER.search(closed):
        problem = f"the placeholder {printable(match[0], 40)!r}"
        findings.add("references", problem, "no placeholders", "fill it in or remove it")
    return findings


def _closed_part(text: str) -> str:
    """Return `text` without the sections that are left open for the student's own declaration."""
    text = UNDERLINED.sub(lambda match: f"{'#' if match[2][0] == '=' else '##'} {match[1]}", text)
    kept, inside, title = [], 0, True
    for line in text.splitlines():
        level = len(line) - len(line.lstrip("#"))
        if level and (not inside or level <= inside):
            inside = level if not title and OPEN_SECTION.search(line) else 0
        title = title and not level
        kept += [] if inside else [line]
    return "\n".join(kept)
