"""Commands that may be ended in any way: given again, they leave the bits of a run without an end.

One registry of commands is crossed with the properties that all of them share. The slow tests kill
each command at random moments, NOGAPS_KILLS times by each signal (20 unless set); the moments are
seeded, what they hit depends on the machine.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import killing
import numpy as np
import pytest
import torch
from killing import CONTINUES, KILLS, end

from nogaps import standin
from nogaps.Assessment import PROFILES, Ensemble, new_imputer
from nogaps.commands.options import SAVED
from nogaps.prior.loading import WEIGHTS
from nogaps.running import RESULT
from nogaps.runtime.checkpoint import load_state, load_tensors, save_model
from nogaps.runtime.files import load_json, load_npy, save_npy, sha256

pytestmark = pytest.mark.xdist_group("resumable")  # each run without an end once


@dataclass(frozen=True)
class Command:
    """A command that continues; {inputs}, {prior}, {frames} are what it reads."""

    line: str  # which writes to the folder {out}
    results: tuple[str, ...]  # the files of that folder that must be the same in the end
    progress: str  # pattern of the files that change when some of the work is done
    other: str = ""  # arguments that make it another piece of work,
    refusal: str = ""  # and what it prints then
    advice: str = CONTINUES  # what it prints when it was interrupted

    def words(self, out: Path) -> list[str]:
        return self.line.format(out=out).split()


COMMANDS = {
    "sample": Command(
        "sample --num-samples 60 --steps 2 --batch-size 2 --prior {prior} --out {out}",
        ("images.npy", "manifest.json"),
        ".images.npy.partial/done-*.json",
        "--seed 7",
        "made with seed 42, not 7",
    ),
    "train": Command(
        "train --images {inputs}/x.npy --profile smoke --resume --out {out}",
        ("imputer.safetensors", "uncertainty.json"),  # the state of training holds seconds
        "training-*.safetensors",
        "--seed 7",
        "other images or settings",
        "--resume continues where it stopped",
    ),
    "fill": Command(
        "fill {inputs}/y.npy --model {inputs}/imputer0 -o {out}/filled.npy",
        ("filled.npy",),
        ".filled.npy.partial/done-*.json",
        "--model {inputs}/imputer1",
        "made with imputer",
        "the same command fills what is left",
    ),
    "prior train": Command(
        "prior train --frames {frames} --copies 1 --autoencoder-steps 2 --diffusion-steps 2"
        " --refine-steps 0 --out {out}",
        tuple(f"pipeline/{part}/{WEIGHTS}" for part in ("unet", "vqvae")),
        "*/state.safetensors",
        "--seed 7",
        "other settings",
        SAVED,
    ),
    "run": Command(
        "run --profile smoke --output {out}",
        (RESULT, "runs/smoke/samples/images.npy", "runs/smoke/imputer.safetensors"),
        "runs/smoke/**/*",
        advice=f"{CONTINUES}, with --verify it starts again",
    ),
}
FAST, SLOW = ("sample", "train", "fill"), ("prior train", "run")
EACH = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to train on, a file to fill, and two small imputers."""
    folder = tmp_path_factory.mktemp("inputs")
    x, y = standin.clean_images(), standin.corrupted_images()
    save_npy(folder / "x.npy", x)
    save_npy(folder / "y.npy", np.tile(y, (8, 1, 1, 1)))
    for seed in (0, 1):
        imputer = Ensemble([new_imputer(PROFILES["smoke"], torch.from_numpy(x), seed)])
        save_model(folder / f"imputer{seed}" / "imputer.safetensors", imputer, imputer.config)
    return folder


@pytest.fixture(params=EACH)
def command(
    request: pytest.FixtureRequest, inputs: Path, prior_folder: Path, frames_file: Path
) -> Command:
    places = {"inputs": inputs, "prior": prior_folder, "frames": frames_file, "out": "{out}"}
    case = COMMANDS[request.param]
    return replace(case, line=case.line.format(**places), other=case.other.format(**places))


STRAIGHT: dict[tuple[str, ...], dict[str, str]] = {}


def straight(command: Command, folder: Path) -> dict[str, str]:
    """Hashes of what a run without an end leaves, which is made once for all tests."""
    if command.results not in STRAIGHT:
        process = killing.start(folder / "log", *command.words(folder / "straight"))
        assert end(process) == 0, (folder / "log").read_text()
        STRAIGHT[command.results] = killing.digests(folder / "straight", command.results)
    assert len(STRAIGHT[command.results]) == len(command.results)
    return STRAIGHT[command.results]


