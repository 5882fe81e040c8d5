"""Files and folders appear at once, or not at all: after errors, kills and on a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import killing
import numpy as np
import pytest
import torch

from nogaps.runtime.checkpoint import save_state
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, atomic_folder, save_json, save_npy, save_npz


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
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "out.npy") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "out.npy").read_bytes() == b"whole"
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "out.npy"])


def write(path: Path, text: str) -> None:
    with atomic_folder(path) as folder:
        (folder / text).touch()


def test_a_folder_changes_at_once(tmp_path: Path) -> None:
    """Neither an error nor a kill between the renames harms the one that was there."""
    path = tmp_path / "out"
    write(path, "old")
    for error, shown in ((KeyboardInterrupt, KeyboardInterrupt), (OSError(28, "full"), BadInput)):
        with pytest.raises(shown), atomic_folder(path) as folder:
            (folder / "half").touch()
            raise error
    path.rename(tmp_path / ".out.previous")  # what a kill between the renames leaves
    with pytest.raises(KeyboardInterrupt), atomic_folder(path):
        raise KeyboardInterrupt
    assert os.listdir(path) == ["old"] and os.listdir(tmp_path) == ["out"]
    with atomic_folder(path) as first:
        assert os.listdir(path) == ["old"]
        write(path, "second")
        assert os.listdir(path) == ["second"]
        (first / "first").touch()  # the room of a writer that lives is left alone
    assert os.listdir(path) == ["first"] and os.listdir(tmp_path) == ["out"]


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
