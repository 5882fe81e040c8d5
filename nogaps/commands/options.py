"""What commands share: options, how they end, and how they print their results."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nogaps.commands import signals
from nogaps.runtime import processes
from nogaps.runtime.errors import BadInput
from nogaps.runtime.progress import is_quiet

Json = Annotated[bool, Option("--json", help="Print the result as JSON.")]
ProfileName = Annotated[str, Option(help="auto, smoke, cpu or full.")]
Seed = Annotated[int, Option(help="Seed of everything random.")]
ModelPath = Annotated[
    Path | None, Option(help="Run folder, .safetensors or Hub id; else the shipped imputer.")
]
PriorPath = Annotated[
    str | None, Option(help="Diffusers folder or Hub id; else the shipped prior.")
]
Revision = Annotated[str | None, Option(help="Revision of a Hub id.")]
TestSet = Annotated[Path | None, Option(help="Else the test_set.npy of the folder.")]
RepoId = Annotated[str, Argument(help="owner/name on the Hugging Face Hub.")]
Private = Annotated[bool, Option("--private", help="Make the repository private if it is new.")]
Branch = Annotated[str | None, Option(help="Branch; made if it is missing.")]
Yes = Annotated[bool, Option("--yes", help="Do not ask before publishing.")]


def command(
    advice: str = signals.STARTS_AGAIN, shared: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command.

    Args:
        advice: What the same command does after a signal has ended it.
        shared: Whether several processes may share its work.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def call(*arguments: object, **options: object) -> None:
            signals.advice = advice
            if not shared:
                processes.refuse_several(function.__name__.replace("_", "-"))
            function(*arguments, **options)

        return call

    return declare


def say(result: dict, as_json: bool, text: str) -> None:
    """Print a command's result for machines, or for people unless --quiet was given.

    Of several processes, process 0 does.
    """
    if processes.is_main() and (as_json or not is_quiet()):
        typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)


def confirm(repo_id: str, names: Sequence[str], private: bool) -> None:
    """Ask before files are published; raise BadInput without a terminal, as nobody can answer."""
    if not sys.stdin.isatty():
        raise BadInput(f"{repo_id}: {len(names)} files to publish, add --yes to do it unasked")
    place = f"the {'private' if private else 'public'} repository {repo_id}"
    typer.confirm(f"{', '.join(names)}\nUpload these to {place}?", abort=True, err=True)
