"""Slices of .npy arrays and NIfTI volumes as grey levels, upright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.images.arrays import BLOCK, ImageSource, open_npy
from nogaps.images.nifti import PLANES, open_nifti
from nogaps.runtime.files import BadInput


@dataclass(frozen=True)
class Slice:
    """One image, (H,W) uint8 or uint16, upright; top: what the file's highest value became.

    label: its number in the file, or ""; spacing: height and width of a pixel, in any unit.
    """

    pixels: np.ndarray
    top: int
    label: str = ""
    spacing: tuple[float, float] = (1.0, 1.0)


def _range(source: ImageSource) -> tuple[float, float]:
    """Lowest and highest stored value; BadInput for NaN and infinite ones."""
    count, height, width = source.shape
    step = max(1, BLOCK // (height * width))
    ends: list[float] = []
    for start in range(0, count, step):
        values = source.read(start, min(start + step, count))
        if not np.isfinite(values).all():
            raise BadInput(f"{source.path}: holds NaN or infinite values, expected finite ones")
        ends += [float(values.min()), float(values.max())]
    return min(ends), max(ends)


def _levels(source: ImageSource, slope: float, inter: float) -> Callable[[np.ndarray], np.ndarray]:
    """How stored values become grey levels: uint8 as they are, others uint16.

    The highest of the file becomes 65535; 0, or the lowest if that is below, becomes 0.
    """
    if source.dtype == np.uint8 and slope > 0 and not inter:
        return np.asarray
    low, high = sorted(slope * end + inter for end in _range(source))
    zero = min(0.0, low)
    if not 0 < high - zero < np.inf:
        found = f"values from {low:g} to {high:g}"
        raise BadInput(f"{source.path}: holds {found}, expected an image")

    def levels(values: np.ndarray) -> np.ndarray:
        share = (values.astype(np.float64) * slope + inter - zero) / (high - zero)
        return np.rint(65535 * share).astype(np.uint16)

    return levels


def read_array(path: Path) -> Iterator[Slice]:
    """Images of a .npy of shape (H,W), (N,H,W) or (N,1,H,W). Raises BadInput."""
    with open_npy(path) as source:
        count = source.shape[0]
        levels = _levels(source, 1.0, 0.0)
        for k in range(count):
            yield Slice(levels(source.read(k, k + 1)[0]), 65535, str(k) if count > 1 else "")


def read_volume(path: Path, plane: str | None, slices: slice | float) -> Iterator[Slice]:
    """Slices of a 2-D or 3-D NIfTI, turned to the closest canonical axes (RAS+).

    plane: one of PLANES, None: sagittal, or the plane of a volume that is one slice; the top of
    an image is superior, or anterior; its right is anterior, or the patient's right. slices: of
    the canonical axis (left, posterior or inferior is 0), or a share of it around the middle.
    """
    with open_nifti(path) as source:
        if source.slices < source.shape[0]:
            raise BadInput(f"{path}: has shape {source.layout.shape}, expected one volume")
        single = source.single()
        source.turn_to(plane or (PLANES[0] if single is None else source.plane_of(single)))
        numbers, spacing = _numbers(path, source.shape[0], slices), source.spacing()
        levels = _levels(source, *source.scaling)
        for number in numbers:
            label = f"{source.plane} {number}" if source.shape[0] > 1 else ""
            yield Slice(levels(source.read(number, number + 1)[0]), 65535, label, spacing)


def _numbers(path: Path, count: int, slices: slice | float) -> range:
    if count == 1:
        return range(1)
    if isinstance(slices, slice):
        numbers = range(count)[slices]
    else:
        taken = max(1, round(slices * count))
        numbers = range((count - taken) // 2, (count + taken) // 2)
    if not numbers:
        raise BadInput(f"{path}: has {count} slices, expected --slices within 0:{count}")
    return numbers
