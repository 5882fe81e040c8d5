"""Are the holes of an array really filled? Not left empty, not constant, without seams."""

from __future__ import annotations

import numpy as np

from nogaps.submission.findings import Findings, images, span

# Measured on the stand-in, 995 further heads and the course's file, under the course's mask: the
# truth and honest fillings have steps of at most 1.25 at the borders of holes (1.02 as a mean), at
# most 3.6 % of zeros in the bright holes, and a spread of 0.79 at least. Not filled, these are
# above 2, 100 % and 0.
SEAM, SEAM_OF_ALL, ZEROS, REPEATED, SPREAD = 2.2, 1.75, 0.05, 0.3, 0.1
BRIGHT = 0.2  # of the brightest surroundings: in darker places a filling may be clipped to 0
FEW_PIXELS, FEW_IMAGES = 100, 10  # too few to tell


def check_holes(
    x: np.ndarray, mask: np.ndarray, comparable: np.ndarray, kept: np.ndarray, findings: Findings
) -> None:
    """Name holes that are empty, constant, or filled with seams.

    x: (N,1,H,W) finite; mask: (H,W) bool, True = observed. comparable, kept: (N,) bool, images
    whose holes lie where the mask says, and those whose observed pixels are right as well.
    """
    around = surroundings(x, mask)[:, 0]
    bright = around > BRIGHT * around.max((1, 2), keepdims=True)
    judged = comparable & ~_name_empty(x[:, 0], mask, bright, comparable, findings)
    judged &= (bright[:, ~mask].sum(1) >= FEW_PIXELS) & (x[:, 0][:, mask].std(1) > 0)
    judged &= ~_name_constant(x[:, 0], mask, bright, judged, findings)
    _name_seams(x, mask, judged & kept, findings)


def _name_empty(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, judged: np.ndarray, findings: Findings
) -> np.ndarray:
    """Images with more zeros in bright holes than in bright observed pixels, (N,) bool."""
    zero = (x == 0) & bright
    hole, seen = (
        zero[:, where].sum(1) / np.maximum(bright[:, where].sum(1), 1) for where in (~mask, mask)
    )
    empty = judged & (hole - seen > ZEROS) & (bright[:, ~mask].sum(1) >= FEW_PIXELS)
    never = ~mask & (x[judged] == 0).all(0) & (bright.mean(0) > 0.5)
    if empty.any():
        where = images(np.flatnonzero(empty))
        found = f"{hole[empty].mean():.0%} of the holes inside the head are 0 in {where}"
    elif judged.sum() >= FEW_IMAGES and never.any():
        found = f"{int(never.sum())} missing pixels are 0 in every image"
    else:
        return empty
    mend = "fill all pixels that are 0 in every image of the test set"
    findings.add("not-filled", found, "filled holes", mend)
    return empty


def _name_constant(
    x: np.ndarray, mask: np.ndarray, bright: np.ndarray, judged: np.ndarray, findings: Findings
) -> np.ndarray:
    """Images whose holes hold one value, or what the holes of all images hold, (N,) bool."""
    holes, seen = x[:, ~mask], x[:, mask]
    constant = judged & (holes.std(1) < SPREAD * seen.std(1))
    for k in np.flatnonzero(judged & ~constant):
        _, counts = np.unique(holes[k][bright[k, ~mask]], return_counts=True)
        constant[k] = counts.max() > REPEATED * counts.sum()
    found = f"one value in many holes of {images(np.flatnonzero(constant))}"
    rest = judged & ~constant
    if rest.sum() >= 3 and spread(holes[rest]) < SPREAD * spread(seen[rest]):
        found, constant = "the same values in the holes of every image", judged
    if constant.any():
        mend = "fill each hole from the observed pixels around it"
        findings.add("constant-fill", found, "a filling that follows the image", mend)
    return constant


def _name_seams(x: np.ndarray, mask: np.ndarray, judged: np.ndarray, findings: Findings) -> None:
    steps = np.where(judged, border_steps(x, mask), 0)
    usual = judged.any() and steps[judged].mean() <= SEAM_OF_ALL
    seams = judged & (steps > (SEAM if usual else SEAM_OF_ALL))
    if seams.any():
        found = f"steps at the borders of holes are {span(steps[seams])} times the usual ones in "
        mend = "use the mask of the test set itself; fill in the intensities of the image at hand"
        found += images(np.flatnonzero(seams))
        findings.add("seams", found, "about 1, as between observed pixels", mend)


def border_steps(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean step between hole and observed pixel over that between observed pixels nearby, (N,).

    x: (N,1,H,W); mask: (H,W) bool. About 1 for the truth, below 1 for smooth fillings, 0 where
    the mask leaves nothing to compare.
    """
    near = box_sum((~mask).astype(np.float32), 3) > 0
    steps, usual = np.zeros(len(x)), np.zeros(len(x))
    for axis in (0, 1):
        step = np.abs(np.diff(x[:, 0], axis=axis + 1))
        last = mask.shape[axis] - 1
        first, second = (np.take(mask, range(k, last + k), axis) for k in (0, 1))
        inner = first & second & np.take(near, range(last), axis)
        border = first ^ second
        if min(inner.sum(), border.sum()) >= FEW_PIXELS:
            steps += step[:, border].sum(1)
            usual += border.sum() * step[:, inner].mean(1)
    return steps / np.maximum(usual, 1e-6)


def surroundings(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of the observed pixels in a window of 5×5, 0 where there are none; shape of x."""
    return box_sum(x * mask, 2) / np.maximum(box_sum(mask.astype(np.float32), 2), 1)


def box_sum(x: np.ndarray, radius: int) -> np.ndarray:
    """Sum over a square window around each pixel of x (…,H,W), 0 outside; shape of x."""
    size = 2 * radius + 1
    for axis in (x.ndim - 2, x.ndim - 1):
        pad = [(radius, radius) if k == axis else (0, 0) for k in range(x.ndim)]
        x = np.lib.stride_tricks.sliding_window_view(np.pad(x, pad), size, axis).sum(-1)
    return x


def spread(values: np.ndarray) -> float:
    """Mean over pixels of the deviation across images; values (N,P)."""
    return float(values.std(0).mean())
