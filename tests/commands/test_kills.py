"""Commands killed at random moments, twenty times by each signal, then given again: the same bits.

NOGAPS_KILLS is how often, 20 unless set. The moments are random but seeded; what they hit depends
on the machine. Every killed command is started again over what the killed one left. A command that
was quicker than its signal must have the result of an uninterrupted run; then all begins anew.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import killing
import numpy as np
import pytest
from conftest import ROOT

from nogaps import standin
from nogaps.Assessment import PROFILES, Ensemble, new_imputer
from nogaps.runtime.checkpoint import load_state, load_tensors, save_model
from nogaps.runtime.files import load_json, load_npy, save_npy

KILLS = int(os.environ.get("NOGAPS_KILLS", "20"))
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Stage:
    """A command that writes to a folder, and what must be the same in the end."""

    command: Callable[[Path], tuple[object, ...]]
    results: tuple[str, ...]
    continues: str = "the same command continues where it stopped"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to train on, a file and a folder to fill, and a small imputer."""
    folder = tmp_path_factory.mktemp("inputs")
    x, y = standin.clean_images(), standin.corrupted_images()
    save_npy(folder / "x.npy", x)
    save_npy(folder / "many.npy", np.tile(y, (20, 1, 1, 1)))
    import torch

    imputer = Ensemble([new_imputer(PROFILES["smoke"], torch.from_numpy(x), 0)])
    save_model(folder / "imputer" / "imputer.safetensors", imputer, imputer.config)
    return folder


def stage(name: str, inputs: Path, prior: Path) -> Stage:
    if name == "sample":
        call = ("sample", "--num-samples", 80, "--steps", 2, "--batch-size", 2, "--prior", prior)
        return Stage(lambda out: (*call, "--out", out), ("images.npy", "manifest.json"))
    if name == "train":
        call = ("train", "--images", inputs / "x.npy", "--profile", "smoke", "--resume")
        results = ("imputer.safetensors", "uncertainty.json")
        results += tuple(f"training-{k}.safetensors" for k in (0, 1))
        return Stage(
            lambda out: (*call, "--out", out), results, "--resume continues where it stopped"
        )
    if name == "fill":
        call = ("fill", inputs / "many.npy", "--model", inputs / "imputer")
        again = "the same command fills what is left"
        return Stage(lambda out: (*call, "-o", out / "filled.npy"), ("filled.npy",), again)
    parts = ("samples/images.npy", "imputer.safetensors", "training-0.safetensors")
    results = ("test_set_nogaps.npy", *(f"runs/smoke/{part}" for part in parts))
    again = "the same command continues where it stopped, with --verify it starts again"
    return Stage(lambda out: ("run", "--profile", "smoke", "--output", out), results, again)


def read_all(folder: Path) -> None:
    """Everything under a final name is whole: BadInput otherwise."""
    readers = {".npy": load_npy, ".json": load_json, ".safetensors": load_tensors}
    for path in folder.rglob("*"):
        if path.suffix in readers and ".nogaps-" not in path.name:
            readers[path.suffix](path)
    for path in folder.rglob("training-?.safetensors"):
        load_state(path)


@pytest.mark.filterwarnings("error:.*damaged")
@pytest.mark.parametrize("number", killing.SIGNALS)
@pytest.mark.parametrize("name", ["sample", "train", "fill", "run"])
def test_killed_at_random(
    name: str, number: int, inputs: Path, prior_folder: Path, tmp_path: Path
) -> None:
    this, chance = stage(name, inputs, prior_folder), random.Random(f"{name} {number}")
    process = killing.start(tmp_path / "log", *this.command(tmp_path / "straight"))
    began = time.monotonic()
    assert killing.end(process) == 0
    seconds = time.monotonic() - began
    straight = killing.digests(tmp_path / "straight", this.results)
    assert len(straight) == len(this.results)
    killed, out = 0, tmp_path / "killed"
    for _ in range(20 * KILLS):
        process = killing.start(tmp_path / "log", *this.command(out))
        process.join(chance.uniform(0, seconds))
        code = killing.end(process, number if killed < KILLS else None)
        if code == 0:
            assert killing.digests(out, this.results) == straight
            assert not killing.leftovers(out)
            shutil.rmtree(out)
            if killed == KILLS:
                return
            continue
        log = (tmp_path / "log").read_text()
        assert code == killing.expected_code(number), log
        if number != signal.SIGKILL and killing.digests(out, this.results) != straight:
            assert log.splitlines()[-1] == f"nogaps: interrupted; {this.continues}"
            assert "Traceback" not in log and log.count("nogaps:") == 1
        read_all(out)
        killed += 1
    pytest.fail(f"{killed} kills only: the command is too quick")


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
        said = process.communicate(timeout=killing.SECONDS)[1]
        if (tmp_path / "out" / "images.npy").exists():  # Python was ending, without handlers
            assert process.returncode in (0, -number, killing.expected_code(number))
            shutil.rmtree(tmp_path / "out")
            continue
        assert process.returncode == killing.expected_code(number), said
        if number != signal.SIGKILL:
            lines = [line for line in said.splitlines() if "sampling:" not in line and line.strip()]
            assert lines == ["nogaps: interrupted; the same command continues where it stopped"]
    assert subprocess.run(command, env=environment).returncode == 0
    assert not killing.leftovers(tmp_path / "out")
