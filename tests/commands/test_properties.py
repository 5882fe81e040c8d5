"""Commands on any arrays: exit 0, or 2 with one line; inputs as they were, nothing left over."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import make_imputer
from hypothesis import given
from hypothesis import strategies as st
from in_process import Done, called

from tests.imputers.test_properties import any_array, bounded, with_holes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a tiny imputer."""
    folder = tmp_path_factory.mktemp("model")
    make_imputer(folder)
    return folder


def check_command(done: Done, folder: Path, before: dict[Path, bytes]) -> None:
    """Exit 0, or 2 with one line that names a file; inputs as they were, nothing half-written."""
    now = {path: path.read_bytes() for path in folder.iterdir() if path in before}
    assert now == before, "changed an input"
    lines = [line for line in done.err.splitlines() if line.startswith("nogaps: ")]
    if done.code == 2:
        assert len(lines) == 1 and str(folder) in lines[0] and not done.out, done.err
        assert set(folder.iterdir()) == set(before), "a refused command left something"
    else:
        assert done.code in (0, 1) and json.loads(done.out)
        assert not [path for path in folder.iterdir() if path.name[0] == "."]


COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "fill": lambda at: ["fill", at / "a.npy", "-o", at / "out.npy"],
    "fill nan": lambda at: ["fill", at / "a.npy", "-o", at / "out.npy", "--missing", "nan"],
    "fill mask": lambda at: ["fill", at / "a.npy", "-o", at / "out.npy", "--mask", at / "b.npy"],
    "score": lambda at: ["score", at / "a.npy", at / "a.npy", "--mask-from", at / "b.npy"],
    "check": lambda at: ["check", at, "--test-set", at / "a.npy", "--truth", at / "b.npy"],
    "train": lambda at: ["train", "--images", at / "a.npy", "--test-set", at / "b.npy"],
    "prepare": lambda at: ["prior", "prepare", "--source", at / "a.npy", "--size", "8"],
}
OPTIONS: dict[str, Callable[[Path], list[object]]] = {
    "prepare": lambda at: ["--out", at / "out.npz", "--fit", "pad", "--val-share", "0"],
    "train": lambda at: ["--out", at / "out", "--profile", "smoke"],
}


@bounded(70)
@given(a=any_array(0.9), b=any_array(0.9), command=st.sampled_from(list(COMMANDS)))
def test_commands_on_any_array(model: Path, a: np.ndarray, b: np.ndarray, command: str) -> None:
    a = with_holes(a, np.nan if "nan" in command else 0, 0) if "fill" in command else a
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, array in (("a.npy", a), ("b.npy", b), ("test_set_nogaps.npy", b)):
            np.save(folder / file, array)
        arguments = [*COMMANDS[command](folder), "--json"]
        arguments += OPTIONS[command](folder) if command in OPTIONS else []
        arguments += ["--model", model] if "fill" in command else []
        before = {path: path.read_bytes() for path in folder.iterdir()}
        check_command(called(*arguments), folder, before)


@bounded(20)
@given(
    shape=st.tuples(st.integers(1, 3), st.just(1), st.integers(4, 12), st.integers(4, 12)),
    seed=st.integers(0, 999),
    holes=st.sampled_from([0.0, 0.03, 0.5, 0.9, 1.0]),
    command=st.sampled_from(["score", "check"]),
)
def test_scores_of_any_size_and_mask(shape: tuple, seed: int, holes: float, command: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random(shape, np.float32)
    mask = rng.random(shape[2:]) >= holes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled = rng.random(shape, np.float32)
        for file, array in (("a", x), ("b", x * mask), ("test_set_nogaps", filled)):
            np.save(folder / f"{file}.npy", array)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        score = ["score", folder / "test_set_nogaps.npy", folder / "a.npy", "--mask-from"]
        check = ["check", folder, "--truth", folder / "a.npy", "--test-set"]
        done = called(*(score if command == "score" else check), folder / "b.npy", "--json")
        check_command(done, folder, before)
        assert (done.code < 2) == (min(shape[2:]) >= 6 and mask.any() and not mask.all()), done.err


def test_a_file_that_is_named_like_a_method(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    for name, array in (("kriging", x), ("x.npy", x), ("y.npy", x * (np.arange(8) > 2))):
        with open(tmp_path / name, "wb") as file:
            np.save(file, array)
    done = called("score", "kriging", "x.npy", "--mask-from", "y.npy", "--json", cwd=tmp_path)
    rows = json.loads(done.out)
    assert list(rows) == ["linear", "biharmonic", "kriging", "./kriging"]
    assert rows["./kriging"]["rmse"] == 0 < rows["kriging"]["rmse"]
