"""One long file: filled by one process or several, interrupted or not, to the same bits."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import killing
import numpy as np
import pytest
import torch
from browser import free_port
from image_files import contents, load, store

from nogaps.filling.arrays import fill_array
from nogaps.filling.files import fill_file
from nogaps.runtime.errors import BadInput

COUNT, BATCH = 43, 2  # 22 batches, the last with one image
MASK = np.random.default_rng(0).random((8, 10)) > 0.4
MASK[0] = True
IMAGES = (np.arange(1, COUNT + 1)[:, None, None] * MASK).astype(np.uint16)  # image k holds k + 1
FOREVER = 1000


class Numbers:
    """A `FillingMethod` that knows its images by their numbers, and ends or waits after some.

    Each call adds a line to `log`, the numbers of the images of a batch.
    """

    device, trained_on = torch.device("cpu"), None

    def __init__(self, log: Path, most: int = FOREVER, identity: str = "a" * 16) -> None:
        self.log, self.most, self.identity = log, most, identity

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        done = lines(self.log)
        if len(done) == self.most:
            raise KeyboardInterrupt
        self.log.write_text("\n".join([*map(json.dumps, done), json.dumps(numbers(y))]))
        return torch.where(mask, y, numbers(y)[0] / COUNT)

    def with_half_width(self, y: torch.Tensor, mask: torch.Tensor) -> tuple:
        return self(y, mask), torch.where(mask, 0.0, 0.25).expand_as(y)


def numbers(y: torch.Tensor) -> list[int]:
    return (y[:, 0, 0, 0] * (COUNT + 1)).round().int().tolist()


def lines(*logs: Path) -> list[list[int]]:
    texts = [log.read_text() for log in logs if log.exists()]
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Floats in [0,1], image k of the value (k + 1) / 44: filled as they are."""
    return store(tmp_path / "y.npy", (IMAGES / (COUNT + 1)).astype(np.float32))


def straight(source: Path, log: Path) -> np.ndarray:
    return fill_array(np.load(source), MASK[None, None], Numbers(log), batch_size=BATCH)[0]


class Stuck(Numbers):
    """Waits in the middle of a batch."""

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if len(lines(self.log)) == self.most:
            time.sleep(killing.SECONDS)
        return super().__call__(y, mask)


def team_member(ready: Connection, source: Path, environment: dict, most: int) -> None:
    """In a process of its own: fill `source`; in the batch after so many, wait to be killed."""
    os.environ.update(environment)
    ready.send(0)
    method = Stuck(source.with_name(f"log-{environment['RANK']}"), most)
    fill_file(source, source.with_name("x.npy"), method, batch_size=BATCH, progress=False)


def team(source: Path, count: int, most: int = FOREVER) -> list:
    port, members = str(free_port()), []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        members.append(killing.call(team_member, source, own, most)[0])
    return members


BATCHES = [[*range(k + 1, min(k + BATCH, COUNT) + 1)] for k in range(0, COUNT, BATCH)]


def test_two_processes_share_a_file(source: Path, tmp_path: Path) -> None:
    members = team(source, 2)
    assert [killing.end(member) for member in members] == [0, 0]
    logs = [lines(tmp_path / f"log-{rank}") for rank in range(2)]
    assert logs == [BATCHES[:11], BATCHES[11:]], "not whole batches of its own, one after the other"
    assert np.array_equal(np.load(tmp_path / "x.npy"), straight(source, tmp_path / "log"))
    assert not killing.leftovers(tmp_path)


