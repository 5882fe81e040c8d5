"""Training states: damaged ones are told, and never take the place of a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nogaps.runtime import checkpoint
from nogaps.runtime.checkpoint import load_state, save_state, save_tensors


def state(k: int) -> dict:
    return {"step": k, "log": [k / 3], "model": {"w": torch.full((50,), float(k)), "n": [None]}}


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
