"""Call a benchmark's `main` as its command line does."""

from __future__ import annotations

from collections.abc import Callable

import typer
from typer.testing import CliRunner


def called(main: Callable[..., None], *arguments: object) -> str:
    """Return what `main` prints; whatever it raises goes on."""
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).output
