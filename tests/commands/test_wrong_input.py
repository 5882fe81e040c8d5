"""Whatever a command is given: exit code 2 and one line, nothing changed, nothing left, no hang."""

from __future__ import annotations

import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_cases import IMAGES, INPUTS, MASK, OUTPUTS, USES, place, words, write_files
from in_process import Done, bounded, called

from nogaps.submission.folder import write_csv

__all__ = ["bounded"]  # a reader that waits for ever, or reads /dev/zero, fails by itself
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
