"""Processes that are measured by themselves, all of them of this interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import ROOT
from nogaps.runtime.errors import BadInput


@dataclass(frozen=True)
class Measured:
    """A process that runs, and the file in which `benchmarks.peak` will report."""

    process: subprocess.Popen
    report: Path


def start(module: str, *arguments: object, threads: int = 1) -> Measured:
    """Run a module as a command in a process of its own, on so many threads."""
    report = Path(tempfile.mkdtemp(prefix="nogaps-bench-")) / "report.json"
    line = [sys.executable, "-m", "benchmarks.peak", report, module, *arguments]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return Measured(subprocess.Popen(list(map(str, line)), env=environment, **pipes), report)


def finish(measured: Measured) -> dict[str, float]:
    """What it took: "seconds", "cpu_seconds", "peak_mb". Raises BadInput if it failed."""
    _, said = measured.process.communicate()
    try:
        if measured.process.returncode:
            raise BadInput(f"a measured process failed: {said.decode()[-300:]!r}")
        return json.loads(measured.report.read_text())
    finally:
        measured.report.unlink(missing_ok=True)
        measured.report.parent.rmdir()


def alone(module: str, *arguments: object, threads: int = 1) -> dict[str, float]:
    """`start` and `finish`."""
    return finish(start(module, *arguments, threads=threads))


def from_start_to_end(*arguments: object) -> None:
    """`python ARGUMENTS…` in the project's folder, its output thrown away."""
    line = [sys.executable, *map(str, arguments)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
