"""Are the holes of an array really filled: not empty, not constant, without seams?"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d, distance_transform_edt

from nogaps.submission.findings import Findings, numbered

# Measured on the stand-in, 995 further heads and the course's file, under the course's mask: the
# truth and honest fillings have at most 3.6 % of zeros in the bright holes. Not filled: 100 %.
ZEROS, REPEATED = 0.05, 0.3
# The truth, with and without noise, fillings without a network and by networks, under eleven masks:
# as a mean over a set, border steps of at most 1.16, except beside wide gaps, and a brightness of
# 0.92 to 1.05. Small sets get a margin for chance, which shrinks with the root of the number of
# border pairs and is at least 1.5 times the widest deviation that was seen.
SEAM, WIDE, LEVEL = 1.35, 3, 0.1
SMALL_STEP = 0.01  # of the full range: below it neighbours count as equal
BRIGHT = 0.2  # of the brightest surroundings: in darker places a filling may be clipped to 0
FEW_PIXELS, FEW_IMAGES, FEW_PAIRS = 100, 10, 40  # too few to tell


def check_holes(
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray,
    comparable: np.ndarray,
    kept: np.ndarray,
    findings: Findings,
) -> None:
    """Name holes that are empty, constant, or filled with seams.

    Args:
        x: (N,1,H,W), finite.
        y: The input of each, of the same shape.
        mask: (H,W) bool, True = observed.
        comparable: (N,) bool, the images whose holes lie where the mask says.
        kept: (N,) bool, those whose observed pixels are right as well.
        findings: Takes the findings.
    """
    around = surroundings(y, mask)[:, 0]
    bright = around > BRIGHT * around.max((1, 2), keepdims=True)
    enough = bright[:, ~mask].sum(1) >= FEW_PIXELS
    empty = _name_empty(x[:, 0], mask, bright, comparable & enough, findings)
    judged = comparable & enough & ~empty
    constant = judged & _is_constant(x[:, 0], mask, bright)
    if constant.any():
        problem = f"one value in many holes of {numbered('image', np.flatnonzero(constant))}"
        findings.add("not-filled", problem)
    judged &= kept & ~constant
    _name_seams(x[judged], mask, bright[judged], findings)


def _name_empty(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, judged: np.ndarray, findings: Findings
) -> np.ndarray:
    """Name images with more zeros in bright holes than in bright observed pixels, (N,) bool."""

    def zeros(where: np.ndarray) -> np.ndarray:
        bright_zeros = ((x == 0) & bright)[:, where].sum(1)
        return bright_zeros / np.maximum(bright[:, where].sum(1), 1)

    hole = zeros(~mask)
    empty = judged & ((hole - zeros(mask) > ZEROS) | (hole == 1))
    never = ~mask & (x[judged] == 0).all(0) & (bright.mean(0) > 0.5)
    if empty.any():
        share = f"{hole[empty].mean():.0%} of the holes inside the head are 0"
        findings.add("not-filled", f"{share} in {numbered('image', np.flatnonzero(empty))}")
    elif judged.sum() >= FEW_IMAGES and never.any():
        findings.add("not-filled", f"{int(never.sum())} missing pixels are 0 in every image")
    return empty


def _is_constant(x: np.ndarray, mask: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Return whether many bright holes of each image (N,H,W) hold one value, (N,) bool."""

    def share(values: np.ndarray) -> float:
        return np.unique(values, return_counts=True)[1].max(initial=0) / max(values.size, 1)

    holes = zip(x, bright & ~mask, strict=True)
    return np.array([share(image[hole]) > REPEATED for image, hole in holes], bool)


def _name_seams(x: np.ndarray, mask: np.ndarray, bright: np.ndarray, findings: Findings) -> None:
    """Name holes that are as a whole darker or brighter than what is beside them, or have steps."""
    pairs = len(_border_pairs(mask)[0])
    if not len(x) or pairs < FEW_PAIRS:
        return
    chance, alone = pairs**-0.5, len(x) ** -0.5
    level, steps = border_level(x, mask, bright).mean(), border_steps(x, mask).mean()
    narrow = distance_transform_edt(~mask).max() <= WIDE
    if abs(level - 1) > LEVEL + 1.5 * chance + 0.05 * alone:
        what = f"holes are {level:.3g} times as bright as the observed pixels beside them"
        findings.add("seams", what)
    elif narrow and steps > SEAM + 8 * chance * alone:
        findings.add("seams", f"steps at the borders of holes are {steps:.3g} times the usual ones")


def _neighbours(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each axis of an image (H,W) the flat places of all pairs of neighbours."""
    place = np.arange(mask.size).reshape(mask.shape)
    pairs = [(place[:-1], place[1:]), (place[:, :-1], place[:, 1:])]
    return [(first.ravel(), second.ravel()) for first, second in pairs]


def _border_pairs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat places of neighbours, one missing and one observed, in that order."""
    first, second = map(np.concatenate, zip(*_neighbours(mask), strict=True))
    seen, flat = np.concatenate([first, second]), np.concatenate([second, first])
    border = mask.ravel()[seen] & ~mask.ravel()[flat]
    return flat[border], seen[border]


def border_level(x: np.ndarray, mask: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Return the brightness of hole pixels at borders over that of their observed neighbours.

    Args:
        x: (N,1,H,W) in [0,1].
        mask: (H,W) bool, True = observed.
        bright: (N,H,W) bool, the hole pixels that count: in dark places noise that is clipped at 0
            brightens the mean.

    Returns:
        (N,), 1 where nothing counts.
    """
    hole, seen = _border_pairs(mask)
    values, counts = x.reshape(len(x), -1), bright.reshape(len(x), -1)[:, hole]
    inside, beside = ((values[:, place] * counts).sum(1) for place in (hole, seen))
    return np.where(beside > 0, inside / np.maximum(beside, 1e-6), 1.0)


def border_steps(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean step at the borders of holes over that between observed pixels nearby.

    Args:
        x: (N,1,H,W).
        mask: (H,W) bool, True = observed.

    Returns:
        (N,), about 1 for the truth, below 1 for smooth fillings, 0 where the mask leaves nothing
        to compare.
    """
    near, seen = box_sum((~mask).astype(np.float32), 3).ravel() > 0, mask.ravel()
    steps, usual, values = np.zeros(len(x)), np.zeros(len(x)), x.reshape(len(x), -1)
    for first, second in _neighbours(mask):
        step = np.abs(values[:, second] - values[:, first])
        inner, border = seen[first] & seen[second] & near[first], seen[first] != seen[second]
        if min(inner.sum(), border.sum()) >= FEW_PIXELS:
            steps += step[:, border].sum(1)
            usual += border.sum() * np.maximum(step[:, inner].mean(1), SMALL_STEP)
    return steps / np.maximum(usual, 1e-6)


def surroundings(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of the observed pixels in a window of 5×5, 0 without any; shape of x."""
    return box_sum(x * mask, 2) / np.maximum(box_sum(mask.astype(np.float32), 2), 1)


def box_sum(x: np.ndarray, radius: int) -> np.ndarray:
    """Return the sum over a square window around each pixel of x (…,H,W), 0 outside."""
    for axis in (-2, -1):
        x = correlate1d(x, np.ones(2 * radius + 1), axis, mode="constant")
    return x
