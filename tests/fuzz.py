"""Damaged files in a process of their own: what a reader does that it must not do."""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from mutators import damaged

from nogaps.runtime.files import BadInput

SECONDS, KILLED_AFTER = 5.0, 120.0  # of one call: computing, and by the clock
MEMORY = 1 << 30  # bytes that one call may take


@dataclass(frozen=True)
class Target:
    """A reader and good files for it.

    make(folder) writes them and returns those that are damaged, each with its kind; read(folder)
    reads them all and checks what it got. weight: share of the mutants.
    """

    name: str
    make: Callable[[Path], list[tuple[Path, str]]]
    read: Callable[[Path], object]
    weight: float = 1.0


def hunt(target: Target, folder: Path, count: int, first: int = 0) -> tuple[int, list[str]]:
    """Read mutants first to first+count-1: how many were refused, and the findings."""
    folder.mkdir(parents=True, exist_ok=True)
    files = target.make(folder)
    target.read(folder)  # the good files are read
    refused, findings, done = 0, [], 0
    while done < count:  # a process that is lost is followed by another
        for said in _forked(target, folder, files, range(first + done, first + count)):
            refused += said == "refused"
            if said not in ("read", "refused"):
                findings.append(f"{target.name} {first + done}: {said}")
            done += 1
    return refused, findings


def write_mutant(target: Target, files: list[tuple[Path, str]], data: list[bytes], k: int) -> Path:
    """Damage one of the files as number k always does; the others are whole."""
    rng = np.random.default_rng([zlib.crc32(target.name.encode()), k])
    which = int(rng.integers(len(files)))
    for (path, _), whole in zip(files, data, strict=True):
        path.write_bytes(whole)
    path, kind = files[which]
    path.write_bytes(damaged(kind, data[which], rng))
    return path


def _forked(
    target: Target, folder: Path, files: list[tuple[Path, str]], numbers: range
) -> Iterator[str]:
    """Per mutant "read", "refused" or the finding, until all are read or the process is lost."""
    receive, send = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(receive)
        try:
            _read_mutants(target, folder, files, numbers, send)
        finally:
            os._exit(0)
    os.close(send)
    try:
        with open(receive, "rb", buffering=0) as pipe:
            for _ in numbers:
                ready, _, _ = select.select([pipe], [], [], KILLED_AFTER)
                head = pipe.read(4) if ready else b""
                if len(head) < 4:
                    yield "the process died" if ready else f"hangs for {KILLED_AFTER} s"
                    return
                yield _read_all(pipe, struct.unpack("<I", head)[0]).decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _read_all(pipe: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += pipe.read(size - len(data))
    return data


def _read_mutants(
    target: Target, folder: Path, files: list[tuple[Path, str]], numbers: range, send: int
) -> None:
    warnings.simplefilter("ignore")
    data = [path.read_bytes() for path, _ in files]
    if (statm := Path("/proc/self/statm")).exists():  # elsewhere only the time is bounded
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for k in numbers:
        try:
            said = _read_one(target, folder, write_mutant(target, files, data, k))
        except BaseException:
            said = f"the fuzzer fails: {traceback.format_exc(limit=-4)}"
        text = said.encode("utf-8", "replace")
        os.write(send, struct.pack("<I", len(text)) + text)


def _read_one(target: Target, folder: Path, path: Path) -> str:
    before, names = path.read_bytes(), sorted(os.listdir(path.parent))
    start, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        target.read(folder)
        said = "read"
    except BadInput as error:
        said = "refused"
        if "\n" in str(error) or len(str(error)) < 10:
            said = f"no single line: {str(error)[:900]!r}"
        while error := error.__cause__ or error.__context__:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                said = f"asks for memory: {error}"
    except BaseException:
        said = traceback.format_exc(limit=-4)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    if (seconds := time.process_time() - start) > SECONDS:
        said = f"takes {seconds:.1f} s ({said})"
    if taken * 1024 > MEMORY // 2:
        said = f"takes {taken >> 10} MiB ({said})"
    if path.read_bytes() != before or sorted(os.listdir(path.parent)) != names:
        said = f"changed its input ({said})"
    return said


def report(findings: list[str]) -> str:
    """Findings, each kind of them once."""
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        name, _, rest = finding.partition(": ")
        kinds.setdefault(name.split()[0] + rest[-120:], []).append(finding)
    return "\n".join(f"{len(found)} × {found[0]}" for found in kinds.values())
