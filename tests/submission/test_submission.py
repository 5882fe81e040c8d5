"""Every way to spoil the filled array is named for what it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from submissions import GOOD, MASK, TRUTH, Y, slugs

from nogaps.runtime.files import BadInput
from nogaps.submission import check_array


def changed(edit: Callable[[np.ndarray], object]) -> np.ndarray:
    x = GOOD.copy()
    edit(x)
    return x


def take(*places: int) -> np.ndarray:
    return GOOD[list(places)]


def put(place: tuple, value: float | np.ndarray) -> np.ndarray:
    return changed(lambda x: x.__setitem__(place, value))


def holes(values: np.ndarray | float) -> np.ndarray:
    return np.where(MASK, Y, np.clip(values, 0, 1)).astype(np.float32)


SWAPPED = list(range(100))
SWAPPED[7], SWAPPED[60] = 60, 7
NETWORK = np.clip(GOOD + np.random.default_rng(0).normal(0, 0.03, GOOD.shape), 0, 1).astype("f4")
MEANS = (Y.sum((1, 2, 3)) / MASK.sum())[:, None, None, None]
NEXT = np.roll(TRUTH, 1, 0)
SPREADS = np.sqrt(((Y - MEANS) ** 2 * MASK).sum((1, 2, 3)) / MASK.sum())[:, None, None, None]
MATCHED = MEANS + SPREADS * (TRUTH.mean(0) - TRUTH.mean()) / TRUTH.mean(0).std()
PIECES = GOOD.reshape(100, 1, 8, 8, 8, 8).mean((3, 5)).repeat(8, 2).repeat(8, 3)
BLURRED = gaussian_filter(Y, (0, 0, 4, 4)) / gaussian_filter(MASK.astype(float), (4, 4))
THIN = MASK | (np.arange(64) == 25)  # a mask made by hand: one column of it taken as observed

ARRAYS: dict[str, tuple[object, list[str], str]] = {
    "range [-1,1]": (2 * GOOD - 1, ["range"], "written in [-1, 1]"),
    "range [0,255]": (255 * GOOD, ["range"], "written in [0, 255]"),
    "range overshoot": (put((3, 0, 8, np.argmin(MASK[8])), 1.2), ["range"], "1.2]"),
    "standardised": (
        (GOOD - 0.4) / 0.25,
        ["range", "scaled"],
        "a 4, b -1.6",
    ),
    "float64": (GOOD.astype(np.float64), ["dtype"], "float64"),
    "float16": (GOOD.astype(np.float16), ["dtype"], "float16"),
    "big-endian": (GOOD.astype(">f4"), ["dtype"], ">f4"),
    "uint8": ((255 * GOOD).astype(np.uint8), ["dtype"], "uint8"),
    "strings": (GOOD[:2].astype(str), ["dtype", "dropped"], "<U32"),
    "squeezed": (GOOD[:, 0], ["shape"], "(100, 64, 64)"),
    "flattened": (GOOD.reshape(100, -1), ["shape"], "(100, 4096)"),
    "channels last": (GOOD.transpose(0, 2, 3, 1), ["shape"], "(100, 64, 64, 1)"),
    "batch last": (GOOD[:, 0].transpose(1, 2, 0), ["shape"], "axes exchanged"),
    "three channels": (GOOD.repeat(3, 1), ["shape"], "(100, 3, 64, 64)"),
    "scalar": (np.zeros((), np.float32), ["shape"], "shape ()"),
    "no images": (GOOD[:0], ["shape"], "(0, 1, 64, 64)"),
    "one image too many": (take(*range(100), 0), ["shape"], "(101,"),
    "archive": ({"x_hat": GOOD}, ["unreadable"], "a dict"),
    "dropped": (np.delete(GOOD, 17, 0), ["dropped"], "no filling of input 17"),
    "dropped and not copied": (
        np.delete(NETWORK, 17, 0),
        ["dropped", "observed-changed"],
        "no filling of input 17",
    ),
    "last batch dropped": (GOOD[:96], ["dropped"], "no filling of inputs 96, 97, 98, 99"),
    "shuffled": (
        GOOD[np.random.default_rng(1).permutation(100)],
        ["shuffled"],
        "image 0 holds input",
    ),
    "shuffled and lossy": (NETWORK[::-1], ["shuffled"], "holds input"),
    "shuffled and scaled": (0.5 * GOOD[::-1], ["shuffled"], "image 0 holds input 99"),
    "shuffled in [-1,1]": (2 * GOOD[::-1] - 1, ["range", "shuffled"], "[-1, 1]"),
    "swapped pair": (GOOD[SWAPPED], ["shuffled"], "image 7 holds input 60; image 60"),
    "off by one": (np.roll(GOOD, -1, 0), ["shuffled"], "off by 1"),
    "off by one, last twice": (take(*range(1, 100), 99), ["shuffled"], "off by 1"),
    "duplicated": (
        put((5,), GOOD[4]),
        ["duplicated"],
        "image 5 holds input 4; no filling of input 5",
    ),
    "transposed": (GOOD.swapaxes(2, 3), ["orientation"], "transposed (rows"),
    "flipped": (GOOD[..., ::-1], ["orientation"], "flipped left to right"),
    "upside down": (GOOD[..., ::-1, :], ["orientation"], "flipped upside down"),
    "rotated": (np.rot90(GOOD, 1, (2, 3)), ["orientation"], "90° to the left"),
    "rotated back": (np.rot90(GOOD, -1, (2, 3)), ["orientation"], "90° to the right"),
    "rotated by 180": (np.rot90(GOOD, 2, (2, 3)), ["orientation"], "180°"),
    "one flipped": (put((9,), GOOD[9, :, :, ::-1]), ["orientation"], "image 9: flipped left"),
    "moved": (np.roll(GOOD, 1, 3), ["orientation"], "one column to the right"),
    "NaN": (put((2, 0, 30, 30), np.nan), ["finite"], "1 NaN and 0 infinite values in image 2"),
    "infinite": (put((2, 0), np.inf), ["finite"], "4096 infinite"),
    "NaN in the holes": (np.where(MASK, GOOD, np.nan).astype("f4"), ["finite"], "207300 NaN"),
    "one pixel changed": (put((4, 0, 0, 0), 0.5), ["observed-changed"], "1 observed pixels differ"),
    "rounded": (np.round(GOOD, 3), ["observed-changed"], "by up to 0.0005"),
    "all zero": (np.zeros_like(Y), ["observed-changed"], "by up to 1,"),
    "huge": (put((1, 0, 0, 0), 3e38), ["range", "observed-changed"], "[0, 3e+38]"),
    "not copied": (NETWORK, ["observed-changed"], "and 95 more"),
    "scaled": (0.8 * GOOD + 0.05, ["scaled"], "a 0.8, b 0.05"),
    "negative": (1 - GOOD, ["scaled"], "a -1, b 1"),
    "one image scaled": (put((8,), 0.7 * GOOD[8]), ["scaled"], "image 8: the observed"),
    "inverted mask": (np.where(MASK, NETWORK, 0), ["inverted-mask"], "missing ones kept"),
    "inverted, nothing seen": (np.where(MASK, 0.3, Y).astype("f4"), ["inverted-mask"], "95 more"),
    "only the holes": (np.where(MASK, 0, GOOD), ["inverted-mask"], "missing ones kept"),
    "input handed in": (Y, ["not-filled"], "100% of the holes"),
    "input scaled": (0.5 * Y, ["scaled", "not-filled"], "a 0.5"),
    "input in [-1,1]": (2 * Y - 1, ["range", "not-filled"], "[-1, 1]"),
    "one image not filled": (put((6,), Y[6]), ["not-filled"], "image 6"),
    "half of a hole": (put((slice(0, 9), 0, slice(0, 32)), Y[:9, 0, :32]), ["not-filled"], "0, 1"),
    "hand-made mask": (np.where(THIN, Y, GOOD), ["not-filled"], "pixels are 0 in every image"),
    "holes of one value": (holes(0.3), ["constant-fill"], "one value"),
    "holes of the mean": (holes(MEANS), ["constant-fill"], "one value"),
    "holes of a mean head": (holes(GOOD.mean(0)), ["constant-fill"], "in the holes of every"),
    "one constant": (put((6,), holes(MEANS)[6]), ["constant-fill"], "of image 6"),
    "holes of a mean head, matched": (holes(MATCHED), ["constant-fill"], "of every image"),
    "pieces of one value": (holes(PIECES), ["constant-fill"], "one value in many holes"),
    "holes of the next": (holes(np.roll(TRUTH, 1, 0)), ["seams"], "times the usual"),
    "holes of the next, in two images": (
        np.where(np.isin(np.arange(100), (7, 60))[:, None, None, None], holes(NEXT), GOOD),
        ["seams"],
        "in images 7, 60",
    ),
    "holes too dark": (holes(0.4 * TRUTH), ["seams"], "times as bright"),
    "holes a little too dark": (holes(0.85 * TRUTH), ["seams"], "times as bright"),
    "holes a little too bright": (holes(1.2 * TRUTH), ["seams"], "times as bright"),
    "one image too dark": (put((6,), holes(0.75 * GOOD)[6]), ["seams"], "in image 6"),
    "compressed intensity": (holes(0.022 + 0.76 * TRUTH), ["seams"], "times as bright"),
    "holes blurred": (holes(BLURRED), ["seams"], "times the usual"),
    "holes moved two columns": (holes(np.roll(TRUTH, 2, 3)), ["seams"], "times the usual"),
    "holes flipped": (holes(TRUTH[..., ::-1]), ["seams"], "times the usual"),
    "holes of noise": (holes(np.random.default_rng(0).random(Y.shape)), ["seams"], "times the"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_spoilt_array_is_named(name: str) -> None:
    x_hat, expected, words = ARRAYS[name]
    before = np.array(x_hat, copy=True) if isinstance(x_hat, np.ndarray) else None
    findings = check_array(Y, x_hat)
    assert slugs(findings) == expected, "\n".join(map(str, findings))
    assert any(words in finding.found for finding in findings), findings
    if before is not None and before.dtype.kind == "f":
        assert np.array_equal(before, x_hat, equal_nan=True), "the input was changed"


@pytest.mark.parametrize("y", [Y[:, 0], TRUTH, np.zeros_like(Y), Y[:0]])
def test_bad_test_set_is_bad_input(y: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"test set: .*expected"):
        check_array(y, GOOD)
