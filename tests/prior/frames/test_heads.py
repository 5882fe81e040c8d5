"""Frames of heads: framed like the test set, listed by an index, read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from frame_files import read_frames
from image_files import still
from in_process import called
from PIL import Image

from nogaps.prior.frames import load_frames, to_size
from nogaps.prior.frames.heads import frame_slice, prepare, read_index

INDEXES = ROOT / "nogaps" / "data"


HEAD = "source_file,flip_left_right,skull_top_row,occiput_col,forehead_col,group,split\n"


@pytest.mark.parametrize(("height", "width", "flip"), [(220, 256, 0), (150, 140, 1), (512, 512, 0)])
def test_heads_are_framed_where_the_test_set_has_them(
    tmp_path: Path, height: int, width: int, flip: int
) -> None:
    """The head is a bright disc."""
    top, left, right = 0.1 * height, 0.15 * width, 0.8 * width
    y, x, radius = *np.mgrid[:height, :width], (right - left) / 2
    inside = (y - top - radius) ** 2 + (x - (left + right) / 2) ** 2 <= radius**2
    image = (200 * inside).astype(np.uint8)
    Image.fromarray(image[:, ::-1] if flip else image).save(tmp_path / "head.png")
    index, out = tmp_path / "index.csv", tmp_path / "frames.npz"
    index.write_text(HEAD + f"head.png,{flip},{top},{left},{right},0,train\n")
    assert prepare(tmp_path, index, out).counts == {"train": 1}
    frames, groups = load_frames(out)
    assert frames.shape == (1, 1, 128, 128) and groups == ["frames/0"]
    small = to_size(frames)[0, 0] > 0.5
    rows, columns = np.flatnonzero(small.any(1)), np.flatnonzero(small.any(0))
    assert abs(rows[0] - 8) <= 1
    assert abs((columns[-1] - columns[0] + 1) - 57) <= 1
    assert abs((columns[-1] + columns[0]) / 2 - 31.5) <= 1


def test_framing_does_not_alias() -> None:
    """A checkerboard finer than the result can hold becomes grey, not a coarser pattern."""
    rows, columns = np.mgrid[:1024, :1024]
    fine = 255.0 * ((rows + columns) % 2)
    frame = frame_slice(fine, 0, 50, 974)[20:100, 20:100]
    assert abs(frame.mean() - 127.5) < 1 and frame.std() < 2


@pytest.mark.parametrize(
    ("name", "count"), [("heads.csv", 631), ("heads_t1.csv", 364), ("heads_t1_more.csv", 360)]
)
def test_shipped_indexes_are_whole(name: str, count: int) -> None:
    rows = read_index(INDEXES / name)
    assert len(rows) == count
    train, val = ({r["group"] for r in rows if r["split"] == split} for split in ("train", "val"))
    assert not train & val, "a subject stands in both splits"
    assert all(float(r["forehead_col"]) > float(r["occiput_col"]) for r in rows)


def test_an_index_frames_through_the_command(tmp_path: Path) -> None:
    """That another index is refused: tests/commands/test_wrong_input.py."""
    source, index, out, rows = tmp_path / "s", tmp_path / "i.csv", tmp_path / "o.npz", HEAD
    for k in range(3):
        still(source / f"{k}.png", (90, 80), seed=k)
        rows += f"{k}.png,{k % 2},{5 + k},{8.5 + k},{70 - k},g{k},{'val' if k == 2 else 'train'}\n"
    index.write_text(rows)
    arguments = ("prior", "prepare", "--source", source, "--index", index, "--out", out)
    preview = tmp_path / "p.png"
    done = called(*arguments, "--json", "--preview", preview)
    assert done.code == 0, done.err
    counts = {"train": 2, "val": 1}
    result = {"frames": str(out), "counts": counts, "groups": counts, "preview": str(preview)}
    assert json.loads(done.out) == result | {"left_out": {}, "skipped": []}
    with Image.open(preview) as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 10
    assert read_frames(out)["images"].shape == (3, 128, 128)
    index.write_text(rows.replace("g2", "g1"))
    assert "1 of 2 groups lie in two splits (g1)" in called(*arguments).err
    for more in (("--fit", "pad"), ("--source", tmp_path)):
        done = called(*arguments, *more)
        assert done.code == 2 and "--index" in done.err
    index.write_text(rows.replace("70,", "8,"))
    assert f"{index}: 0.png: its landmarks are impossible" in called(*arguments).err
