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


def _serve(ready: Connection, log: Path, arguments: list[str], cwd: Path | None = None) -> None:
    """In the child: `nogaps ARGUMENTS`, its output in `log`; ready once the handlers are there."""
    import torch

    from nogaps.commands import main as cli

    torch.set_num_threads(1)
    _to_log(log)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv, app = ["nogaps", *arguments], cli.app
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


def start(log: Path, *arguments: object, cwd: Path | None = None) -> BaseProcess:
    """Start `nogaps ARGUMENTS` in `cwd`; returns when its handlers of signals are installed."""
    return call(_serve, log, [str(argument) for argument in arguments], cwd)[0]


def _join(ready: Connection, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    ready.send(0)  # early: what goes before a command may wait for the other processes
    _, nobody = ends = CONTEXT.Pipe(duplex=False)
    _serve(nobody, log, arguments)
    del ends


def start_team(logs: Path, count: int, *arguments: object) -> list[BaseProcess]:
    """`start` as a launcher of several processes does; they write LOGS0, LOGS1, …"""
    from browser import free_port

    port, team = str(free_port()), []
    for k in range(count):
        own = {"RANK": str(k), "LOCAL_RANK": str(k), "WORLD_SIZE": str(count)}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        call_with = ([str(argument) for argument in arguments], own)
        team.append(call(_join, logs.with_name(f"{logs.name}{k}"), *call_with)[0])
    return team


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
