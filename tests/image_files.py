"""Small files of images in every format, and what the tests of several rooms do with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nogaps.images.formats import kind_of, open_images
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256

NAMES = ["a.npy", "a.npz", "a.nii", "a.nii.gz", "a"]  # one of each format that holds many images
IMAGES = np.random.default_rng(0).integers(1, 60_000, (5, 8, 6)).astype(np.uint16)


def store(path: Path, images: np.ndarray) -> Path:
    """Write images (N,H,W) in the format that the name asks for."""
    kind = kind_of(path)
    if kind == "npy":
        np.save(path, images[:, None])
    elif kind == "npz":
        np.savez_compressed(path, images=images, age=np.arange(3))
    elif kind == "nifti":
        nib = pytest.importorskip("nibabel")
        data, affine = np.moveaxis(images, 0, -1), np.diag([1.5, 2, 3, 1])
        header = nib.Nifti1Header(endianness="<" if images.dtype.isnative else ">")
        nib.Nifti1Image(data, affine, header, dtype=images.dtype).to_filename(path)
    elif kind == "png":
        Image.fromarray(images[0]).save(path)
    else:
        path.mkdir()
        for k, image in enumerate(images):
            Image.fromarray(image).save(path / f"{k}.png")
    return path


def still(path: Path, shape: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    """Write one grey picture of 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def volume(
    path: Path,
    data: np.ndarray,
    codes: str = "RAS",
    zooms: object = 1,
    scaling: tuple[float | None, float | None] = (None, None),
) -> Path:
    """Write a NIfTI of `data`, given in RAS+, with its axes in another order and direction."""
    nib = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    codes_of = nib.orientations.axcodes2ornt
    orientation = nib.orientations.ornt_transform(codes_of("RAS"), codes_of(codes))
    affine = np.diag([*np.broadcast_to(zooms, 3), 1.0])
    affine[:3, 3] = -7, 3, 11
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, data.shape[:3])
    header = nib.Nifti1Header(endianness="<" if data.dtype.isnative else ">")
    turned = nib.orientations.apply_orientation(data, orientation)
    image = nib.Nifti1Image(turned, affine, header, dtype=data.dtype)
    image.header["descrip"] = b"kept"
    image.header.set_slope_inter(*scaling)
    image.to_filename(path)
    return path


def load(path: Path) -> np.ndarray:
    with open_images(path) as source:
        return source.read(0, source.shape[0])


def contents(path: Path) -> dict[str, str]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": sha256(file) for file in files}


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "expected" in message and len(message) < 400
    return message
