"""How to spoil the filled array: each entry takes the good one and returns another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from submissions import MASK, TRUTH, Y

Array = Callable[[np.ndarray], object]


def put(place: object, value: object) -> Array:
    def edit(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[place] = value(x) if callable(value) else value
        return x

    return edit


def take(places: object) -> Array:
    return lambda x: x[places]


def holes(values: np.ndarray | float) -> Array:
    return lambda x: np.where(MASK, x, np.clip(values, 0, 1)).astype(np.float32)


PAIR = np.arange(100)
PAIR[[7, 60]] = PAIR[[60, 7]]
ORDER = np.random.default_rng(1).permutation(100)
NOISE = np.random.default_rng(1).normal(0, 0.02, Y.shape[1:])
MEANS = (Y.sum((1, 2, 3)) / MASK.sum())[:, None, None, None]
THIN = MASK | (np.arange(64) == 25)  # a mask made by hand: one column of it taken as observed
RNG = np.random.default_rng(0)
ROUGH = np.clip(gaussian_filter(TRUTH, (0, 0, 0.9, 0.9)) + RNG.normal(0, 0.03, TRUTH.shape), 0, 1)
ROUGH = ROUGH.astype(np.float32)  # what a network returns, observed pixels not copied
OVERSHOOT = (2 * TRUTH - 1 + RNG.normal(0, 0.04, Y.shape)).clip(-1.1, 1.05).astype(np.float32)
OVERSHOOT[3, 0, 30, 30:32] = (-1.21, 1.07)


def network(x: np.ndarray) -> np.ndarray:
    """What a network returns, observed pixels not copied."""
    return np.clip(x + NOISE, 0, 1).astype(np.float32)


ARRAYS: dict[str, tuple[Array, str, str]] = {
    "range [-1,1]": (lambda x: 2 * x - 1, "range", "written in [-1, 1]"),
    "range [0,255]": (lambda x: 255 * x, "range", "written in [0, 255]"),
    "range overshoot": (put((3, 0, 8, np.argmin(MASK[8])), 1.2), "overshoot", "1.2]"),
    "range undershoot": (lambda x: np.where(MASK, x, x - 0.01), "overshoot", "values in [-0.01"),
    "[-1,1], overshoot": (lambda x: OVERSHOOT, "range observed-changed", "written in [-1, 1]"),
    "scaled overshoot": (lambda x: 1.1 * ROUGH - 0.02, "overshoot observed-changed", "values in"),
    "one wild value": (put((3, 0, 8, np.argmin(MASK[8])), 2.5), "range", "2.5]"),
    "holes below 0": (lambda x: np.where(MASK, x, x - 0.15), "range not-filled", "in [-0.15"),
    "standardised": (lambda x: (x - 0.4) / 0.25, "range scaled", "a 4, b -1.6"),
    "float64": (lambda x: x.astype(np.float64), "dtype", "float64"),
    "big-endian": (lambda x: x.astype(">f4"), "dtype", ">f4"),
    "uint8": (lambda x: (255 * x).astype(np.uint8), "dtype range", "uint8"),
    "strings": (lambda x: x[:2].astype(str), "unreadable", "<U32"),
    "squeezed": (lambda x: x[:, 0], "axes", "(100, 64, 64)"),
    "channels last": (lambda x: x.transpose(0, 2, 3, 1), "axes", "(100, 64, 64, 1)"),
    "batch last": (lambda x: x[:, 0].transpose(1, 2, 0), "shape", "(64, 64, 100)"),
    "three channels": (lambda x: x.repeat(3, 1), "shape", "(100, 3, 64, 64)"),
    "scalar": (lambda x: np.zeros((), np.float32), "shape", "shape ()"),
    "no images": (take(slice(0)), "number", "0 images"),
    "one image too many": (take([*range(100), 0]), "number", "101 images"),
    "archive": (lambda x: {"x_hat": x}, "unreadable", "dict"),
    "dropped": (lambda x: np.delete(x, 17, 0), "number order", "no filling of input 17"),
    "dropped, not copied": (lambda x: network(x)[1:], "number order", "99 images"),
    "last batch dropped": (take(slice(96)), "number", "96 images, the test set has 100"),
    "shuffled": (take(ORDER), "order", "image 0 holds input"),
    "shuffled and lossy": (lambda x: network(x)[::-1], "order", "holds input"),
    "shuffled in [-1,1]": (lambda x: 2 * x[::-1] - 1, "range order", "[-1, 1]"),
    "swapped pair": (take(PAIR), "order", "image 7 holds input 60; image 60"),
    "off by one": (lambda x: np.roll(x, -1, 0), "order", "image 0 holds input 1;"),
    "duplicated": (put(5, lambda x: x[4]), "order", "5 holds input 4; no filling of input 5"),
    "transposed": (lambda x: x.swapaxes(2, 3), "orientation", "transposed (rows"),
    "transposed back": (lambda x: np.rot90(x, 2, (2, 3)).swapaxes(2, 3), "orientation", "other"),
    "flipped": (lambda x: x[..., ::-1], "orientation", "flipped left to right"),
    "upside down": (lambda x: x[..., ::-1, :], "orientation", "flipped upside down"),
    "rotated": (lambda x: np.rot90(x, 1, (2, 3)), "orientation", "90° to the left"),
    "rotated back": (lambda x: np.rot90(x, -1, (2, 3)), "orientation", "90° to the right"),
    "rotated by 180": (lambda x: np.rot90(x, 2, (2, 3)), "orientation", "180°"),
    "one flipped": (put(9, lambda x: x[9, :, :, ::-1]), "orientation", "image 9: flipped left"),
    "moved": (lambda x: np.roll(x, 1, 3), "orientation", "one column to the right"),
    "NaN": (put((2, 0, 30, 30), np.nan), "finite", "1 NaN and 0 infinite values in image 2"),
    "NaN in the holes": (lambda x: np.where(MASK, x, np.nan).astype("f4"), "finite", "207300 NaN"),
    "one pixel changed": (put((4, 0, 0, 0), 0.5), "observed-changed", "1 observed pixels differ"),
    "rounded": (lambda x: np.round(x, 3), "observed-changed", "by up to 0.0005"),
    "rounded to 8 bit": (lambda x: np.round(255 * x) / np.float32(255), "observed-changed", ""),
    "all zero": (np.zeros_like, "observed-changed not-filled", "by up to 1,"),
    "huge": (put((1, 0, 0, 0), 3e38), "range observed-changed", "[0, 3e+38]"),
    "not copied": (network, "observed-changed", "and 95 more"),
    "scaled": (lambda x: 0.8 * x + np.float32(0.05), "scaled", "a 0.8, b 0.05"),
    "negative": (lambda x: 1 - x, "scaled", "a -1, b 1"),
    "inverted mask": (
        lambda x: np.where(MASK, network(x), 0),
        "inverted-mask",
        "missing ones kept",
    ),
    "only the holes": (lambda x: np.where(MASK, 0, x), "inverted-mask", "missing ones kept"),
    "input handed in": (holes(0), "not-filled", "100% of the holes"),
    "input scaled": (lambda x: 0.5 * Y, "scaled not-filled", "a 0.5"),
    "one image not filled": (put(6, Y[6]), "not-filled", "image 6"),
    "half of a hole": (put((slice(9), 0, slice(32)), Y[:9, 0, :32]), "not-filled", "0, 1"),
    "mask moved": (lambda x: np.where(np.roll(MASK, 1, 1), Y, x), "not-filled", "inside the head"),
    "hand-made mask": (lambda x: np.where(THIN, Y, x), "not-filled", "pixels are 0 in every image"),
    "holes of one value": (holes(0.3), "not-filled", "one value"),
    "holes of the mean": (holes(MEANS), "not-filled", "one value"),
}
