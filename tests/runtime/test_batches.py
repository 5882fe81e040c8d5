"""Long work in batches: whole ones, never twice, the same bits however it is shared or ended."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nogaps.runtime import processes
from nogaps.runtime.batches import StoredArray, make_batches, make_npy, npy_header, unfinished
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, load_npy, save_json

COUNT, SIZE = 23, 4  # items, and of a batch: six batches, of which the last has three
SHAPE, DTYPE = (3, 2), np.dtype("<f4")


def items(start: int = 0, stop: int = COUNT) -> np.ndarray:
    return np.arange(start * 6, stop * 6, dtype=DTYPE).reshape(-1, *SHAPE)


def stored(folder: Path) -> StoredArray:
    header = npy_header((COUNT, *SHAPE), DTYPE)
    return StoredArray(folder / "items.npy", COUNT, SHAPE, DTYPE, header)


def work(partial: Path, settings: dict | None = None, stop_at: int = COUNT) -> list[int]:
    """Write `items` as `out.npy`, and their sums; return where the batches start that it made."""
    made: list[int] = []
    arrays = [stored(partial), StoredArray(partial / "sums", COUNT, (), np.dtype(">i8"))]

    def make(start: int, stop: int) -> list[np.ndarray]:
        if start >= stop_at:
            raise KeyboardInterrupt
        made.append(start)
        return [items(start, stop), items(start, stop).sum((1, 2)).astype(int)]

    with unfinished(partial, lambda: settings or {"size": SIZE}):
        make_batches(partial, arrays, SIZE, make, "working")
        if processes.is_main():
            assert np.array_equal(arrays[1].read(0, COUNT), items().sum((1, 2)))
            arrays[0].path.replace(partial.with_name("out.npy"))
    return made


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder of unfinished work, of which three batches are done."""
    partial = tmp_path / ".out.npy.partial"
    with pytest.raises(KeyboardInterrupt):
        work(partial, stop_at=12)
    assert load_json(partial / "done-0.json") == {"batches": [0, 4, 8]}
    assert os.listdir(tmp_path) == [partial.name]
    return partial


def test_work_goes_on_where_it_was_interrupted(begun: Path) -> None:
    before = {path: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(BadInput, match=r"made with size 4, not 5, expected the same settings"):
        work(begun, {"size": 5})
    assert before == {path: path.read_bytes() for path in begun.iterdir()}
    assert work(begun) == [12, 16, 20]
    assert np.array_equal(load_npy(begun.with_name("out.npy")), items())
    assert os.listdir(begun.parent) == ["out.npy"]


@pytest.mark.parametrize(("lost", "settings"), [("items.npy", None), ("manifest.json", {"a": 5})])
def test_nothing_is_done_without_its_array_or_its_settings(
    begun: Path, lost: str, settings: dict | None
) -> None:
    """What a killed clean-up leaves is not taken for other work."""
    (begun / lost).unlink()
    assert work(begun, settings) == [0, 4, 8, 12, 16, 20]
    assert np.array_equal(load_npy(begun.with_name("out.npy")), items())


def test_batches_of_many_processes_are_not_made_again(begun: Path) -> None:
    """Eight processes had begun; one goes on."""
    for k, start in ((3, 12), (7, 20)):
        stored(begun).write(start, -items(start, min(start + SIZE, COUNT)))
        save_json(begun / f"done-{k}.json", {"batches": [start]})
    with pytest.raises(AssertionError):  # the sums of those batches are missing
        work(begun)
    expected = items()
    expected[[*range(12, 16), *range(20, 23)]] *= -1
    assert np.array_equal(load_npy(begun / "items.npy"), expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [("items.npy", "has 5 bytes"), ("done-0.json", "is not JSON"), ("manifest.json", "not JSON")],
)
def test_damaged_files_are_named(begun: Path, name: str, text: str) -> None:
    (begun / name).write_bytes(b"{half")
    with pytest.raises(BadInput, match=f"{name}: .*{text}"):
        work(begun)


def test_an_array_is_made_once_and_then_read(tmp_path: Path) -> None:
    path, calls = tmp_path / "deep" / "a.npy", list[int]()

    def made() -> None:
        make_npy(path, (COUNT, *SHAPE), SIZE, make, "working")

    def make(start: int, stop: int) -> np.ndarray:
        calls.append(start)
        if calls == [0, 4, 8]:
            raise KeyboardInterrupt
        return items(start, stop)

    with pytest.raises(KeyboardInterrupt):
        made()
    made()
    before = path.parent.stat().st_mtime_ns
    made()
    assert path.parent.stat().st_mtime_ns == before  # it may lie where nothing can be written
    assert np.array_equal(load_npy(path), items())
    assert calls == [0, 4, 8, 8, 12, 16, 20] and os.listdir(path.parent) == ["a.npy"]
    np.save(path, np.zeros(3, np.float32))
    with pytest.raises(BadInput, match=r"a\.npy: has shape \(3,\), not .*remove it"):
        made()


def test_refused_work_leaves_nothing(tmp_path: Path) -> None:
    def refuse() -> dict:
        raise BadInput("bad")

    with pytest.raises(BadInput, match="bad"), unfinished(tmp_path / ".x.partial", refuse):
        raise AssertionError
    with unfinished(tmp_path / ".x.partial", lambda: None) as settings:
        assert settings is None
    assert not list(tmp_path.iterdir())
