"""One run per folder."""

from __future__ import annotations

import signal
from pathlib import Path

import killing
import pytest
from killing import end

from nogaps.runtime.errors import BadInput
from nogaps.runtime.locks import LOCK, folder_lock


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
