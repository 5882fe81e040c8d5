"""One command in several processes: the same bits, one voice, and an end when one of them fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import killing
import pytest
from command_cases import write_files
from conftest import ROOT

from nogaps.prior.loading import WEIGHTS
from nogaps.runtime import processes
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256
from nogaps.runtime.processes import LOCK, folder_lock

LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0"]


def test_a_folder_has_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with folder_lock(folder):
        with pytest.raises(BadInput, match="run: in use by another run; wait"):
            folder_lock(folder).__enter__()
        with folder_lock(tmp_path / "new" / "other"):
            pass
    assert list(folder.iterdir()) == []
    (folder / LOCK).write_bytes(b"left by a killed run")
    with folder_lock(folder):
        pass
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match=r"file: cannot be written \(File exists\)"):
        folder_lock(tmp_path / "file").__enter__()


def sampling(prior: Path, out: Path, count: int = 10) -> tuple[object, ...]:
    sample = ("sample", "--num-samples", count, "--steps", 2, "--batch-size", 3)
    return (*sample, "--prior", prior, "--out", out)


def ends(team: list[BaseProcess]) -> list[int]:
    return [killing.end(process) for process in team]


def logs(start: Path) -> list[str]:
    return [path.read_text() for path in sorted(start.parent.glob(f"{start.name}?"))]


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # some clusters set it for whatever they start
    assert (processes.count(), processes.number(), processes.is_main()) == (1, 0, True)
    assert processes.share([1, 2]) == [1, 2]


def test_one_voice(prior_folder: Path, tmp_path: Path) -> None:
    """What two processes have done, or refuse, is printed once."""
    write_files(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    assert killing.end(killing.start(tmp_path / "log", *sampling(prior_folder, one))) == 0
    fill = ("--model", tmp_path / "m", "-o", tmp_path / "x.npy", "--uncertainty", tmp_path / "u")
    cases = [
        (sampling(prior_folder, two), ""),
        (sampling(prior_folder, two), ""),  # done again
        (sampling(prior_folder, two, 9), "num_samples 10, not 9"),
        (("score", "a.npy", "b.npy", "--mask-from", "c.npy"), "score: is done by one process"),
        (("fill", tmp_path / "y.npy", *fill), "calibration"),
        (("fill", tmp_path / "none.npy", *fill[:4]), "none.npy: cannot be read"),
    ]
    for k, (call, error) in enumerate(cases):
        team = killing.start_two(tmp_path / f"log{k}-", *call)
        codes, (text, silence) = ends(team), logs(tmp_path / f"log{k}-")
        assert codes == [2 * bool(error)] * 2, text + silence
        assert silence == "" and "Traceback" not in text, silence
        if error:
            assert error in text.splitlines()[-1] and text.count("nogaps: ") == 1, text
        else:
            assert text.count("images.npy: 10 images") == 1
    for name in ("images.npy", "manifest.json"):
        assert sha256(two / name) == sha256(one / name)
    assert sorted(os.listdir(two)) == ["images.npy", "manifest.json"]
    assert not killing.leftovers(tmp_path)


def test_an_interrupted_team_prints_one_line(prior_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    team = killing.start_two(tmp_path / "log", *sampling(prior_folder, out, 3000))
    deadline = time.monotonic() + killing.SECONDS
    while not list(out.glob(".images.npy.partial/done-*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in team:  # at once, as a launcher does
        os.kill(process.pid, signal.SIGTERM)
    assert ends(team) == [143, 143]
    text, silence = logs(tmp_path / "log")
    assert text == "nogaps: interrupted; the same command continues where it stopped\n"
    assert silence == "" and not (out / "images.npy").exists()


def launched(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` of two processes, which speak over gloo where there is no GPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "-m", "nogaps"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += map(str, arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_accelerate_launch(prior_folder: Path, tmp_path: Path) -> None:
    done = launched(*sampling(prior_folder, tmp_path / "two"), "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"num_samples": 10') == 1
    assert sorted(os.listdir(tmp_path / "two")) == ["images.npy", "manifest.json"]
    x = tmp_path / "x.npy"
    done = launched("fill", ROOT / "test_set.npy", "-o", x, "--model", tmp_path / "none")
    assert done.returncode == 1 and done.stderr.count("nogaps: ") == 1
    assert "none" in done.stderr and os.listdir(tmp_path) == ["two"]


@pytest.mark.slow
def test_the_prior_is_trained_in_two_processes(frames_file: Path, tmp_path: Path) -> None:
    """All stages; a stage needs what process 0 wrote after the one before."""
    common, out = ("--frames", frames_file, "--out", tmp_path / "prior"), tmp_path / "prior"
    call = ["prior", "train", *common, "--copies", 1]
    done = launched(*call, "--autoencoder-steps", 2, "--diffusion-steps", 2, "--refine-steps", 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pipeline: written") == 1
    for _ in range(2):  # the second time there is nothing left to do
        done = launched("prior", "refine", *common, "--steps", 2, "--samples", 2)
        assert done.returncode == 0, done.stderr
        weights = sha256(out / "refined" / "vqvae" / WEIGHTS)
        assert weights != sha256(out / "pipeline" / "vqvae" / WEIGHTS)
    assert not killing.leftovers(tmp_path)
