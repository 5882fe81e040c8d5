"""Call a benchmark's `main` as its command line does."""

from __future__ import annotations

import re
from collections.abc import Callable

import typer
from typer.testing import CliRunner


def called(main: Callable[..., None], *arguments: object) -> str:
    """Return what `main` prints, each run of spaces as one; whatever it raises goes on."""
    app = typer.Typer()
    app.command()(main)
    text = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).output
    return re.sub(" +", " ", text)
