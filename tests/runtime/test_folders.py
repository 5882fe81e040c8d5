"""Folders that are written whole, or not at all: priors, PNGs, what a killed run left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nogaps.runtime.files import BadInput, atomic_folder


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
