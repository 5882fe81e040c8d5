"""Signals end a command, wherever it is; those that are ignored stay so."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import killing
import nbformat
import pytest
from conftest import ROOT
from killing import CONTINUES, KILLS, end

from nogaps.running import NOTEBOOK
from nogaps.runtime.processes import folder_lock


@pytest.mark.parametrize("how", ["twice", "ignored"])
def test_a_second_signal_ends_code_that_swallows_the_first(tmp_path: Path, how: str) -> None:
    process, _ = killing.call(killing.resist, how, tmp_path / "log")
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM if how == "twice" else signal.SIGINT)
    time.sleep(0.1)
    assert process.is_alive()
    if how == "ignored":  # a job in the background of a script: Ctrl-C is for others
        end(process, signal.SIGKILL)
    else:
        assert end(process, signal.SIGTERM) == 143


NOTEBOOK_THAT_WRITES = """
import os, time
open("kernel", "w").write(str(os.getpid()))
while True:
    open("beats", "a").write("x")
    time.sleep(0.02)
"""


@pytest.mark.parametrize("number", killing.SIGNALS)
def test_the_kernel_dies_with_its_run(tmp_path: Path, number: int) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK_THAT_WRITES)])
    nbformat.write(notebook, tmp_path / NOTEBOOK)
    process, _ = killing.call(killing.run_notebook, tmp_path, tmp_path / "log")
    assert end(process, number) == killing.expected_code(number)
    deadline, written = time.monotonic() + 30, -1
    while written != (written := (tmp_path / "beats").stat().st_size):
        assert time.monotonic() < deadline, "the kernel goes on"
        time.sleep(0.3)  # the kernel of a killed run looks for its parent every second
    with folder_lock(tmp_path / "runs"):  # the lock file of a killed run blocks nobody
        pass
    lines = (tmp_path / "log").read_text().splitlines()
    # a kernel whose parent was killed says so
    assert not any(line for line in lines if "cell" not in line and "[IPKernelApp]" not in line)
    assert not killing.leftovers(tmp_path) and not (tmp_path / "runs/failed.ipynb").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", killing.SIGNALS)
def test_killed_while_it_is_starting(number: int, prior_folder: Path, tmp_path: Path) -> None:
    """A real process: its first seconds are imports, which turn exceptions into others."""
    chance, kills = random.Random(number), -(-KILLS // 4)
    command = [sys.executable, "-m", "nogaps", "sample", "--out", str(tmp_path / "out")]
    command += ["--num-samples", "4", "--steps", "2", "--prior", str(prior_folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    subprocess.run([*command[:-1], str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    for _ in range(kills):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds * chance.uniform(0.3, 1))  # before, Python itself is starting
        process.send_signal(number)
        text = process.communicate(timeout=killing.SECONDS)[1]
        if (tmp_path / "out" / "images.npy").exists():  # Python was ending, without handlers
            assert process.returncode in (0, -number, killing.expected_code(number))
            shutil.rmtree(tmp_path / "out")
            continue
        assert process.returncode == killing.expected_code(number), text
        if number != signal.SIGKILL:
            assert [line for line in text.splitlines() if line.strip()] == [
                f"nogaps: interrupted; {CONTINUES}"
            ]
    assert subprocess.run(command, env=environment).returncode == 0
    assert not killing.leftovers(tmp_path / "out")
