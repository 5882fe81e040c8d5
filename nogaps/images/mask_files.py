"""Masks that lie in files of their own, beside the images."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from nogaps.images.arrays import ImageSource, open_npy
from nogaps.images.formats import kind_of
from nogaps.images.nifti import NiftiFile, open_nifti
from nogaps.images.npz import open_npz
from nogaps.images.png import MASK, PngSource, read_shown, some
from nogaps.runtime.errors import BadInput

NEAR = 1e-3  # of the range: values of one kind that were scaled are not exact
GREY = 0.25  # of the range of a picture: what compression and smooth edges may add to two levels
LEVELS = 1 << 16  # of a mask, at most
PICTURES = (".png", ".jpg", ".jpeg")


class MaskFile:
    """The masks of the images of a source; release the file with `close`.

    Attributes:
        stored: The file as it is read.
        shape: (N, H, W); (1, H, W) for all images; or, of several volumes, that of one volume.
        note: How masks and images were paired, for people; "" where nothing is to be said.
    """

    def __init__(self, stored: ImageSource, note: str = "") -> None:
        self.stored, self.shape, self.close, self.note = stored, stored.shape, stored.close, note
        self._middle = 0.5 if stored.dtype.kind == "b" else self._find_middle()

    def read(self, start: int, images: np.ndarray) -> np.ndarray:
        """Read the masks of images (n,H,W) from index `start` on.

        Returns:
            Bool, True = observed, (n, H, W); or (1, H, W) if all images have one.

        Raises:
            BadInput: It is damaged.
        """
        indices = np.arange(start, start + len(images) if self.shape[0] > 1 else start + 1)
        return self._values(indices % self.shape[0]) > self._middle

    def _values(self, indices: np.ndarray) -> np.ndarray:
        slope, inter = self.stored.scaling if isinstance(self.stored, NiftiFile) else (1, 0)
        stored = self.stored.take(indices)
        return stored if (slope, inter) == (1, 0) else stored * slope + inter

    def _find_middle(self) -> float:
        """Return what lies between the two values of the mask; BadInput where there are others."""
        levels = np.zeros(0)
        for index in range(self.shape[0]):
            levels = np.union1d(levels, self._values(np.array([index])))
            if len(levels) > LEVELS or np.isnan(levels).any():
                break
        low, high = levels[0], levels[-1]
        if low == high:  # nothing is missing, or everything
            return low - 1 if low > NEAR else low + 1
        contrast = (
            self.stored.dtype.kind == "u" and high - low > np.iinfo(self.stored.dtype).max / 2
        )
        near = (GREY if contrast and isinstance(self.stored, PngSource) else NEAR) * (high - low)
        if not ((levels <= low + near) | (levels >= high - near)).all():
            held = ", ".join(f"{level:g}" for level in levels[:4])
            problem = f"holds more than two values ({held}{', …' if len(levels) > 4 else ''})"
            expected = "two: the lower is missing, the higher is observed"
            raise BadInput(problem, expected, path=self.stored.path)
        return (low + high) / 2


class _Pictures(PngSource):
    """Masks of any kind of pixels, PNG or JPEG, in the order of `names` if these are given."""

    suffixes, formats, shown = PICTURES, ("PNG", "JPEG"), True

    def pair(self, images: list[str]) -> None:
        """Take the masks of images of these names, in their order.

        Raises:
            BadInput: An image has no mask, or several.
        """
        own: dict[str, list[str]] = {}
        for name in self.names:
            own.setdefault(_key(name), []).append(name)
        if absent := [name for name in images if _key(name) not in own]:
            start = os.path.splitext(absent[0])[0]
            problem = f"holds no mask of {len(absent)} of {len(images)} images ({some(absent)})"
            expected = f"{start}.png, {start}_mask.png or mask_{start}.png"
            raise BadInput(problem, expected, path=self.path)
        for name in images:
            if len(names := own[_key(name)]) > 1:
                problem = f"holds {len(names)} masks of {name} ({some(names)})"
                raise BadInput(problem, "one", path=self.path)
        self.names = [own[_key(name)][0] for name in images]
        self.shape = (len(images), *self.shape[1:])

    def _header(self, name: str) -> tuple[int, int, int]:
        levels = read_shown(self.folder / name, self.formats)
        return *levels.shape, 8 * levels.itemsize


def _key(name: str) -> str:
    """What the names of an image and of its mask have in common."""
    stem = re.sub(MASK, "", os.path.splitext(name)[0].lower())
    parts = [re.sub(r"[^a-z0-9]+", "_", part).strip("_") for part in stem.split("/")]
    return "/".join(filter(None, parts))


def open_mask(path: str | Path, images: ImageSource) -> MaskFile:
    """Open the mask of images: a bool array, a picture or a folder of them, or a NIfTI for a NIfTI.

    Args:
        path: A .npy, or an .npz of one array or one named "mask", is (H,W), (1,H,W), (1,1,H,W),
            (N,H,W) or (N,1,H,W), True = observed, of slices as they are filled. A PNG or JPEG
            has two values, of which the lower (black) is missing; those of a folder belong to
            images of the same names, with or without "mask", or else to slices in their order.
            In a NIfTI the lower value is missing, voxel by voxel in the same space, one volume
            for all or as many as the images have.
        images: The images.

    Raises:
        BadInput: It has another type, shape or space, more than two values, or other names.
    """
    path = Path(path)
    picture = os.path.isdir(path) or path.suffix.lower() in PICTURES
    if kind_of(path) == "nifti" and not isinstance(images, NiftiFile):
        problem = f"is a NIfTI, but {images.path} is not"
        raise BadInput(problem, "a bool .npy or a PNG", path=path)
    if kind_of(path) == "nifti":
        stored = open_nifti(path, images.plane if images.upright else None)
    elif picture:
        stored = _Pictures(path)
    elif kind_of(path) == "npz":
        stored = open_npz(path, "b", "mask")
    else:
        stored = open_npy(path, "b")
    try:
        named = isinstance(images, PngSource) and images.kind == "folder"
        if os.path.isdir(path) and named:
            stored.pair(images.names)
        _check_fit(stored, images)
        return MaskFile(stored, _order(stored, images))
    except BadInput:
        stored.close()
        raise


def _order(stored: ImageSource, images: ImageSource) -> str:
    """Say in which order masks and images were paired, where one of them is a folder of files."""
    folders = [s for s in (stored, images) if isinstance(s, PngSource) and s.kind == "folder"]
    if stored.shape[0] == 1 or len(folders) != 1:
        return ""
    return f"masks and images were paired in this order: {some(folders[0].names)}"


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
