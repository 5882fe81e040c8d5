"""The mask of corrupted images: found where their zeros tell it, compared where it is given.

Found: a pixel is missing where it is zero in every image. The zeros of one image are not its mask:
some of them are true zeros. Images with different masks are told by zeros amid bright pixels, which
are hardly true ones: an image that has more than a few of them where others are observed, or that
is observed where others have them, has another mask. Zeros of a dark background do not count.
Masks that differ in a few pixels, or only where images are dark, pass for one. What is not thin, a
border or a region, is not a lost line, and the rule is not trusted.

Given: a mask is another image's where the pixels that it calls missing hold values, and some that
it calls observed are missing. Values alone are no fault: whoever hides pixels of a complete image
leaves them there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from nogaps.images.arrays import ImageSource
from nogaps.runtime.errors import Advice, BadInput

FEW, FEW_SHARE = 4, 1e-3  # true zeros amid bright pixels that an image may have: the larger of both
PIXELS = 1 << 17  # looked at together: their copies must be small beside the images
WIDE = 6  # pixels in each direction: wider than a lost line
MARKED = 0.01  # of the pixels: where so many hold one value in every image, it is no chance


class _Common:
    """The pixels that are zero in all images, and whether several masks explain the rest.

    Args:
        count: How many images there are.
        size: Their pixels.
        read: read(start, stop) gives some of them, (n,H,W).
    """

    def __init__(self, count: int, size: int, read: Callable[[int, int], np.ndarray]) -> None:
        self.hole, self.certain, self.several = np.array(True), np.array(False), False
        self.first, self.same, self.ends = np.array(0), np.array(True), (math.inf, -math.inf)
        self.blank: int | None = None  # an image that is zero everywhere
        step = max(1, PIXELS // size)
        for start in range(0, count, step):
            self._add(start, read(start, min(start + step, count)))

    def _add(self, start: int, images: np.ndarray) -> None:
        zero, few = images == 0, _few(images)
        if (blank := zero.all((1, 2))).any():
            self.blank = start + int(blank.argmax())
        shown = np.count_nonzero(self.hole & self.certain & ~zero, axis=(1, 2))
        self.hole = self.hole & zero.all(0)
        suspects = np.count_nonzero(zero & ~self.hole, axis=(1, 2)) > few
        some = images[suspects] if start else images
        bright = amid_bright(some, some != 0)
        if not start:
            self.certain, self.first = bright.any(0), images[0].copy()
        strange = np.count_nonzero(bright & ~self.hole, axis=(1, 2))
        self.several |= bool((shown > few).any() or (strange > few).any())
        self.same = self.same & (images == self.first).all(0)
        self.ends = min(self.ends[0], images.min()), max(self.ends[1], images.max())

    def problem(self) -> str:
        """Say why what is zero in every image need not be what is missing; "" if it may be."""
        if self.several:
            return "holds images with different masks"
        repeated = self.same & ~self.hole
        for value in self.ends:
            count = np.count_nonzero(repeated & (self.first == value))
            if value and count > max(FEW, MARKED * self.hole.size) and not self.same.all():
                return f"holds {value:g} at the same {count} pixels in every image"
        return _not_lines(self.hole)


def _few(images: np.ndarray) -> float:
    return max(FEW, FEW_SHARE * images[0].size)


def _not_lines(hole: np.ndarray) -> str:
    """Say what of a hole (H,W) is no line and no single pixel: a border, or a wide region."""
    for lines, name in ((hole.all(1), "rows"), (hole.all(0), "columns")):
        runs = [len(run) for run in "".join("01"[int(line)] for line in lines).split("0")]
        border = max(runs[0], runs[-1])
        if border > max(runs[1:-1], default=0):
            return f"the {border} outer {name} are zero in every image"
    share = min(hole.mean(), 1 - 1e-9)  # such squares arise by chance where nearly all is missing
    side = max(WIDE, math.ceil(math.sqrt(math.log(100 * hole.size) / -math.log(max(share, 1e-9)))))
    if ndimage.minimum_filter(hole, side, mode="constant", cval=0).any():
        return f"a region of {side}×{side} pixels or more is zero in every image"
    return ""


def shared_mask(y: np.ndarray, name: str = "test set") -> np.ndarray:
    """Return the one mask of all images: a pixel is missing where it is zero in every image.

    Args:
        y: Corrupted images, (N,1,H,W), of any type and range.
        name: What an error names.

    Returns:
        The mask (H,W), bool, True = observed.

    Raises:
        BadInput: Another shape, nothing or all missing, different masks, or zeros not in lines.

    >>> y = np.random.default_rng(0).random((4, 1, 8, 8))
    >>> y[:, :, 2] = 0  # a row is missing
    >>> y[1, 0, 5, 5] = 0  # a true zero
    >>> int((~shared_mask(y)).sum())
    8
    """
    if y.ndim != 4 or y.shape[1] != 1 or 0 in y.shape:
        raise BadInput(f"has shape {y.shape}", "(N, 1, H, W)", path=name)
    common = _Common(len(y), y[0].size, lambda start, stop: y[start:stop, 0])
    mask = ~common.hole
    if mask.all() or not mask.any():
        observed = f"{int(mask.sum())} of {mask.size} pixels observed"
        raise BadInput(observed, "some missing (0 in every image) and some not", path=name)
    if problem := common.problem():
        expected = "lines or single pixels that are missing, as 0, the same in all images"
        raise BadInput(problem, expected, path=name)
    return mask


def shared_mask_of(source: ImageSource) -> np.ndarray:
    """Return the one mask of the images of an open file, which is read once, in constant memory.

    Args:
        source: The images, whose missing pixels are zero.

    Returns:
        The mask (H,W), bool, True = observed; all True where no pixel is zero in every image.

    Raises:
        BadInput: A mask must be given: one image alone, an image that is zero everywhere, images
            with different masks, stored zeros that stand for other values, or zeros that are no
            lost lines.
    """
    advice = Advice.PLANE if source.plane and not source.upright else Advice.MASK
    if zero := source.scaling[1]:
        problem = f"its stored zeros stand for {zero:g}, not for 0"
    elif source.shape[0] == 1:
        problem = "holds one image, whose zeros may be true values"
    else:
        count, height, width = source.shape
        common = _Common(count, height * width, source.read)
        problem = common.problem()
        if common.blank is not None:
            problem = f"every pixel of image {common.blank} is zero"
    if problem:
        if advice is Advice.PLANE:  # slices of another plane may show lines
            problem += " and no mask is given (--mask)"
        raise BadInput(problem, path=source.path, advice=advice)
    return ~common.hole


class MaskCheck:
    """Given masks, compared with their images one by one.

    Args:
        path: Of the masks, for an error.
        name: Of the image of an index, for an error.
    """

    def __init__(self, path: str | Path, name: Callable[[int], str] = "image {}".format) -> None:
        self.path, self.name = path, name
        self.empty: int | None = None  # an image whose missing pixels are, and show amid others
        self.full: int | None = None  # an image that holds values where its mask says missing

    def add(self, start: int, images: np.ndarray, masks: np.ndarray) -> None:
        """Compare images from index `start` on with their masks.

        Args:
            start: Of the first of these images.
            images: (n,H,W), any type and range; 0, NaN or the lowest value marks missing pixels.
            masks: Bool (n,H,W) or (1,H,W), True = observed.

        Raises:
            BadInput: A mask is inverted, or belongs to another image: what it calls missing holds
                values, and what is missing it calls observed, or is missing in other images.
        """
        given, masks, few = masks, np.broadcast_to(masks, images.shape), _few(images)
        low = np.fmin(np.fmin.reduce(images.reshape(len(images), -1), 1), 0)[:, None, None]
        blank = (images == 0) | np.isnan(images) | (images == low)
        missing, values = _count(~masks), _count(~masks & ~blank)
        self._check_inverted(start, masks, blank, values > few)
        with np.errstate(all="ignore"):
            holes = blank & amid_bright(images.astype(np.float64) - low, masks & ~blank)
        explained, strange = _count(holes & ~masks) > few, _count(holes & masks) > few
        wrong = strange & ((values > few) | (missing > few) & ~explained)
        for k in np.flatnonzero((values > few) & ~wrong):
            wrong[k] = _shows_another(masks[k], blank[k], few)
        if wrong.any():
            self._refuse(start, given, blank, int(wrong.argmax()))
        self._remember(start, explained & (values == 0), values > few)

    def _check_inverted(
        self, start: int, masks: np.ndarray, blank: np.ndarray, hidden: np.ndarray
    ) -> None:
        edge = np.pad(np.zeros(np.subtract(blank.shape[1:], 2), bool), 1, constant_values=True)
        inverted = hidden & ~(masks & ~blank).any((1, 2))
        island = hidden & ~masks[:, edge].any(1) & (_count(masks) < edge.size / 2)
        if (wrong := inverted | island).any():
            k = int(wrong.argmax())
            problem = f"calls observed only what is missing in {self.name(start + k)}"
            expected = "1, True or white = observed: invert it"
            if not inverted[k]:
                problem = (
                    f"calls all but a part of {self.name(start + k)} missing, and it has values"
                )
                expected += ", or set to 0 in the image what shall be replaced"
            raise BadInput(problem, expected, path=self.path)

    def _refuse(self, start: int, given: np.ndarray, blank: np.ndarray, k: int) -> None:
        """Raise BadInput for image k of these, and say which mask would fit."""
        fits, square = ~(~given & ~blank[k]).any((1, 2)), len(set(blank.shape[1:])) == 1
        why = "which holds values where it says missing"
        if square and not (~given[k % len(given)].T & ~blank[k]).any():
            why = "which it fits transposed"
        elif fits.any():
            why = f"which that of {self.name(start + int(fits.argmax()))} fits"
        problem = f"is not the mask of {self.name(start + k)}, {why}"
        expected = "the masks of these images (in which 0 is what shall be replaced)"
        raise BadInput(problem, expected, path=self.path)

    def _remember(self, start: int, empty: np.ndarray, full: np.ndarray) -> None:
        """Keep an image of each kind; raise BadInput where there are both."""
        if empty.any():
            self.empty = start + int(empty.argmax())
        if full.any():
            self.full = start + int(full.argmax())
        if self.empty is not None and self.full is not None:
            full_name, empty_name = self.name(self.full), self.name(self.empty)
            problem = f"is not the mask of {full_name}, whose missing pixels hold values"
            expected = f"them to be missing there, as those of {empty_name} are"
            raise BadInput(problem, expected, path=self.path)


def _count(where: np.ndarray) -> np.ndarray:
    return np.count_nonzero(where, axis=(1, 2))


def _shows_another(mask: np.ndarray, blank: np.ndarray, few: float) -> bool:
    """Whether an image (H,W) lacks what the mask says transposed, or just a hole inside of it."""
    if len(set(mask.shape)) == 1 and np.count_nonzero(blank == mask.T) <= few:
        return True
    parts, _ = ndimage.label(blank)
    wide = np.unique(parts[ndimage.binary_erosion(blank, np.ones((3, 3)))])
    outer = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    hole = np.isin(parts, np.setdiff1d(wide, outer)) & blank
    return np.count_nonzero(hole & mask) > few >= np.count_nonzero(blank & ~hole)


def amid_bright(images: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return which unseen pixels lie amid bright ones, which are at least the image's mean.

    The nearest seen pixels to the left and right, above and below are all bright; if a whole row
    or column is unseen, the other two.

    Args:
        images: (n,H,W), of any type and range.
        seen: Which pixels count, bool (n,H,W).

    Returns:
        Bool (n,H,W).
    """
    with np.errstate(all="ignore"):  # NaN and infinity are never bright
        values = np.where(seen, np.abs(images.astype(np.float64)), 0)
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
