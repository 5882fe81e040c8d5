"""What the README and the pages name is there. That their examples run, test_examples says."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_nothing_is_left_open() -> None:
    assert not re.search(r"@[A-Z_]+@", TEXT)
    assert not re.search(r"\bTODO\b", (ROOT / "References.md").read_text())
    for path in (ROOT / "nogaps").rglob("*.py"):
        assert not re.search(r"#.*\b(TODO|FIXME)\b", path.read_text()), path


def test_modules_stay_short() -> None:
    for path in Path(ROOT / "nogaps").rglob("*.py"):
        if path.name != "Assessment.py":
            assert len(path.read_text().splitlines()) <= 300, path
