"""The command. Heavy imports stay inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nogaps.commands.options import Json, say


def report(
    notebook: Annotated[Path, typer.Argument(metavar="[NOTEBOOK_OR_FOLDER]")] = Path("."),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Else report.html beside the notebook.")
    ] = None,
    test_set: Annotated[
        Path | None, typer.Option(help="For the check; else the test_set.npy of the folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the executed notebook as one HTML page, with its results and what `check` finds.

    The page needs no network and runs nothing of the notebook's. Exit 1 if `check` finds a fault.

    Example: nogaps report . -o report.html
    """
    from nogaps.report.writing import write_report

    found = write_report(notebook, output, test_set)
    text = f"{found['report']}: written, {found['bytes'] / 1e6:.1f} MB, {found['check']}"
    say(found, as_json, text)
    raise typer.Exit(1 if found["findings"] else 0)
