"""What must be known of all images before the first is filled: are they sound, are they scaled?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from nogaps.errors import BadInput
from nogaps.masks import Masks


@dataclass(frozen=True)
class FillReport:
    """What was filled: missing_pixels over all images, masks counts the different ones.

    scaled: the values were not floats in [0,1] and were scaled for the network, and back.
    """

    images: int
    height: int
    width: int
    missing_pixels: int
    masks: int
    scaled: bool


@dataclass(frozen=True)
class Surveyed:
    """The report; a hash of all images and masks; the masks, if they had to be found."""

    report: FillReport
    digest: str
    masks: Masks | None = None


class Survey:
    """Check every value and mask as they pass, in order, and tell them from those of other files.

    name: what is blamed; hole: what a missing pixel is, in words; missing: "zero" allows no NaN,
    "nan" allows it in holes, "any" allows anything there.
    """

    def __init__(self, name: str, hole: str, missing: str) -> None:
        self.name, self.hole, self.missing = name, hole, missing
        self.holes, self.scaled, self.masks = 0, False, set[int]()
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
        self.masks |= {hash(one.tobytes()) for one in mask}
        self.digest.update(mask.tobytes())

    def report(self, shape: tuple[int, int, int]) -> FillReport:
        """What was found. Raises BadInput if nothing is missing."""
        if not self.holes and self.missing != "any":
            raise BadInput(f"{self.name}: no pixel is {self.hole}, expected missing pixels")
        return FillReport(*shape, self.holes, len(self.masks), self.scaled)

    def _check(self, start: int, images: np.ndarray, seen: np.ndarray) -> None:
        empty = ~seen.any((1, 2))
        if empty.any():
            which = f"every pixel of image {start + int(empty.argmax())}"
            raise BadInput(f"{self.name}: {which} is {self.hole}, expected observed ones")
        if (np.isinf(images) & (seen if self.missing == "any" else True)).any():
            raise BadInput(f"{self.name}: holds infinite values, expected finite ones")
        nan = np.isnan(images)
        if self.missing == "zero" and nan.any():
            raise BadInput(f"{self.name}: holds NaN, expected numbers (or --missing nan)")
        if (nan & seen).any():
            raise BadInput(f"{self.name}: holds NaN at observed pixels, expected numbers there")
