"""Slices of .npy arrays and NIfTI volumes as grey levels, upright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.files import BadInput, parsing
from nogaps.formats.arrays import BLOCK, ArrayFile, ImageSource, open_npy
from nogaps.formats.nifti import open_nifti

PLANES = ("sagittal", "coronal", "axial")  # by the axis they cut: right, anterior, superior


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
    with open_nifti(path) as stored:
        affine, slope, inter = _geometry(stored)
        shape = (*stored.layout.shape, 1)[:3]
        orientation = _orientation(path, affine, shape)
        plane = _plane(path, plane, orientation, shape)
        axis = [int(a) for a, _ in orientation].index(PLANES.index(plane))
        source = ArrayFile("nifti", path, stored.raw, stored.layout, axis)
        numbers = _numbers(path, source.shape[0], slices)
        levels = _levels(stored, slope, inter)
        # rows and columns as stored: their canonical axes, directions and voxel sizes
        kept = [k for k in range(3) if k != axis]
        axes, signs = orientation[kept].T
        flips = tuple(np.s_[::-1] if sign < 0 else np.s_[:] for sign in signs)
        sizes = _voxel_sizes(path, affine[:3, kept])
        turn = np.argsort(-axes)  # the axis that goes up becomes the rows
        for number in numbers:
            k = number if orientation[axis, 1] > 0 else source.shape[0] - 1 - number
            image = levels(source.read(k, k + 1)[0])[flips].transpose(turn)[::-1]
            label = f"{plane} {number}" if source.shape[0] > 1 else ""
            yield Slice(image, 65535, label, (float(sizes[turn[0]]), float(sizes[turn[1]])))


def _geometry(stored: ArrayFile) -> tuple[np.ndarray, float, float]:
    """Affine of voxels to RAS+, slope and intercept, of a NIfTI that `open_nifti` accepted."""
    from nibabel import Nifti1Header, Nifti2Header

    with parsing(stored.path, "a NIfTI image"):
        stored.raw.seek(0)
        start = stored.raw.read(Nifti2Header.sizeof_hdr)
        header = Nifti1Header(start[: Nifti1Header.sizeof_hdr], check=False)
        if header["sizeof_hdr"] != Nifti1Header.sizeof_hdr:
            header = Nifti2Header(start, check=False)
        slope, inter = header.get_slope_inter()
        return header.get_best_affine(), 1.0 if slope is None else slope, inter or 0.0


def _voxel_sizes(path: Path, axes: np.ndarray) -> np.ndarray:
    """Lengths of the columns of (3,2), (2,)."""
    sizes = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        found = "×".join(f"{size:g}" for size in sizes)
        raise BadInput(f"{path}: has voxels of {found}, expected sizes above 0")
    return sizes


def _orientation(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Per stored axis its canonical axis and direction, (3,2) int."""
    from nibabel import io_orientation

    with parsing(path, "a NIfTI image with an affine"):
        orientation = io_orientation(affine)
        lost = np.isnan(orientation[:, 0])
        if lost.sum() == 1 and shape[int(lost.argmax())] == 1:  # a 2-D image may lack its normal
            orientation[lost] = 3 - orientation[~lost, 0].sum(), 1
        if np.isnan(orientation).any():
            raise ValueError("its affine does not tell the axes apart")
        return orientation.astype(int)


def _plane(path: Path, plane: str | None, orientation: np.ndarray, shape: tuple[int, ...]) -> str:
    single = [k for k, n in enumerate(shape) if n == 1]
    if len(single) != 1:
        return plane or PLANES[0]
    own = PLANES[orientation[single[0], 0]]
    if plane not in (None, own):
        raise BadInput(f"{path}: is one {own} slice, expected --plane {own}")
    return own


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
