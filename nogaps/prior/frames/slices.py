"""Every image of a PNG, JPEG, .npy or NIfTI file, upright, as grey levels."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.images.arrays import BLOCK, ImageSource, open_npy
from nogaps.images.nifti import PLANES, open_nifti
from nogaps.images.png import open_picture, read_shown, shown_size
from nogaps.prior.frames.sources import SourceFile
from nogaps.runtime.errors import BadInput
from nogaps.runtime.progress import progress

FORMATS = ("PNG", "JPEG")  # of stills


@dataclass(frozen=True)
class Slice:
    """One image.

    Attributes:
        pixels: (H, W) uint8 or uint16, upright.
        top: What the highest value of its file became.
        label: Its number in the file, or "".
        spacing: Height and width of a pixel, in any unit.
    """

    pixels: np.ndarray
    top: int
    label: str = ""
    spacing: tuple[float, float] = (1.0, 1.0)


def read_files(
    files: Sequence[SourceFile], plane: str | None, slices: slice | float
) -> Iterator[tuple[SourceFile, Slice | BadInput]]:
    """Read every image of every file, or in the place of an image what is wrong with its file.

    Args:
        files: A PNG or JPEG must have the size that most in its folder have.
        plane: See `read_volume`.
        slices: See `read_volume`.
    """
    sizes = _common_sizes(files)
    for file in progress(files, "reading", delay=1):
        try:
            if file.kind == "still":
                images = read_still(file.path, sizes.get(file.path.parent))
            elif file.kind == "npy":
                images = read_array(file.path)
            else:
                images = read_volume(file.path, plane, slices)
            for image in images:
                yield file, image
        except BadInput as error:
            yield file, error


def _common_sizes(files: Sequence[SourceFile]) -> dict[Path, tuple[int, int]]:
    """The size (H, W) that most of the stills in a folder have, by folder."""
    sizes: dict[Path, Counter[tuple[int, int]]] = defaultdict(Counter)
    for file in files:
        if file.kind == "still":
            # a bad file is reported when it is read
            with contextlib.suppress(BadInput), open_picture(file.path, FORMATS) as picture:
                sizes[file.path.parent][shown_size(picture)] += 1
    return {folder: counts.most_common(1)[0][0] for folder, counts in sizes.items()}


def read_still(path: Path, size: tuple[int, int] | None) -> Iterator[Slice]:
    """Read a PNG or JPEG as viewers show it, 16-bit levels as they are.

    Raises:
        BadInput: It is damaged, or not of this size (H, W).
    """
    pixels = read_shown(path, FORMATS)
    if size not in (None, pixels.shape):
        expected = "{}×{} as most of its folder".format(*size)
        raise BadInput("is {}×{}".format(*pixels.shape), expected, path=path)
    yield Slice(pixels, 255 if pixels.dtype == np.uint8 else int(pixels.max()))


def read_array(path: Path) -> Iterator[Slice]:
    """Read the images of a .npy; see `open_npy`.

    Raises:
        BadInput: It is damaged, or holds NaN, infinite or only equal values.
    """
    with open_npy(path) as source:
        count, levels = source.shape[0], _levels(source, 1.0, 0.0)
        for k in range(count):
            yield Slice(levels(source.take([k])[0]), 65535, str(k) if count > 1 else "")


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
            yield Slice(levels(source.take([number])[0]), 65535, label, spacing)


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
