"""Are the holes of an array really filled: not empty, not constant, without seams?"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from nogaps.submission.findings import Findings, images, span

# Measured on the stand-in, 995 further heads and the course's file, under the course's mask: the
# truth and honest fillings have at most 3.6 % of zeros in the bright holes and a spread of 0.79 at
# least. Not filled, these are 100 % and 0.
ZEROS, REPEATED, SPREAD, PIECES = 0.05, 0.3, 0.1, 0.6
# The truth, with and without noise, fillings without a network and by networks, under eleven masks:
# as a mean over a set, border steps of at most 1.16, or those of interpolation along the rows, and
# a brightness of 0.92 to 1.05. Single images get a margin for chance, which shrinks with the root
# of the number of border pairs and is at least 1.5 times the widest deviation that was seen.
SEAM, PLAIN, LEVEL, LEVEL_OF_ONE = 1.35, 1.15, 0.1, 0.12
SMALL_STEP = 0.01  # of the full range: below it neighbours count as equal
BRIGHT = 0.2  # of the brightest surroundings: in darker places a filling may be clipped to 0
FEW_PIXELS, FEW_IMAGES, FEW_PAIRS = 100, 10, 40  # too few to tell


def check_holes(
    x: np.ndarray, mask: np.ndarray, comparable: np.ndarray, kept: np.ndarray, findings: Findings
) -> None:
    """Name holes that are empty, constant, or filled with seams.

    Args:
        x: (N,1,H,W), finite.
        mask: (H,W) bool, True = observed.
        comparable: (N,) bool, the images whose holes lie where the mask says.
        kept: (N,) bool, those whose observed pixels are right as well.
        findings: Takes the findings.
    """
    around = surroundings(x, mask)[:, 0]
    bright = around > BRIGHT * around.max((1, 2), keepdims=True)
    judged = comparable & ~_name_empty(x[:, 0], mask, bright, comparable, findings)
    judged &= (bright[:, ~mask].sum(1) >= FEW_PIXELS) & (x[:, 0][:, mask].std(1) > 0)
    judged &= ~_name_constant(x[:, 0], mask, bright, judged, findings)
    _name_seams(x, mask, bright, np.flatnonzero(judged & kept), findings)


def _name_empty(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, judged: np.ndarray, findings: Findings
) -> np.ndarray:
    """Name images with more zeros in bright holes than in bright observed pixels, (N,) bool."""

    def zeros(where: np.ndarray) -> np.ndarray:
        bright_zeros = ((x == 0) & bright)[:, where].sum(1)
        return bright_zeros / np.maximum(bright[:, where].sum(1), 1)

    hole = zeros(~mask)
    empty = judged & (hole - zeros(mask) > ZEROS) & (bright[:, ~mask].sum(1) >= FEW_PIXELS)
    never = ~mask & (x[judged] == 0).all(0) & (bright.mean(0) > 0.5)
    if empty.any():
        share = f"{hole[empty].mean():.0%} of the holes inside the head are 0"
        findings.add("not-filled", f"{share} in {images(empty)}")
    elif judged.sum() >= FEW_IMAGES and never.any():
        findings.add("not-filled", f"{int(never.sum())} missing pixels are 0 in every image")
    return empty


def _name_constant(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, judged: np.ndarray, findings: Findings
) -> np.ndarray:
    """Name images whose holes hold one value, or the values of all other images, (N,) bool."""
    holes, seen = x[:, ~mask], x[:, mask]
    constant = judged & (holes.std(1) < SPREAD * seen.std(1))
    for k in np.flatnonzero(judged & ~constant):
        _, counts = np.unique(holes[k][bright[k, ~mask]], return_counts=True)
        constant[k] = counts.max() > REPEATED * counts.sum() or _in_pieces(x[k], mask, bright[k])
    rest = judged & ~constant
    if rest.sum() >= 3 and _alike(holes[rest], seen[rest]):
        findings.add("constant-fill", "the same values in the holes of every image")
        return judged
    if constant.any():
        findings.add("constant-fill", f"one value in many holes of {images(constant)}")
    return constant


def _in_pieces(x: np.ndarray, mask: np.ndarray, bright: np.ndarray) -> bool:
    """Return whether most neighbours in the holes of one image (H,W) are equal.

    Observed values do not count: the nearest one, copied into a wide hole, is a filling.
    """
    inside, values, equal, total = (~mask & bright).ravel(), x.ravel(), 0, 0
    copied = np.isin(np.round(values, 5), np.round(x[mask], 5))
    for first, second in _neighbours(mask):
        pairs = inside[first] & inside[second]
        same = pairs & (values[first] == values[second])
        if same.sum() > PIECES * pairs.sum():
            same &= ~copied[first]
        equal, total = equal + int(same.sum()), total + int(pairs.sum())
    return equal > max(PIECES * total, FEW_PIXELS)


def _alike(holes: np.ndarray, seen: np.ndarray) -> bool:
    """Return whether all holes (K,P) hold one image, up to the brightness and contrast of each."""

    def spread(values: np.ndarray) -> float:
        return float(values.std(0).mean())

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)

    same = spread(holes) < SPREAD * spread(seen)
    return same or spread(standard(holes)) < 2 * SPREAD * spread(standard(seen))


def _name_seams(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, places: np.ndarray, findings: Findings
) -> None:
    """Name holes darker or brighter than what is beside them, and steps at their borders."""
    pairs = len(_border_pairs(mask)[0])
    if not len(places) or pairs < FEW_PAIRS:
        return
    level = border_level(x[places], mask, bright[places])
    off = _uneven(level - 1, pairs**-0.5)
    steps, stepped = _stepped(x[places], mask, pairs**-0.5)
    where = np.zeros(len(x), bool)
    if off.sum() >= max(1, stepped.sum()):
        where[places] = off
        problem = f"holes are {span(level[off])} times as bright as the observed pixels beside them"
        findings.add("seams", f"{problem} in {images(where)}")
    elif stepped.any():
        where[places] = stepped
        problem = f"steps at the borders of holes are {span(steps[stepped])} times the usual ones"
        findings.add("seams", f"{problem} in {images(where)}")


def _uneven(excess: np.ndarray, chance: float) -> np.ndarray:
    """Return which of K images have holes too dark or too bright, (K,) bool.

    excess: (K,) `border_level` - 1. chance: 1/sqrt(pairs); measured on fewer pairs it varies more.
    """
    alone = np.abs(excess) > LEVEL_OF_ONE + 3 * chance
    together = abs(excess.mean()) > LEVEL + 1.5 * chance + 0.05 / len(excess) ** 0.5
    return alone | (together & (excess * excess.mean() > 0))


def _stepped(x: np.ndarray, mask: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return `border_steps` of x (K,1,H,W), and where they are too large, (K,) bool."""
    steps = border_steps(x, mask)
    # across wide gaps plain interpolation along the rows has steps as well
    limit = np.maximum(SEAM, PLAIN * border_steps(_along_rows(x, mask), mask))
    alone = steps > limit + 8 * chance
    together = steps.mean() > limit.mean() + 8 * chance / len(x) ** 0.5
    return steps, alone | (together & (steps > limit))


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


def _along_rows(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return x (N,1,H,W) with holes interpolated along each row, except rows without a pixel."""
    filled, columns = x.copy(), np.arange(mask.shape[1])
    for row in np.flatnonzero(mask.any(1)):
        for image in filled[:, 0]:
            image[row] = np.interp(columns, columns[mask[row]], image[row, mask[row]])
    return filled


def surroundings(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of the observed pixels in a window of 5×5, 0 without any; shape of x."""
    return box_sum(x * mask, 2) / np.maximum(box_sum(mask.astype(np.float32), 2), 1)


def box_sum(x: np.ndarray, radius: int) -> np.ndarray:
    """Return the sum over a square window around each pixel of x (…,H,W), 0 outside."""
    for axis in (-2, -1):
        x = correlate1d(x, np.ones(2 * radius + 1), axis, mode="constant")
    return x
