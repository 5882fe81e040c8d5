"""Processes of their own, run twice, leave the same files: commands, and the whole notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK
from nogaps.verifying import read_record
from tests.commands.test_reproducibility import commands, files, given

__all__ = ["given"]  # the fixture

PROGRAM = """
import json, sys
from nogaps.commands.main import app
for command in json.loads(sys.argv[1]):
    assert app(command, standalone_mode=False) in (None, 0), command
"""


def prior_commands(inputs: str) -> list[list[str]]:
    """Every stage of the prior's training, at its full size but a step long."""
    common = f"--frames {inputs}/frames.npz --out prior --steps 1 --batch-size 2"
    lines = [
        f"prior train-autoencoder {common}",
        f"prior train-diffusion {common} --copies 0",
        f"prior refine {common} --samples 2",
        f"prior train-autoencoder {common.replace('prior', 'vq')} --stage vqvae2",
    ]
    return [line.split() for line in lines]


def run_apart(folder: Path, k: int, program: list[str]) -> None:
    """A process of its own: other hash seed, time zone and folder."""
    own = {"PYTHONHASHSEED": str(k), "TZ": f"UTC{k}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *program],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("make", [commands, prior_commands])
def test_two_processes_write_the_same_files(
    given: SimpleNamespace, make: Callable[[str], list]
) -> None:
    found = []
    for k in (1, 2):
        folder = given.folder / ("new" * k)
        folder.mkdir()
        run_apart(folder, k, ["-c", PROGRAM, json.dumps(make(str(given.inputs)))])
        found.append(files(folder))
    assert found[0] == found[1] and len(found[0]) > 8


NOTEBOOK_RUN = """
import sys
from pathlib import Path
from nogaps import running
running.run(Path(sys.argv[1]), "smoke", Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_executions_of_the_notebook_agree(tmp_path: Path) -> None:
    found, records = [], []
    for k in (1, 2):
        folder = tmp_path / ("new" * k)
        folder.mkdir()
        run_apart(folder, k, ["-c", NOTEBOOK_RUN, str(ROOT), str(folder)])
        records.append(read_record(folder / NOTEBOOK))
        found.append(files(folder))
        for name in (NOTEBOOK, "runs/smoke/summary.json"):  # they hold seconds
            assert found[-1].pop(name)
    made = {RESULT, "runs/smoke/imputer.safetensors", "runs/smoke/samples/images.npy"}
    assert made <= set(found[0]) and found[0] == found[1]
    assert records[0] == records[1] and len(records[0].hashes) >= 3
