"""Training states: damaged ones are told, and the one before is continued."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nogaps.runtime import checkpoint
from nogaps.runtime.checkpoint import Epochs, load_state, save_state
from nogaps.runtime.errors import BadInput


def state(k: int) -> dict:
    return {"step": k, "log": [k / 3], "model": {"w": torch.full((50,), float(k)), "n": [None]}}


@pytest.mark.parametrize("keep", [-7, 0])
def test_a_damaged_state_is_said_and_the_one_before_is_continued(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "s.safetensors"
    for k in range(3):
        save_state(path, state(k))
    assert torch.equal(load_state(path)["model"]["w"], state(2)["model"]["w"])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.warns(UserWarning, match="damaged"):
        assert load_state(path)["step"] == 1
    path.with_suffix(".previous").write_bytes(b"")
    with pytest.warns(UserWarning) as said:
        assert load_state(path) is None
    assert len(said) == 2


def test_a_kill_while_a_state_is_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.safetensors"
    save_state(path, state(0))
    for name in ("_serialized", "atomic"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, name, lambda *_: exec("raise KeyboardInterrupt"))
            save_state(path, state(1))
        assert load_state(path)["step"] == 0
    with monkeypatch.context() as patch, pytest.raises(BadInput, match="cannot be written"):
        patch.setattr(checkpoint, "flush_to_disk", lambda _: exec("raise OSError(28, 'full')"))
        save_state(path, state(1))
    assert [file.name for file in tmp_path.iterdir()] == ["s.safetensors"]
    assert Epochs(path, [1], {}).history == {}, "a state of something else is not continued"
    path.rename(path.with_suffix(".previous"))  # between the two renames
    assert load_state(path)["step"] == 0