def stopped(command: Command, out: Path, log: Path) -> BaseProcess:
    """Start the command; stop it, by SIGSTOP, once it has left some work."""

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob(command.progress)}

    for _ in range(9):
        before = times()
        process = killing.start(log, *command.words(out))
        while process.is_alive() and times() == before:
            time.sleep(0.002)
        if process.is_alive():
            os.kill(process.pid, signal.SIGSTOP)
            if killing.digests(out, command.results).keys() != set(command.results):
                return process
            os.kill(process.pid, signal.SIGCONT)
        assert end(process) == 0, log.read_text()
        shutil.rmtree(out)
    raise AssertionError("the command is too quick")


def refused(command: Command, out: Path, log: Path, more: str = "") -> str:
    """The one line of a command that must exit with 2."""
    assert end(killing.start(log, *command.words(out), *more.split())) == 2
    text = log.read_text()
    assert "Traceback" not in text and text.count("nogaps: ") == text.count("nogaps: warning") + 1
    return text


def snapshot(out: Path) -> dict[Path, str]:
    """Hashes of every file but the lock."""
    paths = (path for path in out.rglob("*") if path.is_file() and "lock" not in path.name)
    return {path: sha256(path) for path in paths}


def test_it_is_killed_by_every_signal_and_continues(command: Command, tmp_path: Path) -> None:
    """And meanwhile: no second run, no other settings."""
    expected, out, log = straight(command, tmp_path), tmp_path / "out", tmp_path / "log"
    for number in killing.SIGNALS:
        process = stopped(command, out, log)
        if number == signal.SIGKILL:
            text = refused(command, out, tmp_path / "second")
            assert "in use by another run; wait for it to end" in text
        os.kill(process.pid, signal.SIGCONT)
        assert end(process, number) == killing.expected_code(number), log.read_text()
        if number != signal.SIGKILL:
            assert log.read_text().splitlines()[-1] == f"nogaps: interrupted; {command.advice}"
        elif command.other:
            left = snapshot(out)
            assert command.refusal in refused(command, out, tmp_path / "other", command.other)
            assert snapshot(out) == left
    assert end(killing.start(log, *command.words(out))) == 0, log.read_text()
    assert killing.digests(out, command.results) == expected
    assert end(killing.start(log, *command.words(out))) == 0, "a repeated run leaves the results"
    assert killing.digests(out, command.results) == expected
    assert not killing.leftovers(out)


@pytest.mark.parametrize("command", FAST, indirect=True)
def test_a_full_disk_is_one_line_and_it_continues_when_there_is_room(
    command: Command, small_disk: Path, tmp_path: Path
) -> None:
    out, refilled = small_disk / "out", command.results == ("filled.npy",)
    out.mkdir()
    if refilled:
        (out / "filled.npy").write_bytes(b"earlier")
    text = refused(command, out, tmp_path / "log").splitlines()[-1]
    assert str(out) in text and "cannot be written (No space left on device)" in text, text
    if refilled:
        assert (out / "filled.npy").read_bytes() == b"earlier"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert end(killing.start(tmp_path / "log", *command.words(out))) == 0
    assert killing.digests(out, command.results) == straight(command, tmp_path)
    assert not killing.leftovers(out)


def read_all(folder: Path) -> None:
    """Raise BadInput unless everything under a final name is whole."""
    readers = {".npy": load_npy, ".json": load_json, ".safetensors": load_tensors}
    for path in folder.rglob("*"):
        if path.suffix in readers and ".nogaps-" not in path.name:
            readers[path.suffix](path)
    for path in folder.rglob("training-?.safetensors"):
        load_state(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("error:.*damaged")
@pytest.mark.parametrize("number", killing.SIGNALS)
def test_killed_at_random(command: Command, number: int, tmp_path: Path) -> None:
    """A command that was quicker than its signal must be right; then all begins anew."""
    chance, began = random.Random(f"{command.results} {number}"), time.monotonic()
    expected, out, log = straight(command, tmp_path), tmp_path / "killed", tmp_path / "log"
    seconds = time.monotonic() - began
    killed = 0
    for _ in range(20 * KILLS):
        process = killing.start(log, *command.words(out))
        process.join(chance.uniform(0, seconds))
        code = end(process, number if killed < KILLS else None)
        if code == 0:
            assert killing.digests(out, command.results) == expected
            shutil.rmtree(out)
            if killed == KILLS:
                return
            continue
        assert code == killing.expected_code(number), log.read_text()
        if number != signal.SIGKILL and killing.digests(out, command.results) != expected:
            # which advice it gives is not asked: a signal may come before the command is known
            assert log.read_text().splitlines()[-1].startswith("nogaps: interrupted; ")
            assert "Traceback" not in log.read_text()
        read_all(out)
        killed += 1
    pytest.fail(f"{killed} kills only: the command is too quick")
