"""What must be known of all images before the first is filled: are they sound, are they scaled?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nogaps.filling.method import FillingMethod
from nogaps.images.arrays import ImageSource
from nogaps.images.nifti import NiftiFile
from nogaps.masks import shared_mask_of
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.errors import Advice, BadInput

HOLES = {"zero": "zero in every image", "nan": "NaN"}  # what is missing, in words


@dataclass(frozen=True)
class FillReport:
    """What was filled: missing_pixels over all images, masks counts the different ones.

    scaled: the values were not floats in [0,1] and were scaled for the network, and back. plane: of
    a NIfTI's slices, "" if there is none or it is unknown. notes: where the images are unlike those
    that the networks were trained on, for people.
    """

    images: int
    height: int
    width: int
    missing_pixels: int
    masks: int
    scaled: bool
    plane: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Surveyed:
    """The report; a hash of all images and masks; the mask (H,W), if it had to be found.

    kinds: fingerprints of the different masks.
    """

    report: FillReport
    digest: str
    mask: np.ndarray | None = None
    kinds: frozenset[str] = frozenset()


class Survey:
    """Check every value and mask as they pass, in order, and tell them from those of other files.

    name: what is blamed; hole: what a missing pixel is, in words; missing: "zero" allows no NaN,
    "nan" allows it in holes, "any" allows anything there.
    """

    def __init__(self, name: str, hole: str, missing: str) -> None:
        self.name, self.hole, self.missing = name, hole, missing
        self.holes, self.scaled, self.masks = 0, False, set[str]()
        self.digest = hashlib.sha256()

    def look(self, start: int, images: np.ndarray, mask: np.ndarray) -> None:
        """Check images (n,H,W) from index `start` on; mask (n,H,W) or (1,H,W)."""
        seen = np.broadcast_to(mask, images.shape)
        self._check(start, images, seen)
        values = images[seen]
        self.scaled |= bool(images.dtype.kind != "f" or values.min() < 0 or values.max() > 1)
        self.digest.update(images.tobytes())

    def count(self, mask: np.ndarray, images: int) -> None:
        """Note the mask, (n,H,W) or (1,H,W), of so many images."""
        missing = mask.size - int(np.count_nonzero(mask))
        self.holes += missing * (images // len(mask))
        self.masks |= {fingerprint(torch.from_numpy(one)) for one in mask}
        self.digest.update(mask.tobytes())

    def done(self, shape: tuple[int, int, int], mask: np.ndarray | None) -> Surveyed:
        """What was found. Raises BadInput if nothing is missing."""
        if not self.holes and self.missing != "any":
            problem = f"no pixel is {self.hole}"
            if self.hole in HOLES.values():
                raise BadInput(problem, path=self.name, advice=Advice.MASK)
            raise BadInput(problem, "missing pixels", path=self.name)
        report = FillReport(*shape, self.holes, len(self.masks), self.scaled)
        return Surveyed(report, self.digest.hexdigest(), mask, frozenset(self.masks))

    def _check(self, start: int, images: np.ndarray, seen: np.ndarray) -> None:
        empty = ~seen.any((1, 2))
        if empty.any():
            problem = f"every pixel of image {start + int(empty.argmax())} is {self.hole}"
            raise BadInput(problem, "observed ones", path=self.name)
        if (np.isinf(images) & (seen if self.missing == "any" else True)).any():
            raise BadInput("holds infinite values", "finite ones", path=self.name)
        nan = np.isnan(images)
        if self.missing == "zero" and nan.any():
            raise BadInput("holds NaN", path=self.name, advice=Advice.MISSING_NAN)
        if (nan & seen).any():
            raise BadInput("holds NaN at observed pixels", "numbers there", path=self.name)


def mask_of(source: ImageSource) -> np.ndarray:
    """`shared_mask_of`; where it fails, and slices could lie in another plane, that is said."""
    try:
        return shared_mask_of(source)
    except BadInput as error:
        if isinstance(source, NiftiFile) and not source.upright:
            problem = f"{error.problem} and no mask is given (--mask)"
            raise BadInput(problem, path=source.path, advice=Advice.PLANE) from error
        raise


def notes_on_training(
    report: FillReport, masks: frozenset[str], method: FillingMethod
) -> Iterator[str]:
    """What the images have that the networks of a loaded imputer were not trained for.

    masks: fingerprints of the images' masks.
    """
    if (trained := method.trained_on) is None:
        if method.identity is None:  # it is not a network
            return
        yield "the networks do not say which size and mask they were trained for"
    elif trained.size != (report.height, report.width):
        sizes = "images of {}×{}: the networks were trained for {}×{}, under one mask"
        yield sizes.format(report.height, report.width, *trained.size)
    elif others := len(masks - {trained.mask}):
        which = "the mask is not" if len(masks) == 1 else f"{others} of {len(masks)} masks are not"
        yield f"{which} the one that the networks were trained for"


def notes_on_slices(source: ImageSource) -> Iterator[str]:
    """How the slices of a NIfTI are unlike the heads that the shipped networks know."""
    if isinstance(source, NiftiFile) and not source.upright:
        plane = f"{source.plane} " if source.plane else ""
        yield f"{plane}slices as they are stored: --plane would turn them upright"
    if isinstance(source, NiftiFile) and source.plane not in ("", "sagittal"):
        yield f"{source.plane} slices: the shipped networks were trained on sagittal ones"
