"""Commands on any arrays: exit 0 or 1, or 2 with one line; inputs as they were, nothing left."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import make_imputer
from hypothesis import given
from hypothesis import strategies as st
from in_process import called

from tests.filling.test_properties import any_array, bounded, with_holes

COMMANDS = {
    "fill": "fill AT/a.npy -o AT/out.npy",
    "fill nan": "fill AT/a.npy -o AT/out.npy --missing nan",
    "fill mask": "fill AT/a.npy -o AT/out.npy --mask AT/b.npy",
    "score": "score AT/a.npy AT/a.npy --mask-from AT/b.npy",
    "score filled": "score AT/test_set_nogaps.npy AT/a.npy --mask-from AT/b.npy",
    "check": "check AT --test-set AT/a.npy --truth AT/b.npy",
    "check truth": "check AT --test-set AT/b.npy --truth AT/a.npy",
    "train": "train --images AT/a.npy --test-set AT/b.npy --out AT/out --profile smoke",
    "prepare": "prior prepare --source AT/a.npy --size 8 --out AT/o.npz --fit pad --val-share 0",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_imputer(folder)
    return folder


def run(name: str, model: Path, **arrays: np.ndarray) -> int:
    """Call a command on these arrays, check how it ends, and return its exit code."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for file, array in arrays.items():
            np.save(folder / f"{file}.npy", array)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        options = ["--json", *(["--model", model] if name.startswith("fill") else [])]
        done = called(*COMMANDS[name].replace("AT", place).split(), *options)
        assert {path: path.read_bytes() for path in before} == before, "changed an input"
        if done.code == 2:
            lines = [line for line in done.err.splitlines() if line.startswith("nogaps: ")]
            assert len(lines) == 1 and place in lines[0] and not done.out, done.err
            assert set(folder.iterdir()) == set(before), "a refused command left something"
        else:
            assert done.code in (0, 1) and json.loads(done.out)
            assert not [path for path in folder.iterdir() if path.name[0] == "."]
    return done.code


@bounded(40)
@given(a=any_array(0.9), b=any_array(0.9), name=st.sampled_from(list(COMMANDS)))
def test_commands_on_any_array(model: Path, a: np.ndarray, b: np.ndarray, name: str) -> None:
    a = with_holes(a, np.nan if "nan" in name else 0, 0) if "fill" in name else a
    run(name, model, a=a, b=b, test_set_nogaps=b)


@bounded(20)
@given(
    shape=st.tuples(st.integers(1, 3), st.just(1), st.integers(4, 12), st.integers(4, 12)),
    seed=st.integers(0, 999),
    holes=st.sampled_from([0.0, 0.03, 0.5, 0.9, 1.0]),
    name=st.sampled_from(["score filled", "check truth"]),
)
def test_scores_of_any_size_and_mask(
    model: Path, shape: tuple, seed: int, holes: float, name: str
) -> None:
    rng = np.random.default_rng(seed)
    x, mask = rng.random(shape, np.float32), rng.random(shape[2:]) >= holes
    code = run(name, model, a=x, b=x * mask, test_set_nogaps=rng.random(shape, np.float32))
    assert (code < 2) == (min(shape[2:]) >= 6 and mask.any() and not mask.all())
