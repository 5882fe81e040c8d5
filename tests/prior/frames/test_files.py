"""Frame files, read strictly; frames as training sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import refused

from nogaps.prior.frames import load_frames, load_val, to_size, unit_range

LEVELS = np.random.default_rng(0).integers(1, 256, (3, 16, 12), dtype=np.uint8)


def frame_file(path: Path, splits: list[str], **change: object) -> Path:
    names = np.array([f"g{k}" for k in range(len(splits))])
    content = {"images": LEVELS[: len(splits)], "group": names, "split": np.array(splits)}
    np.savez(path, **{**content, **change})
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"images": LEVELS[:2]},
        {"images": LEVELS / 255},
        {"images": LEVELS[:, None]},
        {"split": np.arange(3)},
        {"group": np.array(["a"])},
    ],
)
def test_content_of_another_kind_is_refused(tmp_path: Path, change: dict) -> None:
    path = frame_file(tmp_path / "a.npz", ["train"] * 3, **change)
    assert "not a frame file" in refused(lambda: load_frames(path))
    np.savez(path, x=LEVELS)
    assert "not a frame file" in refused(lambda: load_frames(path))


def test_frames_of_a_split_come_from_the_files_that_have_it(tmp_path: Path) -> None:
    some = frame_file(tmp_path / "a.npz", ["train", "val", "train"])
    none = frame_file(tmp_path / "b.npz", ["val"])
    x, groups = load_frames([some, none])
    assert groups == ["a/g0", "a/g2"] and torch.equal(x, unit_range(LEVELS[[0, 2]]))
    assert torch.equal(load_val([none, some, none]), to_size(unit_range(LEVELS[[1, 0]])))
    assert "no frame is in 'train'" in refused(lambda: load_frames(none))
    other = frame_file(tmp_path / "c.npz", ["train"] * 3, images=LEVELS[:, :8])
    assert "8×12, expected 16×12" in refused(lambda: load_frames([some, other]))


def test_unit_range_of_16_bits_is_that_of_8() -> None:
    x = unit_range(LEVELS)
    assert x.shape == (3, 1, 16, 12) and x.dtype == torch.float32
    assert x.min() >= 0 and x.max() == 1
    torch.testing.assert_close(unit_range(LEVELS.astype(np.uint16) * 257), x, rtol=1e-6, atol=0)
    ramp = unit_range(np.arange(1000, dtype=np.uint16).reshape(1, 25, 40)).flatten()
    assert float(ramp[500]) == pytest.approx(500 / 996.003) and ramp.max() == 1
    assert to_size(x).shape == (3, 1, 8, 6)
    torch.testing.assert_close(to_size(x)[0, 0, 0, 0], x[0, 0, :2, :2].mean())
