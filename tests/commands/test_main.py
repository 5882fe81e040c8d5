"""Every command as a user types it, in a process of its own; and what happens to bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import killing
import numpy as np
import pytest
from conftest import ROOT

from nogaps import standin
from nogaps.imputers.loading import SHIPPED
from nogaps.runtime.files import load_images, sha256

Command = Callable[..., object]
COMMANDS = ["run", "sample", "train", "fill", "score", "check", "make-test-set"]
COMMANDS += ["report", "push", "demo"]
PRIOR_COMMANDS = ["prepare", "train", "train-autoencoder", "train-diffusion", "refine"]
PRIOR_COMMANDS += ["evaluate", "push"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    standin.write_test_set(tmp_path / "test_set.npy")
    np.save(tmp_path / "truth.npy", standin.clean_images())
    return tmp_path


@pytest.mark.parametrize(
    "command", [[], *[[c] for c in COMMANDS], *[["prior", c] for c in PRIOR_COMMANDS]]
)
def test_help_has_an_example(nogaps: Command, command: list[str]) -> None:
    done = nogaps(*command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout
    assert not command or "Example: nogaps" in done.stdout


def test_version(nogaps: Command) -> None:
    assert nogaps("--version").stdout.startswith("nogaps ")


def test_test_set_fill_score(nogaps: Command, tmp_path: Path) -> None:
    y, truth, filled = (tmp_path / name for name in ("y.npy", "truth.npy", "filled.npy"))
    assert nogaps("make-test-set", "--out", y, "--truth", truth).returncode == 0
    if standin.kind_of(ROOT / "test_set.npy") == "stand-in":
        assert sha256(y) == sha256(ROOT / "test_set.npy")
    done = nogaps("fill", y, "-o", filled)
    assert done.returncode == 0, done.stderr
    x_hat, observed = load_images(filled), standin.course_mask()
    assert np.array_equal(x_hat[:, :, observed], load_images(y)[:, :, observed])
    done = nogaps("score", filled, truth, "--mask-from", y, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert list(rows) == ["linear", "biharmonic", "kriging", "filled.npy"]
    assert rows["kriging"]["rmse"] == pytest.approx(0.0881, abs=0.004)
    assert rows["filled.npy"]["psnr"] > rows["kriging"]["psnr"] + 1


def test_sample_then_train_then_fill(nogaps: Command, prior_folder: Path, files: Path) -> None:
    samples, run = files / "samples", files / "run"
    settings = ("--num-samples", 12, "--steps", 2, "--batch-size", 5, "--prior", prior_folder)
    done = nogaps("sample", "--out", samples, *settings)
    assert done.returncode == 0, done.stderr
    assert load_images(samples / "images.npy").shape == (12, 1, 64, 64)
    before = sha256(samples / "images.npy")
    done = nogaps("sample", "--out", samples, *settings, "--seed", 1)
    assert done.returncode == 2 and "seed 42, not 1" in done.stderr
    assert sha256(samples / "images.npy") == before
    arguments = ("train", "--images", samples, "--test-set", files / "test_set.npy", "--out", run)
    done = nogaps(*arguments, "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    done = nogaps(*arguments, "--profile", "smoke")
    assert done.returncode == 2 and "--resume" in done.stderr
    best, fast = files / "best.npy", files / "fast.npy"
    for out, options in ((best, ()), (fast, ("--quality", "fast"))):
        done = nogaps("fill", files / "test_set.npy", "-o", out, "--model", run, *options)
        assert done.returncode == 0, done.stderr
    assert sha256(best) != sha256(fast) and load_images(best).shape == (100, 1, 64, 64)
    done = nogaps("fill", files / "test_set.npy", "-o", best, "--quality", "good")
    assert done.returncode == 2 and "expected one of fast, best" in done.stderr
    weights = sha256(run / "imputer.safetensors")
    assert nogaps(*arguments, "--profile", "smoke", "--resume").returncode == 0
    assert sha256(run / "imputer.safetensors") == weights


def test_prepare_and_train_a_prior(nogaps: Command, frames_file: Path, tmp_path: Path) -> None:
    common = ("--frames", frames_file, "--out", tmp_path, "--steps", 1, "--batch-size", 2)
    done = nogaps("prior", "train-autoencoder", *common)
    assert done.returncode == 0, done.stderr
    done = nogaps("prior", "train-diffusion", *common, "--copies", 0)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pipeline" / "model_index.json").exists()


def test_check_of_good_and_bad_folders(nogaps: Command, files: Path) -> None:
    done = nogaps("check", files, "--json")
    assert done.returncode == 1
    (row,) = json.loads(done.stdout)["submissions"]
    assert not row["valid"] and any("test_set_nogaps.npy" in f["file"] for f in row["findings"])


def test_check_scores_and_writes_a_table(nogaps: Command, files: Path) -> None:
    np.save(files / "test_set_nogaps.npy", np.load(files / "truth.npy"))
    (files / "other").mkdir()
    table = files / "marks.csv"
    arguments = ("check", files, files / "other", "--test-set", files / "test_set.npy")
    done = nogaps(*arguments, "--truth", files / "truth.npy", "--csv", table)
    assert done.returncode == 1, done.stderr
    with open(table, newline="") as file:
        good, bad = csv.DictReader(file)
    assert list(good)[:3] == ["dir", "valid", "findings"]
    assert good["valid"] == "false" and "missing-file" in good["findings"]  # no notebook there
    assert float(good["rmse"]) == 0 and float(good["kriging_rmse"]) > 0.08
    assert bad["rmse"] == "" and bad["valid"] == "false"


def test_train_does_not_continue_on_other_images(nogaps: Command, files: Path) -> None:
    images = np.load(files / "truth.npy")
    np.save(files / "other.npy", images[20:60])
    np.save(files / "images.npy", images[:40])
    common = ("--test-set", files / "test_set.npy", "--out", files / "run", "--profile", "smoke")
    assert nogaps("train", "--images", files / "images.npy", *common).returncode == 0
    before = sha256(files / "run/imputer.safetensors")
    done = nogaps("train", "--images", files / "other.npy", *common, "--resume")
    assert done.returncode == 2 and "other images or settings" in done.stderr
    assert sha256(files / "run/imputer.safetensors") == before


BAD = {
    "fill absent": ("fill", "absent.npy", "-o", "out.npy"),
    "fill text": ("fill", "text.npy", "-o", "out.npy"),
    "fill truncated": ("fill", "truncated.npy", "-o", "out.npy"),
    "fill pickled": ("fill", "pickled.npy", "-o", "out.npy"),
    "fill complete": ("fill", "truth.npy", "-o", "out.npy"),
    "fill nan": ("fill", "nan.npy", "-o", "out.npy"),
    "fill model": ("fill", "test_set.npy", "-o", "out.npy", "--model", "text.npy"),
    "fill unwritable": ("fill", "test_set.npy", "-o", "text.npy/out.npy"),
    "score shape": ("score", "squeezed.npy", "truth.npy", "--mask-from", "test_set.npy"),
    "score range": ("score", "wide.npy", "truth.npy", "--mask-from", "test_set.npy"),
    "score mask": ("score", "truth.npy", "truth.npy", "--mask-from", "truth.npy"),
    "sample prior": ("sample", "--out", "s", "--prior", "absent"),
    "sample steps": ("sample", "--out", "s", "--steps", "0"),
    "sample scheduler": ("sample", "--out", "s", "--scheduler", "euler"),
    "sample course": ("sample", "--out", "s", "--prior", "course"),
    "train images": ("train", "--images", "absent.npy", "--out", "r"),
    "train profile": ("train", "--images", "truth.npy", "--out", "r", "--profile", "huge"),
    "train mask": ("train", "--images", "truth.npy", "--test-set", "truth.npy", "--out", "r"),
    "check test set": ("check", ".", "--test-set", "absent.npy"),
    "run profile": ("run", "--profile", "huge"),
    "run folder": ("run", "--folder", "empty"),
    "run verify": ("run", "--folder", "empty", "--verify"),
    "make-test-set": ("make-test-set", "--out", "text.npy/y.npy"),
    "prepare index": ("prior", "prepare", "--source", ".", "--index", "text.npy", "--out", "f.npz"),
    "autoencoder": ("prior", "train-autoencoder", "--frames", "text.npy", "--out", "r"),
    "diffusion": ("prior", "train-diffusion", "--frames", "text.npy", "--out", "r"),
}


# these start their own interpreter; the others are forked from one that has imported torch
COLD = ("fill text", "sample prior", "train images", "run folder", "diffusion")


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_line_and_exit_2(
    nogaps: Command, files: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    truth = standin.clean_images()
    (files / "empty").mkdir()
    (files / "text.npy").write_text("not an array")
    whole = (files / "test_set.npy").read_bytes()
    (files / "truncated.npy").write_bytes(whole[:5000])
    np.save(files / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(files / "nan.npy", np.where(truth == truth.max(), np.nan, truth))
    np.save(files / "squeezed.npy", truth[:, 0])
    np.save(files / "wide.npy", 2 * truth - 1)
    before = {path.name: sha256(path) for path in files.iterdir() if path.is_file()}
    if name in COLD:
        done = nogaps(*BAD[name], cwd=files)
        code, text = done.returncode, done.stdout + done.stderr
    else:
        log = tmp_path_factory.mktemp("logs") / "log"
        code = killing.end(killing.start(log, *BAD[name], cwd=files))
        text = log.read_text()
    assert code == 2, text
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("nogaps: ")]
    assert len(lines) == 1, text
    assert not [p for p in files.iterdir() if p.name.startswith(".")], "a temporary file is left"
    after = {path.name: sha256(path) for path in files.iterdir() if path.is_file()}
    assert before == after


def test_sampling_takes_the_shipped_prior(nogaps: Command, tmp_path: Path) -> None:
    done = nogaps("sample", "--num-samples", 2, "--steps", 2, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_samples"] == 2
    assert SHIPPED.is_dir()
