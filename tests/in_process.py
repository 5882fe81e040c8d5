"""The command line without a process: thousands of calls are cheap."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nogaps.commands import main as cli

MEMORY = 2 << 30  # bytes that `bounded` code may take
HANGS_AFTER = 300  # seconds
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


@pytest.fixture
def bounded() -> Iterator[None]:
    """Where Linux tells how much memory is used, limit it; end the process if the test hangs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if (statm := Path("/proc/self/statm")).exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _untouched(cwd: Path | None) -> Iterator[None]:
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
