"""The mask of corrupted images whose missing pixels are zero: one for all images of a file.

A pixel is missing where it is zero in every image. The zeros of one image are not its mask: some
of them are true zeros. Images with different masks are told by zeros amid bright pixels, which
are hardly true ones: an image that has more than a few of them where others are observed, or that
is observed where others have them, has another mask. Zeros of a dark background do not count.
Masks that differ in a few pixels, or only where images are dark, pass for one.
"""

from __future__ import annotations

import numpy as np

from nogaps.images.arrays import ImageSource
from nogaps.runtime.errors import Advice, BadInput

FEW, FEW_SHARE = 4, 1e-3  # true zeros amid bright pixels that an image may have: the larger of both
PIXELS = 1 << 20  # read at a time


class _Common:
    """The pixels that are zero in all images so far, and whether several masks explain the rest."""

    def __init__(self) -> None:
        self.hole, self.certain, self.several = np.array(True), np.array(False), False

    def add(self, start: int, images: np.ndarray) -> None:
        """Look at images (n,H,W) from index `start` on."""
        zero, few = images == 0, max(FEW, FEW_SHARE * images[0].size)
        shown = np.count_nonzero(self.hole & self.certain & ~zero, axis=(1, 2))
        self.hole = self.hole & zero.all(0)
        suspects = np.count_nonzero(zero & ~self.hole, axis=(1, 2)) > few
        bright = bright_zeros(images[suspects] if start else images)
        if not start:
            self.certain = bright.any(0)
        strange = np.count_nonzero(bright & ~self.hole, axis=(1, 2))
        self.several |= bool((shown > few).any() or (strange > few).any())


def shared_mask(y: np.ndarray, name: str = "test set") -> np.ndarray:
    """Return the one mask of all images: a pixel is missing where it is zero in every image.

    Args:
        y: Corrupted images, (N,1,H,W), of any type and range.
        name: What an error names.

    Returns:
        The mask (H,W), bool, True = observed.

    Raises:
        BadInput: Another shape, nothing or everything missing, or images with different masks.

    >>> y = np.ones((4, 1, 8, 8))
    >>> y[:, :, 2] = 0  # a row is missing
    >>> y[1, 0, 5, 5] = 0  # a true zero
    >>> int((~shared_mask(y)).sum())
    8
    """
    if y.ndim != 4 or y.shape[1] != 1 or 0 in y.shape:
        raise BadInput(f"has shape {y.shape}", "(N, 1, H, W)", path=name)
    common, step = _Common(), max(1, PIXELS // y[0].size)
    for start in range(0, len(y), step):
        common.add(start, y[start : start + step, 0])
    mask = ~common.hole
    if mask.all() or not mask.any():
        observed = f"{int(mask.sum())} of {mask.size} pixels observed"
        raise BadInput(observed, "some missing (0 in every image) and some not", path=name)
    if common.several:
        raise BadInput("holds images with different masks", "one mask for all", path=name)
    return mask


def shared_mask_of(source: ImageSource) -> np.ndarray:
    """Return the one mask of the images of an open file, which is read once, in constant memory.

    Args:
        source: The images, whose missing pixels are zero.

    Returns:
        The mask (H,W), bool, True = observed; all True where no pixel is zero in every image.

    Raises:
        BadInput: A mask must be given: one image alone, an image that is zero everywhere, images
            with different masks, or stored zeros that stand for other values.
    """
    if source.zero:
        _ask_for_mask(source, f"its stored zeros stand for {source.zero:g}, not for 0")
    count, height, width = source.shape
    if count == 1:
        _ask_for_mask(source, "holds one image, whose zeros may be true values")
    common, step = _Common(), max(1, PIXELS // (height * width))
    for start in range(0, count, step):
        images = source.read(start, min(start + step, count))
        common.add(start, images)
        blank = ~images.any((1, 2))
        if blank.any():
            _ask_for_mask(source, f"every pixel of image {start + int(blank.argmax())} is zero")
        if common.several:
            _ask_for_mask(source, "holds images with different masks")
    return ~common.hole


def _ask_for_mask(source: ImageSource, problem: str) -> None:
    raise BadInput(problem, path=source.path, advice=Advice.MASK)


def bright_zeros(images: np.ndarray) -> np.ndarray:
    """Return where images are zero amid bright pixels, which are at least the image's mean.

    The nearest other values to the left and right, above and below are all bright; if a whole row
    or column is zero, the other two.

    Args:
        images: (n,H,W), of any type and range.

    Returns:
        Bool (n,H,W).
    """
    seen = images != 0
    with np.errstate(all="ignore"):  # NaN and infinity are never bright
        values = np.abs(images.astype(np.float64))
        share = values / np.maximum(seen.sum((1, 2), keepdims=True), 1)
        bright = seen & (values >= share.sum((1, 2), keepdims=True) * (1 - 1e-6))
    left, up, right, down = (
        np.rot90(_nearest(*(np.rot90(a, turn, (1, 2)) for a in (seen, bright))), -turn, (1, 2))
        for turn in range(4)
    )
    across, along = left & right, up & down
    no_row, no_column = (~seen.any(axis, keepdims=True) for axis in (2, 1))
    return ~seen & (across & along | across & no_column | along & no_row)


def _nearest(seen: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Whether the nearest seen pixel at or before each one, along the last axis, is bright."""
    place = 2 * np.arange(seen.shape[2], dtype=np.int32)
    return np.maximum.accumulate(np.where(seen, place + bright, 0), 2) % 2 == 1
