"""Masks that lie in files of their own, beside the images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nogaps.images.arrays import ImageSource, open_npy
from nogaps.images.formats import kind_of, open_images
from nogaps.images.nifti import NiftiFile, open_nifti
from nogaps.runtime.files import BadInput

NEAR = 1e-3  # to 0 or 1, of values that were scaled


class MaskFile:
    """Bool images (n,H,W), True = observed, for the images of a source; close it with `close`.

    shape: of the file, (N,H,W), (1,H,W) for all images, or, with several volumes, of one of them.
    """

    def __init__(self, stored: ImageSource, scaling: tuple[float, float] | None) -> None:
        self.stored, self.scaling, self.shape = stored, scaling, stored.shape
        self.close = stored.close

    def read(self, start: int, count: int) -> np.ndarray:
        """Masks of `count` images from `start` on, (count,H,W), or (1,H,W) if all have one."""
        n = self.shape[0]
        if n == 1:
            return self._observed(0, 1)
        if start // n == (start + count - 1) // n:
            return self._observed(start % n, start % n + count)
        places = (k % n for k in range(start, start + count))
        return np.concatenate([self._observed(k, k + 1) for k in places])

    def _observed(self, start: int, stop: int) -> np.ndarray:
        values = self.stored.read(start, stop)
        if values.dtype.kind == "b":
            return values
        slope, inter = self.scaling or (1.0, 0.0)
        values = values * slope + inter
        missing, observed = np.abs(values) < NEAR, np.abs(values - 1) < NEAR
        if self.scaling is None:  # white is the highest value of a PNG
            observed |= values == np.iinfo(self.stored.dtype).max
        if (other := ~(missing | observed)).any():
            found = f"holds {values[other][0]:g}"
            raise BadInput(f"{self.stored.path}: {found}, expected 0 (missing) and 1 (observed)")
        return observed


def open_mask(path: str | Path, images: ImageSource) -> MaskFile:
    """Open the mask of images: bool .npy, PNG or folder of PNGs, or, for a NIfTI, a NIfTI.

    .npy: (H,W), (1,H,W), (1,1,H,W), (N,H,W) or (N,1,H,W), of slices as they are filled. PNG: 0 is
    missing, 1 or white observed. NIfTI: 0 is missing, 1 observed, voxel by voxel in the same space,
    one volume for all or as many as the images. Raises BadInput for other values, shapes, places.
    """
    kind = "folder" if os.path.isdir(path) else kind_of(path)
    if kind == "nifti" and not isinstance(images, NiftiFile):
        raise BadInput(f"{path}: is a NIfTI, expected a bool .npy, as {images.path} is no NIfTI")
    if kind == "nifti":
        stored = open_nifti(path, images.axis, images.plane if images.upright else None)
        mask = MaskFile(stored, stored.space.scaling)
    else:
        stored = open_images(path) if kind in ("png", "folder") else open_npy(path, kinds="b")
        mask = MaskFile(stored, None)
    try:
        if kind == "nifti":
            stored.space.check_same(images.space)
        _check_shape(mask, images)
    except BadInput:
        mask.close()
        raise
    return mask


def _check_shape(mask: MaskFile, images: ImageSource) -> None:
    count, *size = mask.shape
    if list(images.shape[1:]) != size or count not in (1, images.slices, images.shape[0]):
        expected = f"{images.shape[1:]} or {images.shape}"
        if isinstance(images, NiftiFile):
            expected += ", or a NIfTI in the space of the images"
        raise BadInput(f"{mask.stored.path}: has shape {mask.shape}, expected {expected}")
