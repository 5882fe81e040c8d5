"""The command line: its commands, and how they end. Heavy imports stay inside the commands."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Annotated

import typer
from typer import Option

from nogaps.commands import imputers, notebook, options, prior, prior_training
from nogaps.runtime import processes, progress
from nogaps.runtime.errors import BadInput, Elsewhere
from nogaps.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prior_app = typer.Typer(
    no_args_is_help=True, help="Prepare head frames and train the generative model."
)
COMMANDS = {
    app: [
        notebook.run,
        prior.sample,
        imputers.train,
        imputers.fill,
        imputers.score,
        notebook.check,
        notebook.report,
        imputers.demo,
        notebook.make_test_set,
        imputers.push,
    ],
    prior_app: [
        prior.prepare,
        prior_training.train,
        prior_training.train_autoencoder,
        prior_training.train_diffusion,
        prior_training.refine,
        prior.evaluate,
        prior.push,
    ],
}
for group, functions in COMMANDS.items():
    for function in functions:
        group.command()(function)
app.add_typer(prior_app, name="prior")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nogaps {__version__}")
        raise typer.Exit


@app.callback()
def nogaps(
    version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
    quiet: Annotated[
        bool,
        Option("-q", "--quiet", help="Before COMMAND: no progress, no result but --json's."),
    ] = False,
) -> None:
    """Fill the missing lines of 64×64 head MRIs, learnt from synthetic heads.

    Exit codes: 0 done, 1 findings, 2 bad use or bad input.
    """
    progress.quiet = quiet


def _warn(message: Warning | str, *_: object) -> None:
    if processes.is_main():
        print(f"nogaps: warning: {message}", file=sys.stderr)


def _line(error: BaseException) -> str:
    """Return the message of an error that the user can fix, on one line; of any other, nothing."""
    if isinstance(error, PermissionError):
        return f"{error.filename}: cannot be used ({error.strerror})"
    if isinstance(error, BadInput) or os.strerror(errno.ENOSPC) in str(error):
        return " ".join(str(error).split())
    return ""


def main() -> None:
    """Run the command line; bad input gives one line and exit code 2, a signal 128 + n."""
    warnings.showwarning = _warn
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        stream.reconfigure(errors="backslashreplace")
    options.catch_signals()
    line, code = "", 2
    try:
        app()
    except BaseException as error:
        if options.received:  # within an import it may have become another error
            code = 128 + options.received
            line = f"interrupted; {options.advice}" if processes.is_main() else ""
        elif not (line := _line(error)):
            raise
        elif isinstance(error, Elsewhere):  # another process prints it
            line = ""
        elif not processes.is_main():
            line = f"process {processes.number()}: {line}"
    if line:  # printed here, as an error that is caught keeps progress bars open
        print(f"nogaps: {line}", file=sys.stderr)
    raise SystemExit(code)
