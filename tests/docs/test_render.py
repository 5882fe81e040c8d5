"""The numbers in the pages are those that the benchmarks wrote."""

from __future__ import annotations

import pytest

from docs import render
from docs.numbers import Results


def test_no_page_is_stale() -> None:
    assert not render.stale(), "run: make docs"


def test_marked_numbers_and_tables_are_written_anew() -> None:
    text = "A <!--n:best_val-->0<!--/n--> B\n<!--table:masks-->\nold\n<!--/table-->\nC"
    page = render.render(text, Results())
    best = f"{Results().score('ours, best', 'val'):.2f}"
    assert page.startswith(f"A <!--n:best_val-->{best}<!--/n--> B\n<!--table:masks-->\n| mask")
    assert "old" not in page and page.endswith("|\n<!--/table-->\nC")
    commented = render.render("# <!--table:masks-->\n# <!--/table-->", Results())
    assert all(line.startswith("# ") for line in commented.splitlines())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        render.render("<!--n:nothing-->0<!--/n-->", Results())
