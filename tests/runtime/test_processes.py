"""One command in several processes: the same bits, one voice, one lock, pieces that are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import killing
import numpy as np
import pytest
import torch
from conftest import ROOT

from nogaps import standin
from nogaps.Assessment import PROFILES, Ensemble, new_imputer
from nogaps.prior.loading import WEIGHTS
from nogaps.runtime.checkpoint import save_model
from nogaps.runtime.files import save_npy, sha256

COUNT = 480  # images: 15 batches on a CPU
LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to fill, two untrained imputers, and what one process makes of the file."""
    folder = tmp_path_factory.mktemp("inputs")
    y, darker = standin.corrupted_images(), np.linspace(0.5, 1, COUNT, dtype=np.float32)
    y = y[np.arange(COUNT) % len(y)] * darker[:, None, None, None]
    save_npy(folder / "y.npy", y)
    x = torch.from_numpy(standin.clean_images())
    networks = [new_imputer(PROFILES["smoke"], x, seed) for seed in (0, 1)]
    for name, some in (("one", networks[:1]), ("two", networks)):
        imputer = Ensemble(some)
        save_model(folder / name / "imputer.safetensors", imputer, imputer.config)
    call = ("fill", folder / "y.npy", "-o", folder / "filled.npy", "--model", folder / "one")
    assert killing.end(killing.start(folder / "log", *call)) == 0, (folder / "log").read_text()
    assert not list(folder.glob(".*")), "too few images for shards in one process"
    return folder


def fill_call(inputs: Path, output: Path, model: str = "one") -> tuple[object, ...]:
    return ("fill", inputs / "y.npy", "-o", output, "--model", inputs / model)


def signals(team: list[BaseProcess], number: int) -> None:
    """To all at once, as a launcher does."""
    for process in team:
        if process.is_alive():
            os.kill(process.pid, number)


def ends(team: list[BaseProcess]) -> list[int]:
    return [killing.end(process) for process in team]


def logs(start: Path) -> list[str]:
    return [path.read_text() for path in sorted(start.parent.glob(f"{start.name}?"))]


def wait_for(there: Callable[[], object], team: Sequence[BaseProcess] = ()) -> None:
    deadline = time.monotonic() + killing.SECONDS
    while not there():
        assert time.monotonic() < deadline, "it never comes"
        assert all(process.exitcode in (None, 0) for process in team), "a process failed"
        time.sleep(0.002)


def test_one_voice(inputs: Path, prior_folder: Path, tmp_path: Path) -> None:
    """Two processes: what is done, refused or interrupted is said once."""
    sample = ("sample", "--num-samples", 10, "--steps", 2, "--batch-size", 3)
    sample += ("--prior", prior_folder, "--grid", tmp_path / "grid.png", "--out")
    assert killing.end(killing.start(tmp_path / "log", *sample, tmp_path / "one")) == 0
    uncertain = (*fill_call(inputs, tmp_path / "x.npy"), "--uncertainty", tmp_path / "u.npy")
    cases = {
        "done": (sample, tmp_path / "two"),
        "done again": (sample, tmp_path / "two"),
        "other settings": ((*sample[:2], 9, *sample[3:]), tmp_path / "two"),
        "not shared": (("score",), "a.npy", "b.npy", "--mask-from", "c.npy"),
        "no calibration": (uncertain,),
    }
    expected = {
        "other settings": "num_samples 10, not 9",
        "not shared": "score: is done by one process",
        "no calibration": "expected the calibration that `nogaps train` writes",
    }
    for name, (start, *rest) in cases.items():
        team = killing.start_team(tmp_path / name, 2, *start, *rest)
        codes, (said, silence) = ends(team), logs(tmp_path / name)
        assert codes == [2 * (name in expected)] * 2, said + silence
        assert "Traceback" not in said and silence == "", silence
        if name in expected:
            assert expected[name] in said.splitlines()[-1] and said.count("nogaps:") == 1
        else:
            assert said.count("images.npy: 10 images") == 1
    for name in ("images.npy", "manifest.json"):
        assert sha256(tmp_path / "two" / name) == sha256(tmp_path / "one" / name)
    assert sorted(os.listdir(tmp_path / "two")) == ["images.npy", "manifest.json"]
    assert not killing.leftovers(tmp_path)


def test_an_interrupted_team_says_one_line(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    team = killing.start_team(tmp_path / "log", 2, *fill_call(inputs, output))
    wait_for(lambda: list(tmp_path.glob(".out.npy.partial/done-*.json")), team)
    signals(team, signal.SIGTERM)
    assert ends(team) == [143, 143]
    said, silence = logs(tmp_path / "log")
    assert said.splitlines()[-1] == "nogaps: interrupted; the same command fills what is left"
    assert silence == "" and not output.exists() and "Traceback" not in said


def launched(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` of two processes, which speak over gloo where there is no GPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "-m", "nogaps"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += map(str, arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_accelerate_launch(inputs: Path, tmp_path: Path) -> None:
    done = launched(*fill_call(inputs, tmp_path / "x.npy"), "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f'"images": {COUNT}') == 1 and done.stdout.count("filling") == 0
    assert sha256(tmp_path / "x.npy") == sha256(inputs / "filled.npy")
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.slow
def test_a_failure_under_a_launcher(inputs: Path, prior_folder: Path, tmp_path: Path) -> None:
    done = launched(*fill_call(inputs, tmp_path / "x.npy", "none"))
    assert done.returncode == 1 and done.stderr.count("nogaps: ") == 1
    assert "none" in done.stderr and os.listdir(tmp_path) == []
    out = ("--out", tmp_path / "samples", "--prior", prior_folder, "--num-samples", 6)
    assert launched("sample", *out, "--steps", 2, "--batch-size", 2).returncode == 0


@pytest.mark.slow
def test_the_prior_is_trained_in_two_processes(frames_file: Path, tmp_path: Path) -> None:
    """All stages, with early stopping; a stage needs what the leader wrote after the one before."""
    common, out = ("--frames", frames_file, "--out", tmp_path / "prior"), tmp_path / "prior"
    call = ["prior", "train", *common, "--copies", 1, "--latent-channels", 4, "--patience", 2]
    done = launched(*call, "--autoencoder-steps", 2, "--diffusion-steps", 2, "--refine-steps", 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pipeline: written") == 1
    for _ in range(2):  # the second time there is nothing left to do
        done = launched("prior", "refine", *common, "--steps", 2, "--samples", 2)
        assert done.returncode == 0, done.stderr
        weights = sha256(out / "refined" / "vqvae" / WEIGHTS)
        assert weights != sha256(out / "pipeline" / "vqvae" / WEIGHTS)
    assert not killing.leftovers(tmp_path)
