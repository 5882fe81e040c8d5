"""Every image of a PNG, JPEG, .npy or NIfTI file, upright, as grey levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.images.arrays import BLOCK, ImageSource, open_npy
from nogaps.images.nifti import PLANES, open_nifti
from nogaps.images.png import read_shown
from nogaps.prior.frames.sources import kind_of_file
from nogaps.runtime.errors import BadInput

FORMATS = ("PNG", "JPEG")  # of stills


@dataclass(frozen=True)
class Slice:
    """One image.

    Attributes:
        pixels: (H, W) uint8 or uint16, upright.
        label: Its number in the file, or "".
        spacing: Height and width of a pixel, in any unit.
    """

    pixels: np.ndarray
    label: str = ""
    spacing: tuple[float, float] = (1.0, 1.0)


def read_slices(path: Path, plane: str | None, slices: slice | float) -> Iterator[Slice]:
    """Read every image of a file: a picture as viewers show it, 16-bit levels as they are.

    Args:
        path: The file.
        plane: Of NIfTI, see `read_volume`.
        slices: Of NIfTI, see `read_volume`.

    Raises:
        BadInput: It is damaged, or holds no images.
    """
    kind = kind_of_file(path)
    if kind == "nifti":
        return read_volume(path, plane, slices)
    return read_array(path) if kind == "npy" else iter([Slice(read_shown(path, FORMATS))])


def read_array(path: Path) -> Iterator[Slice]:
    """Read the images of a .npy; see `open_npy`.

    Raises:
        BadInput: It is damaged, or holds NaN, infinite or only equal values.
    """
    with open_npy(path) as source:
        count, levels = source.shape[0], _levels(source, 1.0, 0.0)
        for k in range(count):
            yield Slice(levels(source.take([k])[0]), str(k) if count > 1 else "")


def read_volume(path: Path, plane: str | None, slices: slice | float) -> Iterator[Slice]:
    """Read upright slices of a NIfTI of one volume; see `NiftiFile.turn_to`.

    Args:
        path: The file.
        plane: One of PLANES; None is the plane of a volume that is one slice, else sagittal.
        slices: Of the canonical axis (left, posterior or inferior is 0), or a share of it around
            the middle.

    Raises:
        BadInput: It is damaged, of several volumes, holds NaN, infinite or only equal values, or
            its affine does not tell.
    """
    with open_nifti(path) as source:
        if source.slices < source.shape[0]:
            raise BadInput(f"has shape {source.layout.shape}", "one volume", path=path)
        single = source.single()
        source.turn_to(plane or (PLANES[0] if single is None else source.plane_of(single)))
        count = source.shape[0]
        numbers, spacing = _numbers(path, count, slices), source.spacing()
        levels = _levels(source, *source.scaling)
        for number in numbers:
            label = f"{source.plane} {number}" if count > 1 else ""
            yield Slice(levels(source.take([number])[0]), label, spacing)


def _numbers(path: Path, count: int, slices: slice | float) -> range:
    """The numbers of the chosen slices, of `count`."""
    if count == 1:
        return range(1)
    if isinstance(slices, slice):
        numbers = range(count)[slices]
    else:
        taken = max(1, round(slices * count))
        numbers = range((count - taken) // 2, (count + taken) // 2)
    if not numbers:
        raise BadInput(f"has {count} slices", f"--slices within 0:{count}", path=path)
    return numbers


def _levels(source: ImageSource, slope: float, inter: float) -> Callable[[np.ndarray], np.ndarray]:
    """How stored values become grey levels: uint8 as they are, others uint16.

    The highest of the file becomes 65535; 0, or the lowest if that is below, becomes 0.
    """
    if source.dtype == np.uint8 and slope > 0 and not inter:
        return np.asarray
    low, high = sorted(slope * end + inter for end in _range(source))
    zero = min(0.0, low)
    if not 0 < high - zero < np.inf:
        raise BadInput(f"holds values from {low:g} to {high:g}", "an image", path=source.path)

    def levels(values: np.ndarray) -> np.ndarray:
        share = (values.astype(np.float64) * slope + inter - zero) / (high - zero)
        return np.rint(65535 * share).astype(np.uint16)

    return levels


def _range(source: ImageSource) -> tuple[float, float]:
    """Lowest and highest stored value; BadInput for NaN and infinite ones."""
    count, height, width = source.shape
    step = max(1, BLOCK // (height * width))
    ends: list[float] = []
    for start in range(0, count, step):
        values = source.read(start, start + step)
        if not np.isfinite(values).all():
            raise BadInput("holds NaN or infinite values", "finite ones", path=source.path)
        ends += [float(values.min()), float(values.max())]
    return min(ends), max(ends)
