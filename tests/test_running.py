"""`nogaps run --verify`: what it reads off a notebook, which stage it blames, when it passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from in_process import called
from submissions import MASK, TRUTH, Y, code, figure, stream, write

from nogaps import running
from nogaps.running import STAGES, TOLERANCE, WEIGHTS, as_text, read_record
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK

VERSIONS = "python 3.11.7, torch 2.6.0+cpu, numpy 2.4.6, diffusers 0.42.1"
HASHES = {stage: f"{k:x}" * 64 for k, stage in enumerate(STAGES, 1)}


def printed(hashes: dict[str, str], versions: str = VERSIONS, profile: str = "smoke") -> list[str]:
    """What the notebook prints, cell by cell; the summary last."""
    return [
        f"profile: {profile}   generative model: shipped   device: cpu (2 threads)\n"
        f"convolutions in bfloat16: this processor has it\n{versions}\n"
        f"test_set.npy: stand-in, sha256 {hashes['test_set']}\n",
        f"synthetic set: (48, 1, 64, 64), std 0.242, sha256 {hashes['synthetic_set'][:16]}\n",
        f"imputer.safetensors sha256: {hashes['weights']}\n",
        f"{RESULT} sha256: {hashes['result']}\n",
    ]


def write_notebook(folder: Path, texts: list[str]) -> Path:
    cells = [code("", 1, figure(), *map(stream, texts))]
    write(folder, {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    return folder / NOTEBOOK


def own_hashes(folder: Path, **others: str) -> dict[str, str]:
    files = {"test_set": sha256(folder / "test_set.npy"), "result": sha256(folder / RESULT)}
    return HASHES | {"weights": hashlib.sha256(b"w").hexdigest()} | files | others


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An executed notebook and the files that belong to it."""
    np.save(tmp_path / "test_set.npy", Y)
    np.save(tmp_path / RESULT, TRUTH)
    write_notebook(tmp_path, printed(own_hashes(tmp_path)))
    return tmp_path


@pytest.fixture
def rerun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """Make the next execution print and write what is given; returns the executed profiles."""

    def prepare(x_hat: np.ndarray = TRUTH, versions: str = VERSIONS, **others: str) -> list:
        calls: list[str] = []

        def execute(source: Path, profile: str, output: Path) -> Path:
            calls.append(profile)
            np.save(output / RESULT, x_hat)
            weights = output / "runs/smoke" / WEIGHTS
            weights.parent.mkdir(parents=True)
            if others.get("weights") != "elsewhere":
                weights.write_bytes(others.get("weights", "w").encode())
            hashes = own_hashes(folder, result=sha256(output / RESULT), **others)
            write_notebook(output, printed(hashes, versions))
            return output / RESULT

        monkeypatch.setattr(running, "execute", execute)
        return calls

    return prepare


def moved(rms: float) -> np.ndarray:
    """The result with `rms` added to every hole pixel."""
    return np.where(MASK, TRUTH, TRUTH + rms * np.where(TRUTH > 0.5, -1, 1)).astype("f4")


def test_the_same_bits_pass_in_the_committed_profile(folder: Path, rerun: Callable) -> None:
    calls = rerun()
    comparison = running.verify(folder)
    assert comparison["identical"] and comparison["passed"] and comparison["rms"] == 0
    assert all(comparison[stage] is True for stage in STAGES)
    assert comparison["first_difference"] is None
    assert "first difference" not in as_text(comparison)
    running.verify(folder, "cpu")
    assert calls == ["smoke", "cpu"]


