"""`nogaps prior prepare` without an index: people's own images become frames."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_files import small
from image_files import refused, still, volume
from in_process import called

from nogaps.images import arrays
from nogaps.prior.frames import load_frames, load_some, to_size
from nogaps.prior.frames import prepare as frames
from nogaps.prior.frames.prepare import assign_splits, fit_to, prepare_images

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 256, (16, 16, 16), dtype=np.uint8)


def test_splits_keep_groups_whole_in_any_order() -> None:
    groups = [f"g{k % 20}" for k in range(60)]
    splits = assign_splits(groups, 0.1)
    val = {g for g, s in zip(groups, splits, strict=True) if s == "val"}
    assert len(val) == 2 and splits.count("val") == 6
    assert assign_splits(groups[::-1], 0.1) == splits[::-1]
    for share, count in ((0.0, 0), (0.01, 1), (0.99, 1), (1.0, 2)):
        assert assign_splits(["a", "b"], share).count("val") == count
    assert assign_splits(["a"], 0.0) == ["train"]
    assert "only group" in refused(lambda: assign_splits(["a", "a"], 0.5))


def test_fit_pad_crop_stretch() -> None:
    image, size = np.zeros((40, 20), np.uint8), (16, 16)
    image[10:30] = 100
    padded, cropped, stretched = (fit_to(image, size, fit) for fit in ("pad", "crop", "stretch"))
    assert not padded[:, :4].any() and not padded[:, 12:].any()
    assert (padded[6:10, 4:12] == 100).all()
    assert (cropped[2:14] == 100).all()  # only the middle 20 rows are left
    assert (stretched[6:10] == 100).all() and not stretched[:2].any() and not stretched[14:].any()
    assert np.array_equal(fit_to(image.T, size, "pad"), padded.T)
    assert np.array_equal(fit_to(image.T, size, "crop"), cropped.T)
    assert np.array_equal(fit_to(image, (40, 20)), image)
    assert "--fit" in refused(lambda: fit_to(image, size))
    assert "40×21" in refused(lambda: fit_to(np.zeros((40, 21), np.uint8), (40, 20)))


def test_shrinking_does_not_alias_and_growing_stays_in_range() -> None:
    fine = (np.indices((256, 256)).sum(0) % 2 * 200).astype(np.uint8)
    assert np.abs(fit_to(fine, (32, 32)).astype(float)[4:-4, 4:-4] - 100).max() <= 2
    edge = np.zeros((8, 8), np.uint16)
    edge[:, 4:] = 5000
    grown = fit_to(edge, (32, 32))
    assert grown.min() == 0 and grown.max() == 5000  # bicubic overshoots are cut


def test_frames_need_not_be_square(tmp_path: Path) -> None:
    source, out, other = tmp_path / "s", tmp_path / "o.npz", tmp_path / "p.npz"
    for k in range(9):
        still(source / f"{k}.png", (64, 32), seed=k)
    small([source], out, size="16x8")
    small([source], other, fit="stretch")
    frames, groups = load_frames(out)
    x = to_size(frames)
    assert frames.shape == (9, 1, 32, 16) and x.shape == (9, 1, 16, 8) and len(groups) == 9
    assert "16×16, expected 32×16" in refused(lambda: load_frames([out, other]))
    assert torch.equal(load_some(out, 4), x[[0, 3, 5, 8]]), "evenly spaced"
    assert torch.equal(load_some(out, 200), x)


def four_axes(path: Path) -> None:
    nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)).to_filename(path)


def truncated(path: Path) -> None:
    data = still(path).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def not_finite(path: Path) -> None:
    volume(path, np.where(VOLUME > 250, np.nan, VOLUME).astype(np.float32))


def flat_affine(path: Path) -> None:
    image = nib.Nifti1Image(VOLUME, np.eye(4))
    image.header["sform_code"], image.header["srow_x"] = 1, 0
    image.to_filename(path)
    data = bytearray(path.read_bytes())
    data[280:296] = bytes(16)  # srow_x
    path.write_bytes(data)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "4-D": ("bad.nii.gz", four_axes, "shape (4, 4, 4, 2)"),
    "NaN": ("bad.nii", not_finite, "NaN"),
    "no orientation": ("bad.nii", flat_affine, "affine"),
    "truncated PNG": ("bad.png", truncated, "a PNG or JPEG"),
    "another aspect": ("bad.png", lambda path: still(path, (32, 16)), "do not fill 16×16"),
    "nothing but zeros": ("bad.npy", lambda p: np.save(p, np.zeros((3, 9, 9))), "0 to 0"),
    "pipe": ("bad.jpg", os.mkfifo, "not a regular file"),
    "broken link": ("bad.png", lambda p: p.symlink_to("absent"), "cannot be read"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_files_are_one_line_or_skipped(tmp_path: Path, case: str) -> None:
    source, out, (name, write, reason) = tmp_path / "s", tmp_path / "o.npz", BAD[case]
    for k in range(3):
        still(source / f"{k}.png", seed=k)
    write(source / name)
    message = refused(lambda: small([source], out))
    assert message.startswith((f"{source / name}: ", f"s/{name}: ")) and reason in message
    assert "; --skip-bad leaves" in message and not out.exists()
    command = ("prior", "prepare", "--source", source, "--out", out, "--size", 8, "--skip-bad")
    done = called(*command)
    assert done.code == 0 and "2 train (groups: 2), 1 val (groups: 1)" in done.out
    assert done.err.count("left out:") == 1 and name in done.err
    (source / name).rename(tmp_path / name)
    assert name in refused(lambda: small([tmp_path / name], tmp_path / "p.npz", skip_bad=True))


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    source, out, empty = still(tmp_path / "s" / "0.png").parent, tmp_path / "o.npz", tmp_path / "e"
    text = tmp_path / "text" / "deep" / "a.txt"
    empty.mkdir()
    text.parent.mkdir(parents=True)
    text.write_text("x")
    for reason, change in {
        "holds no images (nothing)": {"paths": [empty]},
        "(1 other files)": {"paths": [tmp_path / "text"]},
        "a.txt: holds no images (1 other files)": {"paths": [text]},
        "absent": {"paths": [source, tmp_path / "absent"]},
        ".npz": {"out": source / "0.png"},
        "--size 0": {"size": "0"},
        "--size 64x": {"size": "64x"},
        "--fit squeeze": {"fit": "squeeze"},
        "--plane oblique": {"plane": "oblique"},
        "--slices 5": {"slices": "5"},
        "--slices 1:2:0": {"slices": "1:2:0"},
        "--slices a:b": {"slices": "a:b"},
        "--val-share": {"val_share": float("nan")},
        "--fit": {"size": "64x32"},
        "only group": {},
    }.items():
        options = {"paths": [source], "out": out, **change}
        assert reason in refused(lambda options=options: prepare_images(**options)), change
    path = volume(tmp_path / "v.nii", VOLUME)
    assert "16 slices" in refused(lambda: small([path], out, slices="16:20"))
    preview = ("--preview", source / "p.png")
    done = called("prior", "prepare", "--source", source, "--out", out, *preview)
    assert done.code == 2 and "lies in a source" in done.err
    assert sorted(os.listdir(source)) == ["0.png"] and not out.exists()


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array, out = tmp_path / "a.npy", tmp_path / "o.npz"
    np.save(array, VOLUME[:9])
    monkeypatch.setattr(frames, "FRAME_PIXELS", 5 * 16 * 16)
    assert "1280 pixels" in refused(lambda: small([array], out, skip_bad=True))
    monkeypatch.setattr(arrays, "IMAGE_PIXELS", 200)
    for path in (array, volume(tmp_path / "v.nii", VOLUME), still(tmp_path / "s.png")):
        message = refused(lambda path=path: small([path], out))
        assert "16×16, expected at most 200 pixels" in message
