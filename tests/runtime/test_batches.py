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


def items(start: int, stop: int) -> np.ndarray:
    return np.arange(start * 6, stop * 6, dtype=DTYPE).reshape(-1, *SHAPE)


def work(output: Path, log: Path, settings: dict | None = None, stop_at: int = COUNT) -> None:
    """Write `items`, and their sums, in batches; note in `log` who made which batch."""
    folder = output.with_name(f".{output.name}.partial")
    header = npy_header((COUNT, *SHAPE), DTYPE)
    arrays = [
        StoredArray(folder / "items.npy", COUNT, SHAPE, DTYPE, header),
        StoredArray(folder / "sums", COUNT, (), np.dtype(">i8")),
    ]

    def make(start: int, stop: int) -> list[np.ndarray]:
        with open(log, "a") as file:
            file.write(f"{processes.number()} {start} {stop}\n")
        if start >= stop_at:
            raise KeyboardInterrupt
        values = items(start, stop)
        return [values, values.sum((1, 2)).astype(int)]

    with unfinished(folder, lambda: settings or {"size": SIZE}):
        make_batches(folder, arrays, SIZE, make, "working")
        if processes.is_main():
            assert np.array_equal(arrays[1].read(0, COUNT), items(0, COUNT).sum((1, 2)))
            arrays[0].path.replace(output)


def made(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def test_work_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    output, log = tmp_path / "out.npy", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        work(output, log, stop_at=12)
    assert made(log) == [0, 4, 8, 12] and not output.exists()
    partial = tmp_path / ".out.npy.partial"
    assert load_json(partial / "done-0.json") == {"batches": [0, 4, 8]}
    before = {path: path.read_bytes() for path in partial.iterdir()}
    with pytest.raises(BadInput, match=r"made with size 4, not 5, expected the same settings"):
        work(output, log, {"size": 5})
    assert before == {path: path.read_bytes() for path in partial.iterdir()}
    work(output, log)
    assert made(log)[4:] == [12, 16, 20]
    assert np.array_equal(load_npy(output), items(0, COUNT))
    assert sorted(os.listdir(tmp_path)) == ["log", "out.npy"]


def test_batches_of_many_processes_are_not_made_again(tmp_path: Path) -> None:
    """Eight processes had begun; one goes on."""
    output, log, partial = tmp_path / "out.npy", tmp_path / "log", tmp_path / ".out.npy.partial"
    with pytest.raises(KeyboardInterrupt):
        work(output, log, stop_at=4)
    for k, start in ((3, 12), (7, 20)):
        StoredArray(
            partial / "items.npy", COUNT, SHAPE, DTYPE, npy_header((COUNT, *SHAPE), DTYPE)
        ).write(start, -items(start, min(start + SIZE, COUNT)))
        save_json(partial / f"done-{k}.json", {"batches": [start]})
    log.unlink()
    with pytest.raises(AssertionError):  # the sums of those batches are missing
        work(output, log)
    assert made(log) == [4, 8, 16]
    straight, marked = items(0, COUNT), load_npy(partial / "items.npy")
    assert np.array_equal(np.abs(marked), straight)
    assert sorted({int(k) // SIZE for k in (marked < 0).any((1, 2)).nonzero()[0]}) == [3, 5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("items.npy", r"items\.npy: has 5 bytes"),
        ("done-0.json", "is not JSON"),
        ("manifest.json", "is not JSON"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "out.npy", tmp_path / "log", stop_at=8)
    (tmp_path / ".out.npy.partial" / name).write_bytes(b"{half")
    with pytest.raises(BadInput, match=text):
        work(tmp_path / "out.npy", tmp_path / "log")


def test_nothing_is_done_without_its_array(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "out.npy", tmp_path / "log", stop_at=12)
    (tmp_path / ".out.npy.partial" / "items.npy").unlink()
    work(tmp_path / "out.npy", tmp_path / "log")
    assert np.array_equal(load_npy(tmp_path / "out.npy"), items(0, COUNT))


def test_what_a_killed_clean_up_leaves_is_not_taken_for_other_work(tmp_path: Path) -> None:
    output, log = tmp_path / "out.npy", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        work(output, log, stop_at=12)
    (tmp_path / ".out.npy.partial" / "manifest.json").unlink()
    log.unlink()
    work(output, log, {"size": 5})
    assert made(log) == [0, 4, 8, 12, 16, 20]


def test_an_array_is_made_once_and_then_read(tmp_path: Path) -> None:
    path, calls = tmp_path / "deep" / "a.npy", list[int]()

    def make(start: int, stop: int) -> np.ndarray:
        calls.append(start)
        if calls == [0, 4, 8]:
            raise KeyboardInterrupt
        return items(start, stop)

    with pytest.raises(KeyboardInterrupt):
        make_npy(path, (COUNT, *SHAPE), SIZE, make, "working")
    for _ in range(2):
        make_npy(path, (COUNT, *SHAPE), SIZE, make, "working")
        assert np.array_equal(load_npy(path), items(0, COUNT))
    assert calls == [0, 4, 8, 8, 12, 16, 20] and os.listdir(path.parent) == ["a.npy"]
    before = path.parent.stat().st_mtime_ns
    make_npy(path, (COUNT, *SHAPE), SIZE, make, "working")
    assert path.parent.stat().st_mtime_ns == before  # it may lie where nothing can be written
    np.save(path, np.zeros(3, np.float32))
    with pytest.raises(BadInput, match=r"a\.npy: has shape \(3,\), not .*remove it"):
        make_npy(path, (COUNT, *SHAPE), SIZE, make, "working")


def test_refused_work_leaves_nothing(tmp_path: Path) -> None:
    def refuse() -> dict:
        raise BadInput("bad")

    with pytest.raises(BadInput, match="bad"), unfinished(tmp_path / ".x.partial", refuse):
        raise AssertionError
    with unfinished(tmp_path / ".x.partial", lambda: None) as settings:
        assert settings is None
    assert not list(tmp_path.iterdir())
