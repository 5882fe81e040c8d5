"""Examples in README, docs and docstrings run."""

from __future__ import annotations

import doctest
import re
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from docs import reference

# every box of the README; in docs those after this mark: others need what takes hours to make
RUNS = re.compile(r"<!-- runs -->\n```python\n(.*?)```", re.S)
ANY = re.compile(r"```python\n(.*?)```", re.S)
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BOXES = {
    page: (ANY if page.name == "README.md" else RUNS).findall(page.read_text()) for page in PAGES
}
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "nogaps").rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text(), re.M)
]


@pytest.mark.parametrize("page", [p for p, boxes in BOXES.items() if boxes], ids=lambda p: p.name)
def test_boxes_run_as_pasted(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "test_set.npy", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for box in BOXES[page]:
        exec(compile(box, page.name, "exec"), names)
    y, x_hat = (np.asarray(names[name]) for name in ("y", "x_hat"))
    seen = y[: len(x_hat)] != 0
    assert np.array_equal(x_hat[seen], y[: len(x_hat)][seen])


def test_there_are_examples() -> None:
    assert BOXES[ROOT / "README.md"] and BOXES[ROOT / "docs" / "reference.md"]
    assert {"nogaps", "nogaps.api", "nogaps.masks"} <= {*MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_run(name: str) -> None:
    found = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed


def test_markdown_shows_what_a_docstring_says() -> None:
    """The rest of what `prose` does shows in docs/reference.md, which is compared with the code."""
    text = "f(a*y + b) = a*f(y) in [0,1], `x_hat*2`, <b>."
    assert reference.prose(text) == "f(a\\*y + b) = a\\*f(y) in [0,1], `x_hat*2`, \\<b>."
