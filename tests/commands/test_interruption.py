"""Ends of all kinds: damaged states, killed writers, locked folders, signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import killing
import nbformat
import numpy as np
import pytest
import torch
from killing import end

from nogaps.running import NOTEBOOK
from nogaps.runtime import checkpoint
from nogaps.runtime.checkpoint import load_state, save_state, save_tensors
from nogaps.runtime.files import BadInput, atomic, save_npy, sha256
from nogaps.runtime.locks import LOCK, folder_lock


def state(k: int) -> dict:
    return {"step": k, "log": [k / 3], "model": {"w": torch.full((50,), float(k)), "n": [None]}}


# checkpoints -------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # of a weight: the file is readable still
    path.write_bytes(content)


def flip_a_number(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.333", b"0.334"))


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_value, flip_a_number])
def test_a_damaged_state_never_replaces_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    path = tmp_path / "s.safetensors"
    save_state(path, state(0))
    save_state(path, state(1))
    damage(path)
    with pytest.warns(UserWarning, match="damaged, the state before it is used"):
        assert load_state(path)["step"] == 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_tensors", lambda *_: exec("raise KeyboardInterrupt"))
        save_state(path, state(2))
    with pytest.warns(UserWarning, match="damaged"):
        assert load_state(path)["step"] == 0, "the only whole state was overwritten"
    save_state(path, state(2))
    assert load_state(path)["step"] == 2 and load_state(path.with_suffix(".previous"))["step"] == 0


def test_without_a_whole_state_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    for k in range(2):
        save_state(path, state(k))
    for file in (path, path.with_suffix(".previous")):
        truncate(file)
    with pytest.warns(UserWarning) as said:
        assert load_state(path) is None
    assert [str(warning.message).split("damaged, ")[1] for warning in said] == [
        "the state before it is used",
        "no state before it is left",
    ]


def test_states_without_a_checksum_are_read(tmp_path: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    meta = checkpoint._flatten(state(3), "state", tensors)
    save_tensors(tmp_path / "old.safetensors", tensors, meta)
    assert torch.equal(load_state(tmp_path / "old.safetensors")["model"]["w"], torch.full((50,), 3))
    save_tensors(tmp_path / "other.safetensors", tensors, {"widths": [1]})
    with pytest.warns(UserWarning, match="damaged"):
        assert load_state(tmp_path / "other.safetensors") is None


# files -------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_is_removed_later_and_nothing_else(tmp_path: Path) -> None:
    names = (".out.nogaps-0a1b2c3d.npy", ".out.npy", "out.nogaps-0a1b2c3d.npy", ".b.nogaps-1.npy")
    left, *others = (tmp_path / name for name in names)
    for path in (left, *others):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    with atomic(tmp_path / "out.npy") as first:
        save_npy(tmp_path / "out.npy", np.zeros(3))
        assert first.exists(), "a writer that lives lost its file"
        first.write_bytes(b"whole")
    assert (tmp_path / "out.npy").read_bytes() == b"whole" and not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "out.npy"])


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    save_npy(tmp_path / "out.npy", np.zeros(3))
    before = sha256(tmp_path / "out.npy")
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "out.npy") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["out.npy"]
    assert sha256(tmp_path / "out.npy") == before


# locks -------------------------------------------------------------------------------------------


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


def test_a_killed_process_keeps_no_lock(tmp_path: Path) -> None:
    process, _ = killing.call(killing.hold, tmp_path)
    with pytest.raises(BadInput, match="in use"):
        folder_lock(tmp_path).__enter__()
    assert end(process, signal.SIGKILL) == -signal.SIGKILL
    assert (tmp_path / LOCK).exists()
    with folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


# signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["twice", "ignored"])
def test_a_second_signal_ends_code_that_swallows_the_first(tmp_path: Path, how: str) -> None:
    process, _ = killing.call(killing.resist, how, tmp_path / "log")
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM if how == "twice" else signal.SIGINT)
    time.sleep(0.1)
    assert process.is_alive()
    if how == "ignored":  # a job in the background of a script: Ctrl-C is for others
        end(process, signal.SIGKILL)
    else:
        assert end(process, signal.SIGTERM) == 143


def test_training_ends_in_one_line_and_continues(tmp_path: Path, clean: torch.Tensor) -> None:
    """The same for a kill in its middle: see test_kills.py for many of them."""
    save_npy(tmp_path / "x.npy", clean[:40].numpy())
    command = ("train", "--images", tmp_path / "x.npy", "--profile", "smoke", "--out")
    assert end(killing.start(tmp_path / "log", *command, tmp_path / "a")) == 0
    for number, sign in ((signal.SIGTERM, "training-0.safetensors"), (signal.SIGKILL, LOCK)):
        process = killing.start(tmp_path / "log", *command, tmp_path / "b", "--resume")
        while process.is_alive() and not (tmp_path / "b" / sign).exists():
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGSTOP)  # it must not end before the second has looked
        second = killing.start(tmp_path / "log2", *command, tmp_path / "b")
        assert end(second) == 2 and "b: in use by another run" in (tmp_path / "log2").read_text()
        os.kill(process.pid, signal.SIGCONT)
        assert end(process, number) == killing.expected_code(number)
        last = (tmp_path / "log").read_text().splitlines()[-1:]
        text = "nogaps: interrupted; --resume continues where it stopped"
        assert last == [text] or number == signal.SIGKILL
    assert end(killing.start(tmp_path / "log", *command, tmp_path / "b", "--resume")) == 0
    names = ("imputer.safetensors",)
    assert killing.digests(tmp_path / "a", names) == killing.digests(tmp_path / "b", names)
    assert killing.leftovers(tmp_path / "b") == []


NOTEBOOK_THAT_WRITES = """
import os, time
open("kernel", "w").write(str(os.getpid()))
while True:
    open("beats", "a").write("x")
    time.sleep(0.02)
"""


@pytest.mark.parametrize("number", killing.SIGNALS)
def test_the_kernel_dies_with_its_run(tmp_path: Path, number: int) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK_THAT_WRITES)])
    nbformat.write(notebook, tmp_path / NOTEBOOK)
    process, _ = killing.call(killing.run_notebook, tmp_path, tmp_path / "log")
    assert end(process, number) == killing.expected_code(number)
    for _ in range(100):  # the kernel of a killed run looks for its parent every second
        written = (tmp_path / "beats").stat().st_size
        time.sleep(0.3)
        if (tmp_path / "beats").stat().st_size == written:
            break
    else:
        pytest.fail("the kernel goes on")
    with folder_lock(tmp_path / "runs"):  # the lock file of a killed run blocks nobody
        pass
    lines = (tmp_path / "log").read_text().splitlines()
    # a kernel whose parent was killed says so
    assert not any(line for line in lines if "cell" not in line and "[IPKernelApp]" not in line)
    assert not killing.leftovers(tmp_path) and not (tmp_path / "runs/failed.ipynb").exists()