def test_killed_processes_are_continued_by_another_number(source: Path, tmp_path: Path) -> None:
    members = team(source, 2, most=4)
    partial, deadline = tmp_path / ".x.npy.partial", time.monotonic() + killing.SECONDS
    records = [partial / f"done-{rank}.json" for rank in range(2)]
    while not all(len(lines(tmp_path / f"log-{rank}")) == 4 for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(BadInput, match="in use by another run"):
        fill_file(source, tmp_path / "x.npy", Numbers(tmp_path / "log"), batch_size=BATCH)
    for member in members:
        assert killing.end(member, signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "x.npy").exists()
    logs = [lines(tmp_path / f"log-{rank}") for rank in range(2)]
    assert logs == [BATCHES[:4], BATCHES[11:15]]
    done = [start for record in records for start in json.loads(record.read_text())["batches"]]
    assert 2 <= len(done) <= 8 and {start // BATCH for start in done} <= {*range(4), *range(11, 15)}

    again = Numbers(tmp_path / "again")
    report = fill_file(source, tmp_path / "x.npy", again, batch_size=BATCH, progress=False)
    left = [batch for k, batch in enumerate(BATCHES) if k * BATCH not in done]
    assert lines(tmp_path / "again") == left
    assert (report.images, report.masks, report.scaled) == (COUNT, 1, False)
    assert np.array_equal(np.load(tmp_path / "x.npy"), straight(source, tmp_path / "log"))
    assert not killing.leftovers(tmp_path)


@pytest.mark.parametrize(
    ("name", "sure"), [("a.npy", True), ("a.npz", False), ("a.nii.gz", True), ("a", False)]
)
def test_an_interrupted_fill_goes_on(tmp_path: Path, name: str, sure: bool) -> None:
    """Of any kind of file, with half-widths and without: the bytes of one that was not."""
    images = IMAGES.astype(np.uint8 if name == "a" else np.uint16)
    images[:, 0, 1] = COUNT + 1  # the highest value: all images are scaled alike
    (tmp_path / "in").mkdir()
    source, made = store(tmp_path / "in" / name, images), []
    for most in (FOREVER, 5):
        room = tmp_path / str(most)
        room.mkdir()
        options = {"uncertainty": room / "half.npy"} if sure else {}
        options |= {"batch_size": BATCH, "progress": False}
        if most < FOREVER:
            with pytest.raises(KeyboardInterrupt):
                fill_file(source, room / name, Numbers(room / "log", most), **options)
            assert not (room / name).exists() and not (room / "half.npy").exists()
        fill_file(source, room / name, Numbers(room / "log2"), **options)
        batches = lines(room / "log", room / "log2")  # PNGs come in order of name
        assert {k for batch in batches for k in batch} == {*range(1, COUNT + 1)}
        assert [*map(len, batches)] == [*map(len, BATCHES)]
        outputs = [name, *["half.npy"] * sure]
        assert {*os.listdir(room)} - {"log"} == {*outputs, "log2"}
        made.append([contents(room / output) for output in outputs])
    assert made[0] == made[1]
    y, x_hat = load(source), load(tmp_path / "5" / name)
    assert np.array_equal(x_hat[:, MASK], y[:, MASK]) and x_hat.all()


def test_work_on_other_images_or_by_another_imputer_is_not_continued(
    source: Path, tmp_path: Path
) -> None:
    log, other = tmp_path / "log", Numbers(tmp_path / "other", identity="b" * 16)

    def go_on(method: Numbers, *mask: Path) -> None:
        fill_file(source, tmp_path / "x.npy", method, *mask, batch_size=BATCH, progress=False)

    with pytest.raises(KeyboardInterrupt):
        go_on(Numbers(log, 3))
    with pytest.raises(BadInput, match="made with imputer 'aaaaaaaaaaaaaaaa', not 'bbbb"):
        go_on(other)
    mask = MASK.copy()
    mask.flat[[np.flatnonzero(MASK)[-1], np.flatnonzero(~MASK)[0]]] = False, True  # as many holes
    np.save(tmp_path / "mask.npy", mask)
    with pytest.raises(BadInput, match=r"made with data .*: use another"):
        go_on(Numbers(log), tmp_path / "mask.npy")
    np.save(source, np.load(source)[::-1])
    with pytest.raises(BadInput, match=r"manifest\.json: was made with data .*: use another"):
        go_on(Numbers(log))


def test_short_work_and_plain_functions_leave_nothing(source: Path, tmp_path: Path) -> None:
    """An interrupted call of a function is not continued: nothing tells that it is the same."""

    def fail(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    for method, batch in ((fail, BATCH), (Numbers(tmp_path / "log", 0), 16)):
        with pytest.raises(KeyboardInterrupt):
            fill_file(source, tmp_path / "x.npy", method, batch_size=batch)
        assert os.listdir(tmp_path) == ["y.npy"]
