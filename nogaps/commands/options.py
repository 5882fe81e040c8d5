"""What commands share: options, how signals end them, and how they print their results.

SIGINT, SIGTERM and SIGHUP end a command: its clean-up runs, and the exit code is 128 + n.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nogaps.runtime import processes, progress
from nogaps.runtime.errors import BadInput

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

STARTS_AGAIN = "the same command starts again"
CONTINUES = "the same command continues where it stopped"
SAVED = "the same command continues from its last state, at most 5 minutes old"
received = 0  # the number of the signal, if one came
advice = STARTS_AGAIN  # what a repeated call of the running command does


def catch_signals() -> None:
    """Raise SystemExit in the main thread at the first signal; the second ends the process.

    Signals that are ignored, as under nohup and in the background of scripts, stay ignored.
    """
    global received, advice
    received, advice = 0, STARTS_AGAIN
    for number in signal.Signals:  # Windows has no SIGHUP
        known = number.name in ("SIGINT", "SIGTERM", "SIGHUP")
        if known and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def _handle(number: int, _frame: object) -> None:
    global received
    if received:
        os._exit(128 + number)
    received = number
    raise SystemExit(128 + number)


def command(
    repeated: str = STARTS_AGAIN, shared: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command.

    Args:
        repeated: What the same command does after a signal has ended it.
        shared: Whether several processes may share its work.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def call(*arguments: object, **options: object) -> None:
            global advice
            advice = repeated
            if not shared:
                processes.refuse_several(function.__name__.replace("_", "-"))
            function(*arguments, **options)

        return call

    return declare


def say(result: dict, as_json: bool, text: str) -> None:
    """Print a command's result for machines, or for people unless --quiet was given.

    Of several processes, process 0 does.
    """
    if processes.is_main() and (as_json or not progress.quiet):
        typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)


def confirm(repo_id: str, names: Sequence[str], private: bool) -> None:
    """Ask before files are published; raise BadInput without a terminal, as nobody can answer."""
    if not sys.stdin.isatty():
        raise BadInput(f"{repo_id}: {len(names)} files to publish, add --yes to do it unasked")
    place = f"the {'private' if private else 'public'} repository {repo_id}"
    typer.confirm(f"{', '.join(names)}\nUpload these to {place}?", abort=True, err=True)
