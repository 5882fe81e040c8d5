"""Whatever a command is given: exit code 2 and one line, nothing changed, nothing left, no hang.

Arrays of any kind may also be used: then the command ends with 0 or 1.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_cases import IMAGES, INPUTS, MASK, OUTPUTS, USES, place, words, write_files
from fuzz_targets import make_imputer
from hypothesis import given
from hypothesis import strategies as st
from in_process import Done, called

from nogaps.submission import write_csv
from tests.filling.test_properties import any_array, with_holes
from tests.filling.test_properties import bounded as examples

# a reader that waits for ever, or reads /dev/zero, fails by itself
pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_files(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return what a folder holds; of what is not a file, the names alone."""
    paths = (p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())
    return {str(p): p.read_bytes() if p.is_file() else None for p in paths}


def refused(folder: Path, *arguments: object) -> Done:
    """Call a command that must end in one line and leave the folder as it is."""
    before = contents(folder)
    done = called(*arguments, cwd=folder)
    assert done.code == 2 and not done.out and done.err.startswith("nogaps: "), done
    assert done.err.count("\n") == 1 and len(done.err) > 20, done.err
    assert contents(folder) == before, "something was changed or left"
    return done


@pytest.mark.parametrize("name", list(USES))
def test_wrong_use(files: Path, name: str) -> None:
    refused(files, *words(USES[name]))


PLACES: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "folder": lambda path: path.mkdir(),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "text": lambda path: path.write_text("neither an array nor an image\n" * 9),
    "empty file": lambda path: path.write_bytes(b""),
    "pickle": lambda path: path.write_bytes(pickle.dumps([1, 2])),
    "cut array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', "),
}


@pytest.mark.parametrize("kind", list(PLACES))
@pytest.mark.parametrize("command", list(INPUTS))
def test_an_input_that_cannot_be_read(files: Path, command: str, kind: str) -> None:
    name = place(INPUTS[command]).removeprefix("./")
    PLACES[kind](files / name)
    assert name in refused(files, *words(INPUTS[command])).err


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
@pytest.mark.parametrize("command", list(OUTPUTS))
def test_outputs_take_the_place_of_files_only(files: Path, command: str, kind: str) -> None:
    """Root could replace /dev/null, or the end of a pipe, by a file."""
    name = place(OUTPUTS[command])
    PLACES[kind](files / name)
    before = os.lstat(files / name)
    assert name in refused(files, *words(OUTPUTS[command])).err
    assert os.lstat(files / name).st_ino == before.st_ino


@pytest.mark.parametrize("x", ["a" * 300, "y.npy/b"], ids=lambda x: x[:5])
@pytest.mark.parametrize("command", ["fill", "score", "check", "train", "prepare", "sample"])
def test_names_that_cannot_be(files: Path, command: str, x: str) -> None:
    refused(files, *words(INPUTS[command], x))
    refused(files, *words(OUTPUTS["fill"], x))


STRANGE = ["new\nline", "tab\tand  spaces", "-o", "--help", "é\u202e\u0301", "\udcff", "*?[a]"]
STRANGE += ["a" * 240, "\x1b[31m", "%s{0}", "'\"", ".hidden", "~"]


@pytest.mark.parametrize("x", STRANGE, ids=lambda x: ascii(x)[:20])
def test_strange_names_are_used_as_they_are(files: Path, x: str) -> None:
    source, out = f"{x}.npy", f"{x[:200]} out.npy"
    np.save(files / source, IMAGES * MASK)
    arguments = ["fill", "--model", "m", "-o", out, "--", source]
    done = called(*arguments, cwd=files)
    assert done.code == 0, done.err
    assert np.array_equal(np.load(files / out)[..., MASK], IMAGES[..., MASK])
    (files / source).write_bytes(b"no array")
    refused(files, *arguments)


def test_tables_take_any_name(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"dir": "a\udcff\n,b", "valid": False, "findings": []}])
    assert b'"a\\udcff\n,b",false' in (tmp_path / "a.csv").read_bytes()


