"""What the README shows runs as pasted, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(code, names)
    y, mask, x_hat = (names[name] for name in ("y", "mask", "x_hat"))
    assert torch.equal(x_hat[mask.expand_as(y)], y[mask.expand_as(y)])


def test_nothing_is_left_open() -> None:
    assert not re.search(r"@[A-Z_]+@", TEXT)
    assert not re.search(r"\bTODO\b", (ROOT / "References.md").read_text())
    for path in (ROOT / "nogaps").rglob("*.py"):
        assert not re.search(r"#.*\b(TODO|FIXME)\b", path.read_text()), path


def test_modules_stay_short() -> None:
    for path in Path(ROOT / "nogaps").rglob("*.py"):
        if path.name != "Assessment.py":
            assert len(path.read_text().splitlines()) <= 300, path
