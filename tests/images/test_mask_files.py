"""Masks in files of their own: every form that is read, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import nibabel
import numpy as np
import pytest
from image_files import refused, store, volume
from PIL import Image

from nogaps.images.formats import open_images, open_mask

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(1, 200, (6, 9, 11)).astype(np.uint8)
MASK = RNG.random(IMAGES.shape) > 0.4


def read_mask(path: Path, images: Path, plane: str | None = None) -> np.ndarray:
    """All masks, (N,H,W), read in batches of 4."""
    with open_images(images, plane=plane) as source, closing(open_mask(path, source)) as mask:
        batches = [mask.read(k, source.read(k, k + 4)) for k in range(0, source.shape[0], 4)]
    assert all(batch.dtype == bool for batch in batches)
    return batches[0] if len(batches[0]) == 1 else np.concatenate(batches)


@pytest.mark.parametrize("shape", [(9, 11), (1, 9, 11), (1, 1, 9, 11), (6, 9, 11), (6, 1, 9, 11)])
def test_arrays(tmp_path: Path, shape: tuple) -> None:
    mask = (MASK if shape[0] == 6 else MASK[1]).reshape(shape)
    np.save(tmp_path / "m.npy", np.asfortranarray(mask))
    masks = read_mask(tmp_path / "m.npy", store(tmp_path / "y.npy", IMAGES))
    assert np.array_equal(masks, mask.reshape(-1, 9, 11))


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 1), (64, 192), (1, 2)])
def test_pictures_of_two_values(tmp_path: Path, low: int, high: int) -> None:
    """The lower is missing, whatever both are."""
    levels = np.where(MASK, high, low).astype(np.uint8)
    path = store(tmp_path / "y.npy", IMAGES)
    assert np.array_equal(read_mask(store(tmp_path / "m.png", levels), path), MASK[:1])
    assert np.array_equal(read_mask(store(tmp_path / "m", levels), path), MASK)


def test_pictures_of_other_pixels(tmp_path: Path) -> None:
    """Black is missing: bits, a palette, colours, the edges that JPEG and smoothing leave."""
    path = store(tmp_path / "y.npy", np.tile(IMAGES, (1, 8, 8)))
    mask = np.kron(MASK[0], np.ones((8, 8))).astype(np.uint8)
    grey, palette = Image.fromarray(255 * mask), Image.fromarray(1 - mask).convert("P")
    palette.putpalette([255, 255, 255, 20, 0, 0])
    colours, smooth = grey.convert("RGBA"), grey.resize((44, 36)).resize((88, 72))
    for picture in (grey.convert("1"), palette, colours):
        picture.save(tmp_path / "m.png")
        assert np.array_equal(read_mask(tmp_path / "m.png", path)[0], mask == 1), picture.mode
    grey.save(tmp_path / "m.jpg", quality=90)
    assert np.array_equal(read_mask(tmp_path / "m.jpg", path)[0], mask == 1)
    for doubtful in (smooth, Image.fromarray(np.tile(IMAGES[0], (8, 8)))):
        doubtful.save(tmp_path / "m.png")
        line = refused(lambda: read_mask(tmp_path / "m.png", path))
        assert "expected two: the lower is missing" in line


def test_archives(tmp_path: Path) -> None:
    path = store(tmp_path / "y.npy", IMAGES)
    np.savez(tmp_path / "one.npz", MASK)
    np.savez(tmp_path / "named.npz", mask=MASK, images=IMAGES)
    for name in ("one.npz", "named.npz"):
        assert np.array_equal(read_mask(tmp_path / name, path), MASK)
    np.savez(tmp_path / "two.npz", a=MASK, b=MASK)
    assert "one named mask" in refused(lambda: read_mask(tmp_path / "two.npz", path))


NAMES = ["img_1", "img_2", "img_3", "img_10", "img_11", "b/img_1"]
SORTED = [f"{name}.png" for name in ("b/img_1", *NAMES[:5])]


def folder(path: Path, images: np.ndarray, names: list[str]) -> Path:
    for name, image in zip(names, images, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name)
    return path


@pytest.mark.parametrize("form", ["{}.png", "{}_mask.png", "mask_{}.png", "{}-Mask.PNG", "{}.jpg"])
def test_folders_pair_by_name(tmp_path: Path, form: str) -> None:
    named = [os.path.join(place, form.format(stem)) for place, stem in map(os.path.split, NAMES)]
    images = folder(tmp_path / "y", IMAGES, [f"{name}.png" for name in NAMES])
    levels = MASK.astype(np.uint8) * 255
    masks = folder(tmp_path / "m", levels, named)
    folder(masks, 255 - levels[:1], ["0.png"])  # of no image
    with open_images(images) as source:
        assert source.names == SORTED
    if form != "{}.jpg":  # so small ones are all edges
        assert np.array_equal(read_mask(masks, images), MASK[[5, 0, 1, 2, 3, 4]])
    (masks / named[4]).unlink()
    assert "no mask of 1 of 6 images (img_11.png)" in refused(lambda: read_mask(masks, images))
    folder(masks, levels[:3], [named[4], "mask_img_1_mask.png", "other.png"])
    assert "holds 2 masks of img_1.png" in refused(lambda: read_mask(masks, images))


def test_a_folder_and_an_array_pair_in_the_order_of_numbers(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in (9, 10, 100, 2, 1, 30)]
    masks = folder(tmp_path / "m", MASK.astype(np.uint8), names)
    expected = MASK[[4, 3, 0, 1, 5, 2]]
    path = store(tmp_path / "y.npy", IMAGES)
    assert np.array_equal(read_mask(masks, path), expected)
    with open_images(path) as source, closing(open_mask(masks, source)) as mask:
        assert mask.notes[0].endswith("in this order: 1.png, 2.png, 9.png, …")


@pytest.mark.parametrize("plane", [None, "sagittal", "coronal"])
def test_volumes_repeat_for_each_volume_of_the_images(tmp_path: Path, plane: str | None) -> None:
    """Whatever the type of the mask: 0 and 1 after scaling."""
    path = volume(tmp_path / "y.nii", np.stack([IMAGES] * 3, -1), "PIR")
    one = volume(tmp_path / "m.nii.gz", (MASK * 255).astype("u1"), "PIR", scaling=(1 / 255, 0))
    every = volume(tmp_path / "n.nii", np.stack([MASK] * 3, -1).astype(">f8"), "PIR")
    flags = volume(tmp_path / "f.nii", MASK.astype("u1"), "PIR")
    with open_images(flags, plane=plane) as source:
        expected = source.read(0, source.shape[0]) == 1
    for mask in (one, every, flags):
        assert np.array_equal(read_mask(mask, path, plane), np.concatenate([expected] * 3))


def flags(path: Path, by: float = 0, **options: object) -> Path:
    """Write MASK as a NIfTI, moved to the right."""
    image = nibabel.load(volume(path, MASK.astype("u1"), **options))
    affine = image.affine + by * np.eye(4, k=3)
    nibabel.Nifti1Image(np.array(image.dataobj), affine).to_filename(path)
    return path


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "shape": (lambda at: volume(at, MASK[1:].astype("u1")), "has (5, 9, 11) voxels"),
    "orientation": (lambda at: flags(at, codes="LAS"), "the same affine"),
    "moved": (lambda at: flags(at, 0.5), "lies up to 0.5 away"),
    "values": (lambda at: volume(at, MASK + np.eye(6, 9)[..., None]), "values (0, 1, 2)"),
    "nan": (lambda at: volume(at, np.where(MASK, np.nan, 0)), "nan), expected two"),
    "volumes": (lambda at: volume(at, np.stack([MASK] * 2, -1).astype("u1")), "or a NIfTI"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_masks_of_another_space_are_refused(tmp_path: Path, case: str) -> None:
    make, text = BAD[case]
    path, mask = volume(tmp_path / "y.nii", IMAGES), make(tmp_path / "m.nii")
    assert text in refused(lambda: read_mask(mask, path, "sagittal"))


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, mask = store(tmp_path / "y.npy", IMAGES), tmp_path / "m.npy"
    for wrong in (MASK[0].T, MASK[:4], MASK.astype("u1"), MASK[0, 0]):
        np.save(mask, wrong)
        assert str(mask) in refused(lambda: read_mask(mask, path))
    assert "is a NIfTI" in refused(lambda: read_mask(flags(tmp_path / "m.nii"), path))


def test_a_mask_that_is_nearly_in_place_is_taken(tmp_path: Path) -> None:
    path = volume(tmp_path / "y.nii", IMAGES)
    mask = flags(tmp_path / "m.nii", 1e-4)  # as rounding moves it
    assert np.array_equal(read_mask(mask, path, "sagittal").sum(), MASK.sum())
