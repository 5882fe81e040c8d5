"""Masks in files of their own: every form that is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import refused, store, volume

from nogaps.images.formats import open_images
from nogaps.images.mask_files import open_mask

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(1, 200, (6, 9, 11)).astype(np.uint8)
MASK = RNG.random(IMAGES.shape) > 0.4


def read_mask(path: Path, images: Path, plane: str | None = None) -> np.ndarray:
    """All masks, (N,H,W), read in batches of 4."""
    with open_images(images, plane=plane) as source:
        mask = open_mask(path, source)
        count = source.shape[0]
        batches = [mask.read(k, min(4, count - k)) for k in range(0, count, 4)]
        mask.close()
    assert all(batch.dtype == bool for batch in batches)
    return batches[0] if len(batches[0]) == 1 else np.concatenate(batches)


@pytest.mark.parametrize("shape", [(9, 11), (1, 9, 11), (1, 1, 9, 11), (6, 9, 11), (6, 1, 9, 11)])
def test_arrays(tmp_path: Path, shape: tuple) -> None:
    mask = (MASK if shape[0] == 6 else MASK[1]).reshape(shape)
    np.save(tmp_path / "m.npy", np.asfortranarray(mask))
    masks = read_mask(tmp_path / "m.npy", store(tmp_path / "y.npy", IMAGES))
    assert np.array_equal(masks, mask.reshape(-1, 9, 11))


@pytest.mark.parametrize("white", [1, 255])
def test_pictures(tmp_path: Path, white: int) -> None:
    levels = MASK.astype(np.uint8) * np.uint8(white)
    path = store(tmp_path / "y.npy", IMAGES)
    assert np.array_equal(read_mask(store(tmp_path / "m.png", levels), path), MASK[:1])
    assert np.array_equal(read_mask(store(tmp_path / "m", levels), path), MASK)
    grey = store(tmp_path / "grey.png", IMAGES)
    assert "expected 0 (missing)" in refused(lambda: read_mask(grey, path))


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


def moved(path: Path, by: float) -> Path:
    nib = pytest.importorskip("nibabel")
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += by
    nib.Nifti1Image(np.array(image.dataobj), affine).to_filename(path)
    return path


def flags(path: Path, **options: object) -> Path:
    return volume(path, MASK.astype("u1"), **options)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "shape": (lambda at: volume(at, MASK[1:].astype("u1")), "has (5, 9, 11) voxels"),
    "orientation": (lambda at: flags(at, codes="LAS"), "the same affine"),
    "moved": (lambda at: moved(flags(at), 0.5), "lies up to 0.5 away"),
    "values": (lambda at: volume(at, MASK.astype("u1") * 2), "holds 2, expected 0"),
    "nan": (lambda at: volume(at, np.where(MASK, np.nan, 0)), "holds nan"),
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
    nifti = flags(tmp_path / "m.nii")
    assert "is a NIfTI" in refused(lambda: read_mask(nifti, path))


def test_a_mask_that_is_nearly_in_place_is_taken(tmp_path: Path) -> None:
    path = volume(tmp_path / "y.nii", IMAGES)
    mask = moved(flags(tmp_path / "m.nii"), 1e-4)  # as rounding moves it
    assert np.array_equal(read_mask(mask, path, "sagittal").sum(), MASK.sum())