def run_as_nobody(commands: list[list[str]], folder: Path) -> None:
    """Call commands that must be refused, in a process that is not root's."""
    before, pid = sorted(os.listdir(folder)), os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0, "see the traceback"
        return
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        for arguments in commands:
            done = called(*arguments, cwd=folder)
            own = done.err.startswith("Usage: ") and "is not readable" in done.err  # typer's
            assert done.code == 2 and (own or done.err.count("\n") == 1), (arguments, done)
            assert sorted(os.listdir(folder)) == before
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def test_places_without_permission() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        locked = folder / "locked"
        locked.mkdir()
        lines = [INPUTS[name] for name in ("fill", "fill model", "score", "check", "index")]
        for line in lines:
            (locked / place(line).replace("X", "a")).write_bytes(b"x")
        write_files(folder)
        folder.chmod(0o777)
        commands = [words(line, "locked/a") for line in lines]
        commands.append(words(OUTPUTS["fill"], "locked/c"))
        for arguments in commands:
            called(*arguments, cwd=folder)  # imports what the other user may not read
        (locked / "c.npy").unlink()
        locked.chmod(0)
        run_as_nobody(commands, folder)
        locked.chmod(0o755)
        for path in locked.iterdir():
            path.chmod(0)
        run_as_nobody(commands, folder)


ANY = {
    "fill": "fill X/a.npy -o X/out.npy --model X",
    "fill nan": "fill X/a.npy -o X/out.npy --model X --missing nan",
    "fill mask": "fill X/a.npy -o X/out.npy --model X --mask X/b.npy",
    "score": "score X/a.npy X/a.npy --mask-from X/b.npy",
    "score filled": "score X/test_set_nogaps.npy X/a.npy --mask-from X/b.npy",
    "check": "check X --test-set X/a.npy --truth X/b.npy",
    "check truth": "check X --test-set X/b.npy --truth X/a.npy",
    "train": "train --images X/a.npy --test-set X/b.npy --out X/out --profile smoke",
    "prepare": "prior prepare --source X/a.npy --size 8 --out X/o.npz --fit pad --val-share 0",
}


def ended(name: str, **arrays: np.ndarray) -> int:
    """Call a command on these arrays, check how it ends, and return its exit code."""
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        make_imputer(folder)
        for file, array in arrays.items():
            np.save(folder / f"{file}.npy", array)
        before = contents(folder)
        done = called(*words(ANY[name], at), "--json")
        after = contents(folder)
        assert {path: after[path] for path in before} == before, "changed an input"
        if done.code == 2:
            lines = [line for line in done.err.splitlines() if line.startswith("nogaps: ")]
            assert len(lines) == 1 and at in lines[0] and not done.out, done.err
            assert after == before, "a refused command left something"
        else:
            assert done.code in (0, 1) and json.loads(done.out)
            assert not [path for path in after if Path(path).name[0] == "."]
    return done.code


@examples(40)
@given(a=any_array(0.9), b=any_array(0.9), name=st.sampled_from(list(ANY)))
def test_commands_on_any_array(a: np.ndarray, b: np.ndarray, name: str) -> None:
    a = with_holes(a, np.nan if "nan" in name else 0, 0) if "fill" in name else a
    ended(name, a=a, b=b, test_set_nogaps=b)


@examples(20)
@given(
    shape=st.tuples(st.integers(1, 3), st.just(1), st.integers(4, 12), st.integers(4, 12)),
    seed=st.integers(0, 999),
    holes=st.sampled_from([0.0, 0.03, 0.5, 0.9, 1.0]),
    name=st.sampled_from(["score filled", "check truth"]),
)
def test_scores_of_any_size_and_mask(shape: tuple, seed: int, holes: float, name: str) -> None:
    rng = np.random.default_rng(seed)
    x, mask = rng.random(shape, np.float32), rng.random(shape[2:]) >= holes
    code = ended(name, a=x, b=x * mask, test_set_nogaps=rng.random(shape, np.float32))
    assert (code < 2) == (min(shape[2:]) >= 6 and mask.any() and not mask.all())
