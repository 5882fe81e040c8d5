"""What a submission's References.md should be: a text that links its sources."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nogaps.submission.findings import Finding, Findings

REFERENCES = "References.md"
MAX_BYTES = 1_000_000
LINK = re.compile(r"https?://\w|\bdoi\.org/|\b10\.\d{4,9}/\S")


def check_references(path: str | Path) -> list[Finding]:
    """Check References.md: text in UTF-8 that links its sources."""
    path = Path(path)
    findings = Findings(path.name)
    try:
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise ValueError(f"{size / 1e6:.1f} MB, too large for a list of sources")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        findings.add("unreadable", str(error), "text in UTF-8", "save it as UTF-8")
        return findings
    if not LINK.search(text):
        findings.add("references", "no link to a source")
    return findings
