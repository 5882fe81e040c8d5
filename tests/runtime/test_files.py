"""Files and folders appear at once, or not at all: after errors, kills and on a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import killing
import numpy as np
import pytest
import torch

from nogaps.runtime.checkpoint import save_state
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, atomic_folder, save_json, save_npy, save_npz, sha256


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


def write(path: Path, text: str) -> None:
    with atomic_folder(path) as folder:
        (folder / "a").write_text(text)


def test_a_folder_changes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path, "old")
    with atomic_folder(path) as folder:
        (folder / "b").write_text("new")
        assert [p.name for p in path.iterdir()] == ["a"]
    assert [p.name for p in path.iterdir()] == ["b"] and list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_folder_that_was_there(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error, expected in ((KeyboardInterrupt, KeyboardInterrupt), (full, BadInput)):
        with pytest.raises(expected), atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("half")
            raise error
    assert (tmp_path / "out/a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    """What is hidden comes back with the next call, even if that one fails."""
    write(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.previous")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert (tmp_path / "out/a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_room_of_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as first:
        write(tmp_path / "out", "second")
        assert first.exists()
        (first / "a").write_text("first")
    assert (tmp_path / "out/a").read_text() == "first" and len(list(tmp_path.iterdir())) == 1


FULL = r"cannot be written \((No space left on device|.*is the disk full\?)\)"


def test_a_full_disk_is_said_and_keeps_what_was_there(small_disk: Path) -> None:
    noise = np.random.default_rng(0).random(100_000).astype(np.float32)
    save = {
        "a.npy": lambda path, n: save_npy(path, noise[:n]),
        "a.npz": lambda path, n: save_npz(path, noise=noise[:n]),
        "a.json": lambda path, n: save_json(path, noise[:n].tolist()),
        "a.safetensors": lambda path, n: save_state(path, {"w": torch.from_numpy(noise[:n])}),
    }
    for name, write in save.items():
        write(small_disk / name, 100)
    before = killing.digests(small_disk, save)
    for name, write in save.items():
        with pytest.raises(BadInput, match=f"{name}: {FULL}"):
            write(small_disk / name, 100_000)
        assert not killing.leftovers(small_disk)
    assert killing.digests(small_disk, save) == before
