"""Commands of nogaps in processes that may be killed, forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from nogaps.runtime.files import sha256

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "killing",
        "nogaps.training",
        "nogaps.running",
        "nogaps.prior.sampling",
        "nogaps.filling.files",
    ]
)
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SECONDS = 300  # that no process here takes
KILLS = int(os.environ.get("NOGAPS_KILLS", "20"))  # by each signal, in the slow tests
CONTINUES = "the same command continues where it stopped"


def _serve(ready: Connection, log: Path, arguments: list[str], team: dict[str, str]) -> None:
    """In the child: `nogaps ARGUMENTS`, its output in `log`; ready once the handlers are there.

    One of a team is ready before: what goes before a command may wait for the other processes.
    """
    import torch

    from nogaps.commands import main as cli

    torch.set_num_threads(1)
    _to_log(log)
    os.environ.update(team)
    sys.argv, app = ["nogaps", *arguments], cli.app
    if team:
        ready.send(0)
    else:
        cli.app = lambda: (ready.send(0), app())
    cli.main()


def _to_log(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)


def call(target: Callable[..., None], *arguments: object) -> tuple[BaseProcess, int]:
    """Start `target(ready, *arguments)` in a process; returns it, and the number that it sends."""
    ready, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    if not ready.poll(SECONDS):
        raise TimeoutError("the process does not start")
    return process, ready.recv()


def start(log: Path, *arguments: object, team: dict[str, str] | None = None) -> BaseProcess:
    """Start `nogaps ARGUMENTS`; returns when its handlers of signals are installed.

    team: the environment that a launcher of several processes gives to one of them.
    """
    return call(_serve, log, [str(argument) for argument in arguments], team or {})[0]


def start_two(logs: Path, *arguments: object) -> list[BaseProcess]:
    """`start` as a launcher of two processes does; they write LOGS0 and LOGS1."""
    from browser import free_port

    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start(Path(f"{logs}{k}"), *arguments, team=own | {"RANK": k, "LOCAL_RANK": k}) for k in "01"
    ]


def end(process: BaseProcess, number: int | None = None) -> int:
    """Exit code, after that signal if one is given; negative if it was killed."""
    if number is not None and process.is_alive():
        os.kill(process.pid, number)
    process.join(SECONDS)
    assert process.exitcode is not None, "the process does not end"
    return process.exitcode


def expected_code(number: int) -> int:
    """Exit code of a command after that signal."""
    return -number if number == signal.SIGKILL else 128 + number


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """sha256 of the files that are there."""
    return {name: sha256(folder / name) for name in names if (folder / name).exists()}


def leftovers(folder: Path) -> list[str]:
    """Temporary files, unfinished work and locks."""
    patterns = ("**/.*.nogaps-*", "**/.nogaps.lock", "**/.*partial", "**/.tmp*")
    return [str(path) for pattern in patterns for path in folder.glob(pattern)]


def resist(ready: Connection, how: str, log: Path) -> None:
    """Handle signals as the command line does, in code that lets no exception through."""
    from nogaps.commands import options

    _to_log(log)
    if how == "ignored":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    options.catch_signals()
    ready.send(0)
    try:
        signal.pause()
    except BaseException:
        time.sleep(SECONDS)


def run_notebook(ready: Connection, folder: Path, log: Path) -> None:
    """`nogaps run` of the notebook in `folder`; ready once its first cell has written `kernel`."""
    from nogaps import running
    from nogaps.commands import options

    _to_log(log)
    options.catch_signals()

    def tell() -> None:
        while not (folder / "kernel").exists():
            time.sleep(0.02)
        ready.send(int((folder / "kernel").read_text()))

    threading.Thread(target=tell, daemon=True).start()
    running.run(folder, "smoke")
