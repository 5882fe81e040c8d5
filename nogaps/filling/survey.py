"""What must be known of all images before the first is filled: are they sound, are they scaled?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt

from nogaps.filling import FillingMethod, PlainMethod
from nogaps.images.arrays import ImageSource
from nogaps.images.nifti import NiftiFile
from nogaps.images.png import PngSource, some
from nogaps.masks import MaskCheck
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.errors import Advice, BadInput

# masks(start, images (n,H,W)) gives the masks of the images from `start` on: bool, True =
# observed, (n,H,W), or (1,H,W) if they have one
Masks = Callable[[int, np.ndarray], np.ndarray]
WIDEST = 3  # pixels in every direction: what lines and scattered pixels leave, as in training
MISSING = {"zero": "zero in every image", "nan": "NaN"}  # a missing pixel, in words


@dataclass(frozen=True)
class FillReport:
    """What was filled.

    Attributes:
        images: How many images.
        height: Of an image, in pixels.
        width: Of an image, in pixels.
        missing_pixels: Over all images.
        masks: How many different masks they have.
        scaled: Whether the values were not floats in [0,1], and were scaled for the network.
        plane: Of a NIfTI's slices; "" if there is none, or the file does not tell.
        notes: Where the images are unlike those that the networks were trained on, for people.
    """

    images: int
    height: int
    width: int
    missing_pixels: int
    masks: int
    scaled: bool
    plane: str = ""
    notes: Sequence[str] = ()


def survey(
    source: ImageSource,
    masks: Masks,
    missing: str,
    given: str,
    batch: int,
    method: FillingMethod,
    half_width: bool,
) -> tuple[FillReport, str]:
    """Read all images once and check every value, and every mask that was given.

    Args:
        source: The images.
        masks: Their masks.
        missing: Where no masks are given: "zero" allows no NaN, "nan" where pixels are missing.
        given: The name of the masks that were given, "" if they are in the images.
        batch: Images that are read at a time.
        method: What will fill them.
        half_width: Whether it will give half-widths as well.

    Returns:
        The report on the images when they are filled, and the sha256 of all values and masks.

    Raises:
        BadInput: No pixel is missing, an image has no observed pixel, a mask is not that of its
            image, or values are not finite.
    """
    digest, kinds, missing_pixels, scaled, widest = hashlib.sha256(), set[str](), 0, False, 0
    hole = f"False in {given}" if given else MISSING[missing]
    check = MaskCheck(given, source.name)
    for start in range(0, source.shape[0], batch):
        images = source.read(start, min(start + batch, source.shape[0]))
        mask = masks(start, images)
        observed, holes = split(images, mask)
        empty = ~np.broadcast_to(mask, images.shape).any((1, 2))
        if empty.any():
            problem = f"every pixel of {source.name(start + int(empty.argmax()))} is {hole}"
            raise BadInput(problem, "observed ones", path=source.path)
        if np.isinf(images).any():
            raise BadInput("holds infinite values", "finite ones", path=source.path)
        if given:
            check.add(start, images, mask)
        elif missing == "zero" and np.isnan(images).any():
            raise BadInput("holds NaN", path=source.path, advice=Advice.MISSING_NAN)
        values = images[np.broadcast_to(observed, images.shape) & ~np.isnan(images)]
        scaled |= bool(images.dtype.kind != "f" or ((values < 0) | (values > 1)).any())
        missing_pixels += int(np.count_nonzero(np.broadcast_to(holes, images.shape)))
        widest = max(widest, *map(_widest, holes))
        kinds |= {fingerprint(torch.tensor(one)) for one in mask}
        digest.update(images.tobytes())
        digest.update(mask.tobytes())
    if not missing_pixels:
        expected, advice = ("missing pixels", None) if given else ("", Advice.MASK)
        raise BadInput(f"no pixel is {hole}", expected, path=source.path, advice=advice)
    notes = [*_training_notes(kinds, widest, source.shape, method, half_width)]
    notes += _source_notes(source)
    counts = (*source.shape, missing_pixels, len(kinds))
    return FillReport(*counts, scaled, source.plane, notes), digest.hexdigest()


def _widest(hole: np.ndarray) -> int:
    """Side of the largest square, of an odd number of pixels, that lies in a hole (H,W)."""
    return max(2 * int(distance_transform_cdt(np.pad(hole, 1), "chessboard").max()) - 1, 0)


def split(images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is given to an imputer, and what is filled: all but values outside of a scan.

    NaN marks missing pixels, unless an image has it at observed ones too: then it is neither a
    value nor missing, and stays.

    Args:
        images: (n,H,W).
        masks: Bool (n,H,W) or (1,H,W), True = observed.

    Returns:
        Observed and filled pixels, bool, of the shape of masks, or (n,H,W) where NaN counts.
    """
    nan = np.isnan(images)
    outside = nan & (nan & masks).any((1, 2), keepdims=True)
    if not outside.any():
        return masks, ~masks
    holes = ~(masks | outside)
    observed = masks & ~outside | ~holes.any((1, 2), keepdims=True)  # nothing to fill: all is seen
    return observed, holes


def same_mask(mask: np.ndarray) -> Masks:
    """Return the masks of images that share one, (H,W)."""
    return lambda start, images: mask[None]


def nan_masks(start: int, images: np.ndarray) -> np.ndarray:
    """Return the masks of images whose missing pixels are NaN; see `Masks`."""
    return ~np.isnan(images)


def _training_notes(
    masks: set[str],
    widest: int,
    shape: tuple[int, int, int],
    method: FillingMethod,
    half_width: bool,
) -> Iterator[str]:
    """What the images have that the networks of a method were not trained for."""
    if isinstance(method, PlainMethod):
        return
    trained, note = method.trained_on, ""
    if trained is None:
        note = "the networks do not say which size and mask they were trained for"
    elif trained.size != shape[1:]:
        sizes = "images of {}×{}: the networks were trained for {}×{}, under one mask"
        note = sizes.format(*shape[1:], *trained.size)
    elif others := len(masks - {trained.mask}):
        which = "the mask is not" if len(masks) == 1 else f"{others} of {len(masks)} masks are not"
        note = f"{which} the one that the networks were trained for"
    if note:
        yield note
        if half_width:
            yield "the intervals are calibrated for that size and mask"
    if widest > WIDEST:
        yield (
            f"holes up to {widest} pixels wide in every direction: the networks know "
            "lines, and intervals cover less there (docs/limits.md)"
        )


def _source_notes(source: ImageSource) -> Iterator[str]:
    """How slices are unlike the heads that the shipped networks know; what a folder leaves out."""
    if isinstance(source, NiftiFile):
        if not source.plane:
            yield "slices as they are stored: the file does not tell its orientation"
        elif not source.upright:
            yield f"{source.plane} slices as they are stored: --plane would turn them upright"
        if source.plane not in ("", "sagittal"):
            yield f"{source.plane} slices: the shipped networks were trained on sagittal ones"
    if isinstance(source, PngSource) and source.others:
        yield f"left out: {len(source.others)} files ({some(source.others)})"
