"""Options that several commands share, and how a command says its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from nogaps.runtime import processes
from nogaps.runtime.errors import BadInput
from nogaps.runtime.progress import is_quiet

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ProfileName = Annotated[str, typer.Option(help="auto, smoke, cpu or full.")]
RepoId = Annotated[str, typer.Argument(help="owner/name on the Hugging Face Hub.")]
Private = Annotated[
    bool, typer.Option("--private", help="Make the repository private if it is new.")
]
Branch = Annotated[str | None, typer.Option(help="Branch; made if it is not there.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before publishing.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def say(result: dict, as_json: bool, text: str) -> None:
    """Print a command's result for machines, or for people unless they asked for quiet.

    Of several processes one does.
    """
    if processes.is_leader() and (as_json or not is_quiet()):
        typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)


def confirm(repo_id: str, names: Sequence[str], private: bool) -> None:
    """Ask before files are published; without a terminal BadInput, as nobody can answer."""
    if not sys.stdin.isatty():
        raise BadInput(f"{repo_id}: {len(names)} files to publish, add --yes to do it unasked")
    where = f"the {'private' if private else 'public'} repository {repo_id}"
    typer.confirm(f"{', '.join(names)}\nUpload these to {where}?", abort=True, err=True)
