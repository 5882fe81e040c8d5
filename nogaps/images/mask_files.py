"""Masks that lie in files of their own, beside the images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nogaps.images.arrays import ImageSource, open_npy
from nogaps.images.formats import kind_of, open_images
from nogaps.images.nifti import NiftiFile, open_nifti
from nogaps.runtime.errors import BadInput

NEAR = 1e-3  # to 0 or 1: values that were scaled are not exact


class MaskFile:
    """The masks of the images of a source; release the file with `close`.

    Attributes:
        stored: The file as it is read.
        shape: (N, H, W); (1, H, W) for all images; or, of several volumes, that of one volume.
    """

    def __init__(self, stored: ImageSource) -> None:
        self.stored, self.shape, self.close = stored, stored.shape, stored.close

    def read(self, start: int, count: int) -> np.ndarray:
        """Read the masks of images start to start+count-1.

        Returns:
            Bool, True = observed, (count, H, W); or (1, H, W) if all images have one.

        Raises:
            BadInput: It holds other values than 0 and 1, or is damaged.
        """
        images = np.arange(start, start + count if self.shape[0] > 1 else start + 1)
        stored = self.stored.take(images % self.shape[0])
        if stored.dtype.kind == "b":
            return stored
        slope, inter = self.stored.scaling if isinstance(self.stored, NiftiFile) else (1.0, 0.0)
        values = stored * slope + inter
        missing, observed = np.abs(values) < NEAR, np.abs(values - 1) < NEAR
        if not isinstance(self.stored, NiftiFile):  # white is the highest value of a PNG
            observed |= stored == np.iinfo(stored.dtype).max
        if (other := ~(missing | observed)).any():
            problem = f"holds {values[other][0]:g}"
            raise BadInput(problem, "0 (missing) and 1 (observed)", path=self.stored.path)
        return observed


def open_mask(path: str | Path, images: ImageSource) -> MaskFile:
    """Open the mask of images: a bool .npy, a PNG or a folder of PNGs, or a NIfTI for a NIfTI.

    Args:
        path: A .npy is (H,W), (1,H,W), (1,1,H,W), (N,H,W) or (N,1,H,W), True = observed, of
            slices as they are filled. In a PNG 0 is missing, 1 or white observed. In a NIfTI 0
            is missing, 1 observed, voxel by voxel in the same space, one volume for all or as
            many as the images have.
        images: The images.

    Raises:
        BadInput: It has another type, shape or space.
    """
    kind = "folder" if os.path.isdir(path) else kind_of(path)
    if kind == "nifti" and not isinstance(images, NiftiFile):
        problem = f"is a NIfTI, but {images.path} is not"
        raise BadInput(problem, "a bool .npy or a PNG", path=path)
    if kind == "nifti":
        stored = open_nifti(path, images.axis, images.plane if images.upright else None)
    else:
        stored = open_images(path) if kind in ("png", "folder") else open_npy(path, kinds="b")
    try:
        _check_fit(stored, images)
    except BadInput:
        stored.close()
        raise
    return MaskFile(stored)


def _check_fit(stored: ImageSource, images: ImageSource) -> None:
    """Check the space, if there is one, and the shape."""
    if isinstance(stored, NiftiFile):
        stored.check_same_space(images)
    count, *size = stored.shape
    if list(images.shape[1:]) != size or count not in (1, images.slices, images.shape[0]):
        expected = f"{images.shape[1:]} or {images.shape}"
        if isinstance(images, NiftiFile):
            expected += ", or a NIfTI in the space of the images"
        raise BadInput(f"has shape {stored.shape}", expected, path=stored.path)