@pytest.mark.parametrize(
    ("different", "first"),
    [
        ({"x_hat": moved(0.001)}, "result"),
        ({"x_hat": moved(0.001), "weights": "other"}, "weights"),
        ({"weights": "other"}, "weights"),
        ({"x_hat": moved(0.001), "weights": "other", "synthetic_set": "c" * 64}, "synthetic_set"),
    ],
)
def test_the_first_stage_that_differs_is_named(
    folder: Path, rerun: Callable, different: dict, first: str
) -> None:
    rerun(versions=VERSIONS.replace("2.6.0", "2.13.0"), **different)
    comparison = running.verify(folder)
    assert comparison["first_difference"] == first and comparison["passed"]
    earlier = list(STAGES)[: list(STAGES).index(first)]
    assert all(comparison[stage] is True for stage in earlier)
    text = as_text(comparison)
    assert f"first difference: {first.replace('_', ' ')}" in text
    assert "torch 2.6.0+cpu, now 2.13.0+cpu" in text and "numpy" not in text


@pytest.mark.parametrize(("rms", "exit_code"), [(TOLERANCE * 0.9, 0), (TOLERANCE * 1.1, 1)])
def test_tolerance_decides_the_exit_code(
    folder: Path, rerun: Callable, rms: float, exit_code: int
) -> None:
    rerun(x_hat=moved(rms))
    done = called("run", "--folder", folder, "--verify", "--json")
    comparison = json.loads(done.out)
    assert done.code == exit_code and comparison["passed"] is (exit_code == 0)
    assert comparison["rms"] == pytest.approx(rms, rel=1e-3)
    assert comparison["tolerance"] == TOLERANCE and not comparison["identical"]
    assert comparison["now"] == comparison["then"]
    assert comparison["then"]["device"] == "cpu (2 threads)"
    text = as_text(comparison)
    assert ("NOT PASSED" in text) is (exit_code == 1) and "another processor" in text


@pytest.mark.parametrize("name", ["test_set.npy", RESULT])
def test_files_of_another_run_are_not_verified(folder: Path, rerun: Callable, name: str) -> None:
    calls = rerun()
    np.save(folder / name, TRUTH[::-1])
    comparison = running.verify(folder)
    assert not comparison["passed"] and comparison["rms"] is None
    assert comparison["first_difference"] == ("result" if name == RESULT else "test_set")
    assert f"not executed: {name}" in as_text(comparison)
    np.save(folder / name, TRUTH[1:])
    write_notebook(folder, printed(own_hashes(folder))[:3])  # no hash of the result
    with pytest.raises(BadInput, match="has shape"):
        running.verify(folder)
    assert calls == []


def test_a_run_that_kept_its_parts_elsewhere_proves_nothing(folder: Path, rerun: Callable) -> None:
    rerun(weights="elsewhere")
    with pytest.raises(BadInput, match="not on a Drive"):
        running.verify(folder)


def test_a_notebook_is_read_as_far_as_it_goes(folder: Path) -> None:
    hashes = own_hashes(folder)
    texts = printed(hashes)[:1]
    texts += ["synthetic set: sha256 zzz\n", "sha256: \n", f"{RESULT} sha256: abc\n"]
    record = read_record(write_notebook(folder, texts))
    assert record.profile == "smoke" and record.hashes == {"test_set": hashes["test_set"]}


def test_a_stage_without_a_hash_is_not_known(folder: Path, rerun: Callable) -> None:
    rerun()
    texts = printed(own_hashes(folder, weights=""))
    write_notebook(folder, [*texts[:2], *texts[3:]])
    comparison = running.verify(folder)
    assert comparison["weights"] is None and comparison["first_difference"] is None
    assert comparison["passed"] and "weights: not known" in as_text(comparison)


@pytest.mark.parametrize(
    ("name", "content"), [(NOTEBOOK, "{}"), (NOTEBOOK, "[" * 9999), (RESULT, "")]
)
def test_nothing_to_compare_with_is_one_line(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(BadInput, match=name):
        running.verify(folder)


def test_the_notebook_of_this_tree_prints_what_is_read() -> None:
    record = read_record(ROOT / NOTEBOOK)
    assert set(record.hashes) >= {"test_set", "synthetic_set", "result"}
    assert all(len(digest) >= 16 for digest in record.hashes.values())
    names = {"device", "convolutions", "python", "torch", "numpy", "diffusers"}
    assert set(record.environment) == names
