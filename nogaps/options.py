"""Options that several commands share, and how a command says its result."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nogaps import processes

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ProfileName = Annotated[str, typer.Option(help="auto, smoke, cpu or full.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def say(result: dict, as_json: bool, text: str) -> None:
    """Print a command's result for people, or for machines; of several processes one does."""
    if processes.is_leader():
        typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)
