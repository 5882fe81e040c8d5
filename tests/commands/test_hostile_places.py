"""Pipes, loops, locked places and names of all sorts: one line and exit 2, never a hang."""

from __future__ import annotations

import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fuzz_targets import make_imputer
from image_files import IMAGES
from in_process import called

from nogaps.imputers.loading import WEIGHTS
from nogaps.submission.marks import write_csv

UNIT = (IMAGES / 60_000).astype(np.float32)[:, None]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A reader that waits for ever, or reads /dev/zero, fails by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if (statm := Path("/proc/self/statm")).exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(path: Path) -> None:
    pass


PLACES = {f.__name__: f for f in (pipe, loop, folder, device, nothing)}
COMMANDS: dict[str, list[str]] = {
    "fill": ["fill", "X.npy", "-o", "out.npy", "--model", "m"],
    "fill npz": ["fill", "X.npz", "-o", "out.npz", "--model", "m"],
    "fill nifti": ["fill", "X.nii.gz", "-o", "out.nii.gz", "--model", "m"],
    "fill mask": ["fill", "y.npy", "-o", "out.npy", "--mask", "X.npy", "--model", "m"],
    "fill model": ["fill", "y.npy", "-o", "out.npy", "--model", "X.safetensors"],
    "score": ["score", "X.npy", "truth.npy", "--mask-from", "y.npy"],
    "score truth": ["score", "y.npy", "X.npy", "--mask-from", "y.npy"],
    "score mask": ["score", "y.npy", "truth.npy", "--mask-from", "X.npy"],
    "check": ["check", ".", "--test-set", "X.npy"],
    "train": ["train", "--images", "X.npy", "--test-set", "y.npy", "--out", "o"],
    "train mask": ["train", "--images", "truth.npy", "--test-set", "X.npy", "--out", "o"],
    "prepare": ["prior", "prepare", "--source", "X.png", "--out", "o.npz"],
    "index": ["prior", "prepare", "--source", ".", "--index", "X.csv", "--out", "o.npz"],
    "frames": ["prior", "train-autoencoder", "--frames", "X.npz", "--out", "o"],
    "sample": ["sample", "--out", "o", "--prior", "./X"],
}


def good_files(at: Path) -> None:
    """What COMMANDS take, X excepted."""
    np.save(at / "truth.npy", UNIT)
    np.save(at / "y.npy", UNIT * (np.arange(6) > 1))
    (at / "m").mkdir()
    make_imputer(at / "m")


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_places_that_are_no_files(tmp_path: Path, command: str, place: str) -> None:
    good_files(tmp_path)
    names = [word for word in COMMANDS[command] if "X" in word]
    PLACES[place](tmp_path / names[0])
    before = sorted(os.listdir(tmp_path))
    done = called(*COMMANDS[command], cwd=tmp_path)
    assert done.code == 2 and done.err.count("\n") == 1 and not done.out, done.err
    assert done.err.startswith("nogaps: ") and names[0].removeprefix("./") in done.err
    assert sorted(os.listdir(tmp_path)) == before


OUTPUTS: dict[str, list[str]] = {
    "fill": ["fill", "y.npy", "-o", "X.npy", "--model", "m"],
    "make-test-set": ["make-test-set", "--out", "X.npy"],
    "check": ["check", "empty", "--test-set", "y.npy", "--csv", "X.csv"],
}


@pytest.mark.parametrize("place", ["pipe", "folder", "device"])
@pytest.mark.parametrize("command", list(OUTPUTS))
def test_outputs_take_the_place_of_files_only(tmp_path: Path, command: str, place: str) -> None:
    """Root would replace /dev/null, or the end of a pipe, by a file."""
    good_files(tmp_path)
    (tmp_path / "empty").mkdir()
    name = next(word for word in OUTPUTS[command] if "X" in word)
    PLACES[place](tmp_path / name)
    before = os.lstat(tmp_path / name)
    done = called(*OUTPUTS[command], cwd=tmp_path)
    assert done.code == 2 and done.err.count("\n") == 1 and name in done.err, done
    assert os.lstat(tmp_path / name).st_ino == before.st_ino
    assert not [path for path in tmp_path.iterdir() if path.name[0] == "."]


