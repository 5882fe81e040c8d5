"""Volumes and pictures filled with a mask of their own kind, and what is noted of their slices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import refused, volume
from in_process import called
from PIL import Image

from nogaps import standin
from nogaps.filling.files import fill_file
from nogaps.images.formats import open_images
from nogaps.interpolation import linear
from tests.filling.test_files import same_bits, spy
from tests.filling.test_properties import Sure

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(3)
HEAD = RNG.uniform(0.1, 1, (6, 9, 11)).astype(np.float32)  # axes: right, anterior, superior
MASK = RNG.random(HEAD.shape) > 0.4
MASK[:, :, 0] = MASK[:, 0] = MASK[0] = True


def slices(path: Path, plane: str) -> np.ndarray:
    with open_images(path, plane=plane) as source:
        return source.read(0, source.shape[0])


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_planes_are_filled_upright(tmp_path: Path, plane: str) -> None:
    """The imputer sees one upright slice after the other, whatever the order of the axes."""
    seen: list = []
    path, output = volume(tmp_path / "y.nii.gz", HEAD * MASK, "PIR"), tmp_path / "x.nii.gz"
    mask, half = volume(tmp_path / "m.nii", MASK.astype(np.uint8), "PIR"), tmp_path / "half.npy"
    options = {"plane": plane, "batch_size": 9, "uncertainty": half, "progress": False}
    report = fill_file(path, output, Sure(spy(seen)), mask, **options)
    y, observed = slices(path, plane), slices(mask, plane) == 1
    assert np.array_equal(torch.cat([y for y, _ in seen])[:, 0].numpy(), y)
    expected = linear()(torch.from_numpy(y)[:, None], torch.from_numpy(observed)[:, None])
    assert np.array_equal(slices(output, plane), expected[:, 0].numpy())
    assert nib.load(output).header.binaryblock == nib.load(path).header.binaryblock
    stored = np.asarray(nib.load(mask).dataobj) == 1  # half-widths lie like the images
    assert np.array_equal(np.load(half), np.where(stored, 0, 0.25))
    notes = " ".join(report.notes)
    assert report.plane == plane and "upright" not in notes
    assert ("sagittal ones" in notes) == (plane != "sagittal")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_png_with_a_mask_that_is_one(tmp_path: Path, dtype: type) -> None:
    image, output = (HEAD[0] * np.iinfo(dtype).max).astype(dtype), tmp_path / "x.png"
    Image.fromarray(image * MASK[1]).save(tmp_path / "y.png")
    Image.fromarray(MASK[1].astype(np.uint8)).save(tmp_path / "m.png")
    fill_file(tmp_path / "y.png", output, linear(), tmp_path / "m.png", progress=False)
    x_hat = np.asarray(Image.open(output)).astype(dtype)
    assert same_bits(x_hat, image, MASK[1]) and (x_hat[~MASK[1]] > 0).all()
    assert Image.open(output).mode == ("L" if dtype == np.uint8 else "I;16")
    assert "holds one image" in refused(lambda: fill_file(tmp_path / "y.png", output, linear()))


FILL = ("fill", "y.npy", "-o", "x.npy", "--mask", "m.npy")
FAST = ("--quality", "fast")


@pytest.mark.parametrize("size", [(4, 5), (33, 65)])
def test_any_size_is_filled_at_its_own(tmp_path: Path, size: tuple[int, int]) -> None:
    """By the shipped networks; the report says that they were trained for something else."""
    mask = np.resize(standin.course_mask(), size)
    mask[[0, -1]] = True
    np.save(tmp_path / "y.npy", np.full((2, *size), 0.5, np.float32) * mask)
    np.save(tmp_path / "m.npy", mask)
    done = called(
        "fill", *["y.npy", "-o", "x.npy", "--mask", "m.npy", "--json"], *FAST, cwd=tmp_path
    )
    assert done.code == 0, done.err
    report, x_hat = json.loads(done.out), np.load(tmp_path / "x.npy")
    assert x_hat.shape == (2, *size) and np.abs(x_hat - 0.5).max() < 0.1
    assert (report["height"], report["width"]) == size
    note = "images of {}×{}: the networks were trained for 64×64, under one mask".format(*size)
    assert report["notes"] == [note]


COURSE = standin.course_mask()
OTHER, SQUARE = np.roll(COURSE, 1, axis=0), np.ones_like(COURSE)
SQUARE[20:30, 20:29] = False
SAME = "one that the networks were trained for\n"
NOTES = {
    f"\nnote: the mask is not the {SAME}": (OTHER, FAST),
    f"2 of 2 masks are not the {SAME}": (np.stack([OTHER, OTHER, ~OTHER]), FAST),
    "note: the intervals are calibrated": (OTHER, ("--uncertainty", "half.npy")),
    "note: holes up to 9 pixels wide in every direction": (SQUARE, FAST),
    "": (COURSE, FAST),
}


@pytest.mark.parametrize("note", NOTES)
def test_another_mask_is_noted(tmp_path: Path, note: str) -> None:
    mask, options = NOTES[note]
    np.save(tmp_path / "y.npy", standin.clean_images()[:3])
    np.save(tmp_path / "m.npy", mask)
    done = called(*FILL, *options, cwd=tmp_path)
    assert done.code == 0 and note in done.out, done.err
    assert bool(note) == ("note:" in done.out)
