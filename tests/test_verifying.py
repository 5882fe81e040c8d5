"""`nogaps run --verify`: what it reads off a notebook, which stage it blames, when it passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from nogaps import running, standin
from nogaps.commands.main import app
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK
from nogaps.verifying import STAGES, TOLERANCE, WEIGHTS, as_text, read_record

Y = standin.corrupted_images()
X_HAT = standin.clean_images()
VERSIONS = "python 3.11.7, torch 2.6.0+cpu, numpy 2.4.6, diffusers 0.42.1"
HASHES = {stage: f"{k:x}" * 64 for k, stage in enumerate(STAGES, 1)}


def printed(
    hashes: dict[str, str], versions: str = VERSIONS, device: str = "cpu (2 threads)"
) -> list:
    """What the notebook prints, cell by cell; the summary last."""
    parts = {key: {"sha256": hashes[stage]} for stage, (key, _) in STAGES.items()}
    return [
        f"profile: smoke   device: {device}   convolutions in bfloat16\n{versions}\n"
        f"test_set.npy: stand-in, sha256 {hashes['test_set']}\n",
        f"synthetic set: (48, 1, 64, 64), std 0.242, sha256 {hashes['synthetic_set'][:16]}\n",
        f"imputer.safetensors sha256: {hashes['weights']}\n",
        f"{RESULT} sha256: {hashes['result']}\n",
        json.dumps({"profile": "smoke", **parts, "seed": 0}, indent=1) + "\n",
    ]


def write_notebook(folder: Path, texts: list[str]) -> Path:
    out = [{"output_type": "stream", "name": "stdout", "text": [text]} for text in texts]
    shown = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0K"}}
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "profile: full"}]
    cells += [
        {"cell_type": "code", "metadata": {}, "source": "", "execution_count": 1, "outputs": o}
        for o in ([shown, *out[:1]], *([o] for o in out[1:]))
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / NOTEBOOK).write_text(json.dumps(content))
    return folder / NOTEBOOK


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An executed notebook and the files that belong to it."""
    np.save(tmp_path / "test_set.npy", Y)
    np.save(tmp_path / RESULT, X_HAT)
    write_notebook(tmp_path, printed(own_hashes(tmp_path)))
    return tmp_path


def own_hashes(folder: Path, **others: str) -> dict[str, str]:
    files = {"test_set": sha256(folder / "test_set.npy"), "result": sha256(folder / RESULT)}
    return HASHES | {"weights": "b" * 64} | files | others


@pytest.fixture
def rerun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """Make the next execution print and write what is given; returns the executed profiles."""

    def prepare(x_hat: np.ndarray = X_HAT, versions: str = VERSIONS, **others: str) -> list:
        calls: list[str] = []

        def execute(source: Path, profile: str, output: Path) -> Path:
            calls.append(profile)
            np.save(output / RESULT, x_hat)
            (output / "runs/smoke").mkdir(parents=True)
            (output / "runs/smoke" / WEIGHTS).write_bytes(others.get("weights", "w").encode())
            hashes = own_hashes(folder, result=sha256(output / RESULT), **others)
            write_notebook(output, printed(hashes, versions))
            return output / RESULT

        weights = hashlib.sha256(b"w").hexdigest()
        write_notebook(folder, printed(own_hashes(folder, weights=weights)))
        monkeypatch.setattr(running, "execute", execute)
        return calls

    return prepare


def moved(rms: float) -> np.ndarray:
    """The result with `rms` added to every hole pixel."""
    return np.where((Y != 0).any(0), X_HAT, X_HAT + rms * np.where(X_HAT > 0.5, -1, 1)).astype("f4")


def test_the_same_bits_pass(folder: Path, rerun: Callable) -> None:
    assert rerun() == []
    comparison = running.verify(folder)
    assert comparison["identical"] and comparison["passed"] and comparison["rms"] == 0
    assert (
        all(comparison[stage] is True for stage in STAGES)
        and comparison["first_difference"] is None
    )
    assert "first difference" not in as_text(comparison)


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
    later = list(STAGES)[list(STAGES).index(first) :]
    assert all(comparison[stage] is True for stage in STAGES if stage not in later)
    text = as_text(comparison)
    assert f"first difference: {first.replace('_', ' ')}" in text
    assert "torch 2.6.0+cpu, now 2.13.0+cpu" in text and "numpy" not in text


