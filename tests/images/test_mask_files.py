"""Masks in files of their own: every form that is read, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import refused, store, volume
from PIL import Image

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
        batches = [mask.read(k, source.read(k, min(k + 4, count))) for k in range(0, count, 4)]
        mask.close()
    assert all(batch.dtype == bool for batch in batches)
    return batches[0] if len(batches[0]) == 1 else np.concatenate(batches)


@pytest.mark.parametrize("shape", [(9, 11), (1, 9, 11), (1, 1, 9, 11), (6, 9, 11), (6, 1, 9, 11)])
def test_arrays(tmp_path: Path, shape: tuple) -> None:
    mask = (MASK if shape[0] == 6 else MASK[1]).reshape(shape)
    np.save(tmp_path / "m.npy", np.asfortranarray(mask))
    masks = read_mask(tmp_path / "m.npy", store(tmp_path / "y.npy", IMAGES))
    assert np.array_equal(masks, mask.reshape(-1, 9, 11))


LEVELS = {"white": (0, 255), "one": (0, 1), "grey": (64, 192), "labels": (1, 2)}


@pytest.mark.parametrize("name", LEVELS)
def test_pictures_of_two_values(tmp_path: Path, name: str) -> None:
    """The lower is missing, whatever both are."""
    low, high = LEVELS[name]
    levels = np.where(MASK, high, low).astype(np.uint8)
    path = store(tmp_path / "y.npy", IMAGES)
    assert np.array_equal(read_mask(store(tmp_path / "m.png", levels), path), MASK[:1])
    assert np.array_equal(read_mask(store(tmp_path / "m", levels), path), MASK)


def test_pictures_of_other_pixels(tmp_path: Path) -> None:
    """Black is missing: bits, a palette, colours, the edges that JPEG and smoothing leave."""
    path, mask = (
        store(tmp_path / "y.npy", np.tile(IMAGES, (1, 8, 8))),
        np.kron(MASK[0], np.ones((8, 8))),
    )
    grey = Image.fromarray((255 * mask).astype(np.uint8))
    palette = Image.fromarray((1 - mask).astype(np.uint8)).convert("P")
    palette.putpalette([255, 255, 255, 20, 0, 0])
    grey.convert("1").save(tmp_path / "bits.png")
    palette.save(tmp_path / "palette.png")
    grey.convert("RGBA").save(tmp_path / "colours.png")
    grey.save(tmp_path / "m.jpg", quality=90)
    for name in ("bits.png", "palette.png", "colours.png", "m.jpg"):
        assert np.array_equal(read_mask(tmp_path / name, path)[0], mask == 1), name
    grey.resize((44, 36)).resize((88, 72)).save(tmp_path / "smooth.png")
    for doubtful in (
        tmp_path / "smooth.png",
        store(tmp_path / "grey.png", np.tile(IMAGES, (1, 8, 8))),
    ):
        assert "expected two: the lower is missing" in refused(
            lambda p=doubtful: read_mask(p, path)
        )


def test_archives(tmp_path: Path) -> None:
    path = store(tmp_path / "y.npy", IMAGES)
    np.savez(tmp_path / "one.npz", MASK)
    np.savez(tmp_path / "named.npz", mask=MASK, images=IMAGES)
    for name in ("one.npz", "named.npz"):
        assert np.array_equal(read_mask(tmp_path / name, path), MASK)
    np.savez(tmp_path / "two.npz", a=MASK, b=MASK)
    assert "one named mask" in refused(lambda: read_mask(tmp_path / "two.npz", path))


NAMES = ["img_1", "img_2", "img_10", "img_11", "img_3", "b/img_1"]


def folder(path: Path, images: np.ndarray, names: list[str]) -> Path:
    for name, image in zip(names, images, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name)
    return path


@pytest.mark.parametrize("form", ["{}.png", "{}_mask.png", "mask_{}.png", "{}-Mask.PNG", "{}.jpg"])
def test_folders_pair_by_name(tmp_path: Path, form: str) -> None:
    def named(name: str) -> str:
        place, stem = os.path.split(name)
        return os.path.join(place, form.format(stem))

    images = folder(tmp_path / "y", IMAGES, [f"{name}.png" for name in NAMES])
    levels, names = MASK.astype(np.uint8) * 255, list(map(named, NAMES))
    masks = folder(tmp_path / "m", np.repeat(levels, 1, 0), names)
    with open_images(images) as source:
        expected = MASK[[NAMES.index(name.removesuffix(".png")) for name in source.names]]
        assert source.names == [
            f"{n}.png" for n in sorted(NAMES, key=lambda n: (n[0], int(n.split("_")[1])))
        ]
    if form != "{}.jpg":  # so small ones are all edges
        assert np.array_equal(read_mask(masks, images), expected)
    (masks / names[3]).unlink()
    assert "no mask of 1 of 6 images (img_11.png)" in refused(lambda: read_mask(masks, images))
    folder(masks, levels[:3], [names[3], "mask_img_1_mask.png", "other.png"])
    assert "holds 2 masks of img_1.png" in refused(lambda: read_mask(masks, images))


def test_a_folder_and_an_array_pair_in_the_order_of_numbers(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in (9, 10, 100, 2, 1, 30)]
    masks = folder(tmp_path / "m", MASK.astype(np.uint8), names)
    expected = MASK[[4, 3, 0, 1, 5, 2]]
    path = store(tmp_path / "y.npy", IMAGES)
    assert np.array_equal(read_mask(masks, path), expected)
    with open_images(path) as source:
        mask = open_mask(masks, source)
        assert mask.note.endswith("in this order: 1.png, 2.png, 9.png, …")
        mask.close()


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
    nifti = flags(tmp_path / "m.nii")
    assert "is a NIfTI" in refused(lambda: read_mask(nifti, path))


def test_a_mask_that_is_nearly_in_place_is_taken(tmp_path: Path) -> None:
    path = volume(tmp_path / "y.nii", IMAGES)
    mask = moved(flags(tmp_path / "m.nii"), 1e-4)  # as rounding moves it
    assert np.array_equal(read_mask(mask, path, "sagittal").sum(), MASK.sum())
