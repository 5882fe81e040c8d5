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

    hole, seen = zeros(~mask), zeros(mask)
    empty = judged & (hole - seen > ZEROS) & (bright[:, ~mask].sum(1) >= FEW_PIXELS)
    never = ~mask & (x[judged] == 0).all(0) & (bright.mean(0) > 0.5)
    if empty.any():
        where = images(np.flatnonzero(empty))
        problem = f"{hole[empty].mean():.0%} of the holes inside the head are 0 in {where}"
    elif judged.sum() >= FEW_IMAGES and never.any():
        problem = f"{int(never.sum())} missing pixels are 0 in every image"
    else:
        return empty
    fix = "fill all pixels that are 0 in every image of the test set"
    findings.add("not-filled", problem, "filled holes", fix)
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
    problem = f"one value in many holes of {images(np.flatnonzero(constant))}"
    rest = judged & ~constant
    if rest.sum() >= 3 and _alike(holes[rest], seen[rest]):
        problem, constant = "the same values in the holes of every image", judged
    if constant.any():
        fix = "fill each hole from the observed pixels around it"
        findings.add("constant-fill", problem, "a filling that follows the image", fix)
    return constant


def _in_pieces(x: np.ndarray, mask: np.ndarray, bright: np.ndarray) -> bool:
    """Return whether most neighbours in the holes of one image (H,W) are equal.

    Observed values do not count: the nearest one, copied into a wide hole, is a filling.
    """
    equal = total = 0
    seen: np.ndarray | None = None
    for turn in (np.asarray, np.transpose):
        values, inside = turn(x), turn(~mask & bright)
        pairs = inside[1:] & inside[:-1]
        same = pairs & (values[1:] == values[:-1])
        if same.sum() > PIECES * pairs.sum():
            seen = np.round(x[mask], 5) if seen is None else seen
            same[same] = ~np.isin(np.round(values[1:][same], 5), seen)
        equal, total = equal + int(same.sum()), total + int(pairs.sum())
    return equal > max(PIECES * total, FEW_PIXELS)


def _alike(holes: np.ndarray, seen: np.ndarray) -> bool:
    """Return whether all holes (K,P) hold one image, up to the brightness and contrast of each."""

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)

    same = spread(holes) < SPREAD * spread(seen)
    return same or spread(standard(holes)) < 2 * SPREAD * spread(standard(seen))


def _name_seams(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, places: np.ndarray, findings: Findings
) -> None:
    """Name holes darker or brighter than what is beside them, and steps at their borders."""
    pairs = border_pairs(mask)
    if not len(places) or pairs < FEW_PAIRS:
        return
    level = border_level(x[places], mask, bright[places])
    off = _uneven(level - 1, pairs**-0.5)
    steps, stepped = _stepped(x[places], mask, pairs**-0.5)
    if off.sum() >= max(1, stepped.sum()):
        problem = f"holes are {span(level[off])} times as bright as the observed pixels beside them"
        where = off
    elif stepped.any():
        problem = f"steps at the borders of holes are {span(steps[stepped])} times the usual ones"
        where = stepped
    else:
        return
    fix = "use the mask of the test set itself; fill in the intensities of the image at hand"
    problem += f" in {images(places[where])}"
    findings.add("seams", problem, "about 1, as between observed pixels", fix)


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
    limit = np.maximum(SEAM, PLAIN * border_steps(along_rows(x, mask), mask))
    alone = steps > limit + 8 * chance
    together = steps.mean() > limit.mean() + 8 * chance / len(x) ** 0.5
    return steps, alone | (together & (steps > limit))


def _borders(mask: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return for each axis where a step along it enters and leaves a hole; bool, one shorter."""
    borders = []
    for axis in (0, 1):
        first, second = _neighbours(mask, axis)
        borders.append((axis, first & ~second, second & ~first))
    return borders


def _neighbours(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the second of all pairs of neighbours along an axis."""
    last = values.shape[axis] - 1
    return np.take(values, range(last), axis), np.take(values, range(1, last + 1), axis)


def border_pairs(mask: np.ndarray) -> int:
    """Count the pairs of neighbours, one missing and one observed, in a mask (H,W) bool."""
    return sum(int((enter | leave).sum()) for _, enter, leave in _borders(mask))


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
    inside, beside = np.zeros(len(x)), np.zeros(len(x))
    for axis, enter, leave in _borders(mask):
        first, second = _neighbours(x[:, 0], axis + 1)
        before, after = _neighbours(bright, axis + 1)
        for hole, seen, counts in ((second, first, after & enter), (first, second, before & leave)):
            inside += (hole * counts).sum((1, 2))
            beside += (seen * counts).sum((1, 2))
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
    near = box_sum((~mask).astype(np.float32), 3) > 0
    steps, usual = np.zeros(len(x)), np.zeros(len(x))
    for axis, enter, leave in _borders(mask):
        step = np.abs(np.diff(x[:, 0], axis=axis + 1))
        first, second = _neighbours(mask, axis)
        inner, border = first & second & _neighbours(near, axis)[0], enter | leave
        if min(inner.sum(), border.sum()) >= FEW_PIXELS:
            steps += step[:, border].sum(1)
            usual += border.sum() * np.maximum(step[:, inner].mean(1), SMALL_STEP)
    return steps / np.maximum(usual, 1e-6)


def along_rows(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return x (N,1,H,W) with holes interpolated along each row, except rows without a pixel."""
    filled, columns = x.copy(), np.arange(mask.shape[1])
    for row in np.flatnonzero(mask.any(1)):
        seen = np.flatnonzero(mask[row])
        place = np.searchsorted(seen, columns, "right")
        left, right = seen[np.maximum(place - 1, 0)], seen[np.minimum(place, len(seen) - 1)]
        share = ((columns - left) / np.maximum(right - left, 1)).clip(0, 1).astype(x.dtype)
        filled[:, 0, row] = (1 - share) * x[:, 0, row, left] + share * x[:, 0, row, right]
    return filled


def surroundings(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of the observed pixels in a window of 5×5, 0 without any; shape of x."""
    return box_sum(x * mask, 2) / np.maximum(box_sum(mask.astype(np.float32), 2), 1)


def box_sum(x: np.ndarray, radius: int) -> np.ndarray:
    """Return the sum over a square window around each pixel of x (…,H,W), 0 outside."""
    for axis in (-2, -1):
        x = correlate1d(x, np.ones(2 * radius + 1), axis, mode="constant")
    return x


def spread(values: np.ndarray) -> float:
    """Return the mean over pixels of the deviation across images; values (N,P)."""
    return float(values.std(0).mean())