@pytest.mark.parametrize(("rms", "code"), [(TOLERANCE * 0.9, 0), (TOLERANCE * 1.1, 1)])
def test_tolerance_decides_the_exit_code(
    folder: Path, rerun: Callable, rms: float, code: int
) -> None:
    rerun(x_hat=moved(rms))
    done = CliRunner().invoke(app, ["run", "--folder", str(folder), "--verify", "--json"])
    comparison = json.loads(done.stdout)
    assert done.exit_code == code and comparison["passed"] is (code == 0)
    assert (
        comparison["rms"] == pytest.approx(rms, rel=1e-3) and comparison["tolerance"] == TOLERANCE
    )
    assert not comparison["identical"] and comparison["then"]["device"] == "cpu (2 threads)"
    assert comparison["now"] == comparison["then"]
    text = CliRunner().invoke(app, ["run", "--folder", str(folder), "--verify"]).stdout
    assert ("NOT PASSED" in text) is (code == 1) and "another processor" in text


@pytest.mark.parametrize("name", ["test_set.npy", RESULT])
def test_files_of_another_run_are_not_verified(folder: Path, rerun: Callable, name: str) -> None:
    calls = rerun()
    np.save(folder / name, X_HAT[::-1])
    comparison = running.verify(folder)
    assert not comparison["passed"] and comparison["rms"] is None and calls == []
    assert comparison["first_difference"] == ("result" if name == RESULT else "test_set")
    assert f"not executed: {name}" in as_text(comparison)


def test_the_committed_profile_is_taken_unless_another_is_asked(
    folder: Path, rerun: Callable
) -> None:
    calls = rerun()
    running.verify(folder)
    running.verify(folder, "cpu")
    assert calls == ["smoke", "cpu"]


def test_a_run_that_kept_its_parts_elsewhere_proves_nothing(
    folder: Path, rerun: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerun()
    execute = running.execute

    def on_a_drive(source: Path, profile: str, output: Path) -> Path:
        result = execute(source, profile, output)
        (output / "runs/smoke" / WEIGHTS).unlink()
        return result

    monkeypatch.setattr(running, "execute", on_a_drive)
    with pytest.raises(BadInput, match="not on a Drive"):
        running.verify(folder)


@pytest.mark.parametrize("damage", ["no summary", "cut", "no hashes"])
def test_a_notebook_is_read_as_far_as_it_goes(folder: Path, damage: str) -> None:
    hashes = own_hashes(folder)
    texts = printed(hashes)
    texts[4] = {"no summary": "", "cut": texts[4][:150], "no hashes": '{"profile": 3}'}[damage]
    if damage == "no hashes":
        texts[1:4] = ["synthetic set: sha256 zzz\n", "sha256: \n", f"{RESULT} sha256: abc\n"]
        hashes = {"test_set": hashes["test_set"]}
    else:
        hashes["synthetic_set"] = hashes["synthetic_set"][:16]
    record = read_record(write_notebook(folder, texts))
    assert record.profile == "smoke" and record.hashes == hashes
    assert list(record.environment) == [
        *("device", "convolutions", "python", "torch", "numpy", "diffusers")
    ]


def test_what_is_not_printed_is_not_known(folder: Path, rerun: Callable) -> None:
    rerun()
    texts = printed(own_hashes(folder))
    texts[2], summary = "", json.loads(texts[4])
    del summary["weights"]
    write_notebook(folder, [*texts[:4], json.dumps(summary)])
    comparison = running.verify(folder)
    assert (
        comparison["weights"] is None
        and comparison["passed"]
        and comparison["first_difference"] is None
    )
    assert "weights: not known" in as_text(comparison)
    # the weights that are shipped are those of the committed run, if that was the full one
    shipped = folder / "nogaps/weights/imputer" / WEIGHTS
    shipped.parent.mkdir(parents=True)
    shipped.write_bytes(b"other")
    texts[0] = texts[0].replace("smoke", "full")
    write_notebook(folder, [*texts[:4], json.dumps(summary | {"profile": "full"})])
    assert running.verify(folder)["first_difference"] == "weights"
    shipped.write_bytes(b"w")
    assert running.verify(folder)["weights"] is True


@pytest.mark.parametrize("content", ["", "{}", '{"cells": []}', "[" * 9999])
def test_nothing_to_compare_with_is_one_line(folder: Path, content: str) -> None:
    (folder / NOTEBOOK).write_text(content)
    with pytest.raises(BadInput, match=NOTEBOOK):
        running.verify(folder)


def test_missing_result_is_one_line(folder: Path) -> None:
    (folder / RESULT).unlink()
    with pytest.raises(BadInput, match=RESULT):
        running.verify(folder)


def test_the_notebook_of_this_tree_prints_what_is_read() -> None:
    record = read_record(ROOT / NOTEBOOK)
    assert set(record.hashes) >= {"test_set", "synthetic_set", "result"}
    assert all(len(digest) == 64 for digest in record.hashes.values())
    names = {"device", "convolutions", "python", "torch", "numpy", "diffusers"}
    assert set(record.environment) == names
