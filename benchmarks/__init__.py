"""Side-by-side measurements; each prints its table and writes JSON to benchmarks/results/."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from nogaps.runtime.errors import BadInput

PROFILES = ("smoke", "full")


def check_profile(profile: str) -> None:
    """Raise BadInput for a profile that the benchmarks do not have."""
    if profile not in PROFILES:
        raise BadInput(f"--profile {profile}: expected {' or '.join(PROFILES)}")


def run(main: Callable[..., None]) -> None:
    """Run a benchmark's `main` as a command: bad input is one line on stderr and exit code 2."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    try:
        app()
    except BadInput as error:
        print(f"{Path(sys.argv[0]).stem}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
