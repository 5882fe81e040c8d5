"""Pairs of images and masks, right and wrong ones, made without a look at what compares them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nogaps import standin
from nogaps.masks import MaskCheck
from nogaps.runtime.errors import BadInput

SIZE = 64
CLEAN = standin.clean_images()[:, 0]
COUNTS = (1, 2, 3, 5, 12, 40)
HEADS = ("noise floor", "black background", "8 bits", "12 bits", "other range")
HOLES = ("zero", "NaN", "values", "noise", "neighbours")  # what the missing pixels hold
ERRORS = ("inverted", "transposed", "shifted by one", "another file's", "permuted", "two swapped")
OF_SEVERAL = ("shifted by one", "permuted", "two swapped")  # each image has its own mask


def stripes(rng: np.random.Generator) -> np.ndarray:
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 9)
    angle = rng.choice([0, np.pi / 2]) if rng.random() < 0.3 else angle
    rows, columns = np.mgrid[:SIZE, :SIZE]
    place = np.cos(angle) * columns + np.sin(angle) * rows + rng.uniform(0, period)
    return place % period >= rng.uniform(0.25, 0.55) * period


def course(rng: np.random.Generator) -> np.ndarray:
    return np.roll(standin.course_mask(), rng.integers(0, SIZE, 2), (0, 1))


def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.random((SIZE, SIZE)) >= rng.uniform(0.05, 0.7)


def rectangles(rng: np.random.Generator, count: int, low: tuple, high: tuple) -> np.ndarray:
    mask = np.ones((SIZE, SIZE), bool)
    for height, width in rng.integers(low, high, (count, 2)):
        top, left = rng.integers(0, SIZE + 1 - height), rng.integers(0, SIZE + 1 - width)
        mask[top : top + height, left : left + width] = False
    return mask


KINDS = {
    "stripes": stripes,
    "course": course,
    "pixels": pixels,
    "lines": lambda rng: rectangles(rng, rng.integers(3, 12), (1, SIZE), (4, SIZE + 1)),
    "blocks": lambda rng: rectangles(rng, rng.integers(1, 6), (4, 4), (17, 17)),
}


@dataclass(frozen=True)
class Pair:
    """Images (N,H,W), the mask (N,H,W) or (1,H,W) given with them, and what both are."""

    images: np.ndarray
    mask: np.ndarray
    kind: str
    heads: str

    @property
    def harm(self) -> int:
        """How many observed values would be replaced."""
        return int(((self.images != 0) & ~np.isnan(self.images) & ~self.mask).sum())


def heads(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    x = CLEAN[rng.permutation(len(CLEAN))[:count]].copy()
    if kind == "black background":
        return np.where(x > rng.uniform(0.02, 0.1), x, 0).astype(np.float32)
    if kind == "8 bits":
        return np.round(255 * np.clip(x - rng.choice([0, 0.004, 0.02]), 0, 1)).astype(np.uint8)
    if kind == "12 bits":
        return np.round(4095 * x + 1).astype(">i2")
    return x * rng.choice([1e-6, 300.0]) if kind == "other range" else x


def with_holes(rng: np.random.Generator, x: np.ndarray, mask: np.ndarray, hole: str) -> np.ndarray:
    """Images whose missing pixels hold what `hole` says."""
    mask = np.broadcast_to(mask, x.shape)
    if hole == "noise":
        return np.where(mask, x, rng.permuted(x.reshape(len(x), -1), axis=1).reshape(x.shape))
    if hole == "neighbours":
        options = {"return_distances": False, "return_indices": True}
        near = [ndimage.distance_transform_edt(~one, **options) for one in mask]
        return np.stack([image[tuple(place)] for image, place in zip(x, near, strict=True)])
    value = np.nan if hole == "NaN" and x.dtype.kind == "f" else 0
    return x if hole == "values" else np.where(mask, x, value).astype(x.dtype)


def make(seed: int, error: str | None = None, hole: str | None = None) -> Pair:
    """Make a pair; with an error its holes are 0 or NaN, else what is asked for."""
    rng = np.random.default_rng(seed)
    kind, own, count = rng.choice(list(KINDS)), rng.random() < 0.5, int(rng.choice(COUNTS))
    look = str(rng.choice(HEADS))
    if error in OF_SEVERAL:
        own, count = True, max(count, 2)

    def draw() -> np.ndarray:
        return np.stack([KINDS[kind](rng) for _ in range(count if own else 1)])

    mask = draw()
    hole = hole or str(rng.choice(["zero", "zero", "zero", "NaN"]))
    images = with_holes(rng, heads(rng, look, count), mask, hole)
    return Pair(images, _with_error(rng, mask, error, draw), str(kind), look)


def _with_error(rng: np.random.Generator, mask: np.ndarray, error: str | None, draw) -> np.ndarray:
    order = np.arange(len(mask))
    if error == "permuted":
        order = rng.permutation(len(mask))
    elif error == "shifted by one":
        order = np.roll(order, 1)
    elif error == "two swapped":
        pair = rng.choice(len(mask), 2, replace=False)
        order[pair] = order[pair[::-1]]
    if error == "inverted":
        return ~mask
    if error == "transposed":
        return np.swapaxes(mask, 1, 2)
    return draw() if error == "another file's" else mask[order]


def agree(images: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a mask may be that of the images, by `MaskCheck`."""
    try:
        MaskCheck("mask").add(0, images, mask)
    except BadInput:
        return False
    return True


def judged(count: int) -> tuple[Counter, list[tuple]]:
    """Of `count` pairs, half of them wrong: how many of each kind, and which were misjudged."""
    made, misjudged = Counter(), []
    for seed in range(count):
        error = ERRORS[seed // 2 % len(ERRORS)] if seed % 2 else None
        pair = make(seed, error, None if error else HOLES[seed // 2 % len(HOLES)])
        if error and not pair.harm:  # as a symmetric mask, transposed
            continue
        made[pair.kind, error is None] += 1
        if agree(pair.images, pair.mask) != (error is None):
            misjudged.append((error, pair.kind, pair.heads))
    return made, misjudged