NAMES = [
    "new\nline",
    "tab\tand  spaces",
    "-o",
    "--help",
    "é\u202e\u0301",
    "\udcff",
    "*?[a]",
    "a" * 240,
]
NAMES += ["\x1b[31m", "%s{0}", "'\"", ".hidden", "~"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_strange_names_are_used_as_they_are(tmp_path: Path, name: str) -> None:
    make_imputer(tmp_path)
    source, out = f"{name}.npy", f"{name[:200]} out.npy"
    np.save(tmp_path / source, UNIT * (np.arange(6) > 1))
    arguments = ["fill", "--model", tmp_path / WEIGHTS]
    done = called(*arguments, "-o", out, "--", source, cwd=tmp_path)
    assert done.code == 0, done.err
    assert np.array_equal(np.load(tmp_path / out)[..., 2:], UNIT[..., 2:])
    (tmp_path / source).write_bytes(b"no array")
    done = called(*arguments, "-o", out, "--", source, cwd=tmp_path)
    assert done.code == 2 and done.err.count("\n") == 1 and "a .npy array" in done.err


@pytest.mark.parametrize("name", ["a" * 300, "b" * 5000, "a.npy/b"], ids=lambda n: n[:5])
@pytest.mark.parametrize("command", ["fill", "score", "check", "train", "prepare", "sample"])
def test_names_that_cannot_be(tmp_path: Path, command: str, name: str) -> None:
    good_files(tmp_path)
    np.save(tmp_path / "a.npy", UNIT)
    arguments = [word.replace("X", name) for word in COMMANDS[command]]
    done = called(*arguments, cwd=tmp_path)
    assert done.code == 2 and done.err.count("\n") == 1, done.err
    if command == "fill":
        done = called("fill", "y.npy", "-o", f"{name}.npy", "--model", "m", cwd=tmp_path)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "m", "truth.npy", "y.npy"]


def unprivileged(run: Callable[[], None]) -> None:
    """Run in a process that is not root's."""
    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "see the traceback"


def test_places_without_permission() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        at = Path(name)
        locked = at / "locked"
        locked.mkdir()
        for file in ("a.npy", "a.npz", "a.nii.gz", "a.safetensors", "a.png", "a.csv"):
            (locked / file).write_bytes(b"x")
        good_files(at)
        os.chmod(at, 0o777)
        commands = [[w.replace("X", "locked/a") for w in words] for words in COMMANDS.values()]
        commands.append(["fill", "y.npy", "-o", "locked/c.npy", "--model", "m"])
        for words in commands:
            called(*words, cwd=at)  # what is imported is there already
        (locked / "c.npy").unlink()
        before = sorted(os.listdir(at))

        def run() -> None:
            for words in commands:
                done = called(*words, cwd=at)
                own = done.err.startswith("Usage: ") and "is not readable" in done.err  # typer's
                assert done.code == 2 and (own or done.err.count("\n") == 1), (words, done)
                assert sorted(os.listdir(at)) == before

        locked.chmod(0)
        unprivileged(run)
        locked.chmod(0o755)
        for path in locked.iterdir():
            path.chmod(0)
        unprivileged(run)


def test_tables_take_any_name(tmp_path: Path) -> None:
    rows = [{"dir": "a\udcff\n,b", "valid": False, "findings": []}]
    write_csv(tmp_path / "a.csv", rows)
    assert b'"a\\udcff\n,b",false' in (tmp_path / "a.csv").read_bytes()


def test_a_command_ends_where_its_input_never_does(tmp_path: Path) -> None:
    """In a real process, with a limit: a reader that waits would wait for ever here."""
    os.mkfifo(tmp_path / "a.npy")
    command = [sys.executable, "-m", "nogaps", "check", tmp_path, "--test-set"]
    done = subprocess.run(
        [*command, tmp_path / "a.npy"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
