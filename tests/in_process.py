"""The command line without a process: thousands of calls are cheap."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from nogaps.commands import main as cli

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def called(*arguments: object, cwd: Path | None = None) -> Done:
    """`nogaps ARGUMENTS`; an exception other than its exit goes on, as a traceback would."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors=e) for e in ("strict", "backslashreplace")
    )
    with _untouched(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["nogaps", *map(str, arguments)]
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Done(code, *texts)


@contextlib.contextmanager
def _untouched(cwd: Path | None) -> object:
    """Put back what a command changes in its process."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    argv, folder = sys.argv, os.getcwd()
    with warnings.catch_warnings():
        try:
            os.chdir(cwd or folder)
            yield
        finally:
            os.chdir(folder)
            sys.argv = argv
            for number, handler in handlers.items():
                signal.signal(number, handler)
