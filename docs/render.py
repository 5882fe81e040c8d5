"""Write every measured number into the pages: `make docs`.

A page marks a number as `<!--n:NAME-->559<!--/n-->` and a table as `<!--table:NAME-->`, its lines
and `<!--/table-->`. What stands between is written anew from `benchmarks/results/`: numbers by
`docs/numbers.py`, tables by `docs/tables.py`. The reference and the imputer's model card are
written whole. The tests fail where this changes a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docs.numbers import FOLDER, NUMBERS, Results
from docs.reference import page as reference
from docs.tables import TABLES
from nogaps.imputers.hub import model_card
from nogaps.imputers.loading import SHIPPED, load_imputer
from nogaps.runtime.files import atomic

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference.md"
PRIOR = ROOT / "nogaps" / "weights" / "prior" / "README.md"
TWIN = ROOT / "nogaps" / "Assessment.py"  # its prose stands behind "# "
NUMBER = re.compile(r"(<!--n:(\w+)-->)[^<\n]*(<!--/n-->)")
TABLE = re.compile(r"^((?:# )?<!--table:(\w+)-->\n).*?^((?:# )?<!--/table-->)$", re.M | re.S)


def render(text: str, results: Results) -> str:
    """Return the text with its marked numbers and tables written anew.

    Args:
        text: A page, or the notebook's twin.
        results: What the benchmarks measured.

    Raises:
        KeyError: A name is not in NUMBERS or TABLES.
    """

    def table(match: re.Match) -> str:
        comment = "# " if match[1].startswith("# ") else ""
        lines = TABLES[match[2]](results).splitlines()
        return match[1] + "".join(f"{comment}{line}".rstrip() + "\n" for line in lines) + match[3]

    text = NUMBER.sub(lambda match: match[1] + NUMBERS[match[2]](results) + match[3], text)
    return TABLE.sub(table, text)


def card() -> str:
    """Return the model card of the shipped imputer."""
    return str(model_card(load_imputer(), SHIPPED, FOLDER / "imputers.json"))


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each page and what it should hold."""
    results = Results()
    yield SHIPPED / "README.md", card()
    yield REFERENCE, reference()
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), PRIOR, TWIN]:
        if path != REFERENCE:
            yield path, render(path.read_text("utf-8"), results)


def stale() -> dict[Path, str]:
    """Return the pages that `make docs` would change, and what they should hold."""
    return {
        path: text for path, text in pages() if not path.exists() or path.read_text("utf-8") != text
    }


def main() -> None:
    """Write the pages that are stale."""
    for path, text in stale().items():
        with atomic(path) as temporary:
            temporary.write_text(text, "utf-8")
        print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
