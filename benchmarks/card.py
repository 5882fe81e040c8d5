"""Write the model card beside the shipped imputer, from the results that lie here.

    python -m benchmarks.card --summary runs/full/summary.json

To be run after `benchmarks.imputers` and `benchmarks.uncertainty`; --summary keeps what the run of
the notebook that trained the weights says of itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness import run
from benchmarks.imputers import RESULTS
from nogaps.imputers.hub import SUMMARY, about_imputer
from nogaps.imputers.loading import SHIPPED, load_imputer
from nogaps.runtime.files import atomic, load_json, save_json
from nogaps.runtime.hub import CARD


def card_text(results: Path = RESULTS) -> str:
    """The card of the shipped imputer."""
    about = about_imputer(None, results)
    return str(load_imputer().generate_model_card(about))


def main(
    summary: Annotated[
        Path | None, typer.Option(help="summary.json of the run; else the one kept last time.")
    ] = None,
) -> None:
    """Write nogaps/weights/imputer/README.md."""
    if summary is not None:
        save_json(SHIPPED / SUMMARY, load_json(summary))
    with atomic(SHIPPED / CARD) as temporary:
        temporary.write_text(card_text())
    print(f"{SHIPPED / CARD}: written")


if __name__ == "__main__":
    run(main)
