"""What `test_set_nogaps.npy` must hold: each fault is named for what it is, and only once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter

from nogaps.masks import shared_mask
from nogaps.submission.findings import NOTES, Finding, Findings, numbered, span

RESULT = "test_set_nogaps.npy"
SCALES = {"[0, 1]": (1, 0), "[-1, 1]": (2, -1), "[0, 255]": (255, 0), "[0, 65535]": (65535, 0)}
SAME_SCALE = 0.1  # mean difference of quantiles up to which images are written in a scale
CLIPPED = 0.02  # mean change up to which clipping to [0, 1] spoils nothing
EXTREME = 1e6  # beyond it sums of values could overflow
EXACT = 1 - 1e-5  # a correlation above which one image is an affine map of another
LIKE = 0.5  # a correlation below which an image resembles nothing
TIE = 1e-9  # a difference of correlations that is rounding
SCALED = 0.05  # from here on a factor - 1, or an offset, is no rounding
# Measured on the stand-in, 995 further heads and the course's file, under the course's mask: the
# truth and honest fillings have at most 3.6 % of zeros in the bright holes. Not filled: 100 %.
ZEROS, REPEATED = 0.05, 0.3
BRIGHT = 0.2  # of the brightest surroundings: in darker places a filling may be clipped to 0
FEW_PIXELS, FEW_IMAGES = 100, 10  # too few to tell

# how an image may have been moved, and what moves it back
MOVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda x: x,
    "flipped left to right": lambda x: x[..., ::-1],
    "flipped upside down": lambda x: x[..., ::-1, :],
    "rotated by 180°": lambda x: x[..., ::-1, ::-1],
    "transposed (rows for columns)": lambda x: x.swapaxes(-1, -2),
    "transposed along the other diagonal": lambda x: x[..., ::-1, ::-1].swapaxes(-1, -2),
    "rotated by 90° to the left": lambda x: np.rot90(x, -1, (-2, -1)),
    "rotated by 90° to the right": lambda x: np.rot90(x, 1, (-2, -1)),
    "moved one column to the right": lambda x: np.roll(x, -1, -1),
    "moved one column to the left": lambda x: np.roll(x, 1, -1),
    "moved one row down": lambda x: np.roll(x, -1, -2),
    "moved one row up": lambda x: np.roll(x, 1, -2),
}


def check_array(y: np.ndarray, x_hat: np.ndarray) -> list[Finding]:
    """Check filled images: type, shape, values, order, observed pixels, holes.

    A fault with an obvious fix is fixed before the next test, so that it is named only once.

    Args:
        y: The test set, (N,1,H,W) float32 in [0,1], missing pixels 0 in every image.
        x_hat: Whatever was loaded from RESULT; valid if it is (N,1,H,W), in the intensities and the
            order of `y`, with filled holes.

    Returns:
        The errors and notes; [] for float32 in [0,1] with y's observed pixels and filled holes.

    Raises:
        BadInput: `y` is not such a set.
    """
    mask = shared_mask(y)
    findings = Findings(RESULT)
    x = _as_images(y, x_hat, findings)
    if x is None:
        return findings
    bad = ~np.isfinite(x)
    if bad.any():
        nan, where = int(np.isnan(x).sum()), numbered("image", np.flatnonzero(bad.any((1, 2, 3))))
        findings.add("finite", f"{nan} NaN and {int(bad.sum()) - nan} infinite values in {where}")
    x, rescaled = _in_range(y, x, mask, findings)
    x, own = np.where(bad, 0, x).clip(-EXTREME, EXTREME), y[: len(x)]
    x = np.where(bad, np.where(mask, own, _surroundings(own, mask)), x)
    rounding = 0.004 if rescaled else 1e-3 if x_hat.dtype.itemsize < 4 else 0.0
    unlike = (np.abs(x - own) > rounding)[:, 0][:, mask]
    comparable, place = _check_observed(y, x, mask, unlike, findings)
    _check_holes(x, y[place], mask, comparable, findings)
    return findings


def _as_images(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """Return x_hat as float32 (K,1,H,W), 0 < K <= N; None where nothing can be compared."""
    if not isinstance(x_hat, np.ndarray) or x_hat.dtype.kind not in "fiu":
        kind = str(x_hat.dtype if isinstance(x_hat, np.ndarray) else type(x_hat))
        findings.add("unreadable", kind, "one array of numbers", f"np.save({RESULT!r}, x_hat)")
        return None
    if x_hat.dtype != np.float32 or not x_hat.dtype.isnative:
        findings.add("dtype", str(x_hat.dtype))
    size, sizes = y.shape[2:], tuple(n for n in x_hat.shape if n != 1)
    if x_hat.shape[1:] != y.shape[1:]:
        lost = sizes[-2:] == size and len(sizes) < 4
        fix = "save x_hat.reshape(-1, 1, {}, {})".format(*size) if lost else ""
        findings.add("axes" if lost else "shape", f"shape {x_hat.shape}", f"{y.shape}", fix)
        if not lost:
            return None
    x = x_hat.reshape(-1, 1, *size)
    if len(x) != len(y):
        findings.add("number", f"{len(x)} images, the test set has {len(y)}")
    with np.errstate(over="ignore"):
        return x.astype(np.float32) if 0 < len(x) <= len(y) else None


def _in_range(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings
) -> tuple[np.ndarray, bool]:
    """Name values outside [0,1]; return x brought back from a known scale, and whether it was.

    The scale is that in which the quantiles of the observed pixels are those of the test set: a few
    extreme values, and the order of the images, do not matter.
    """
    values, observed = x[np.isfinite(x)], x[:, 0][:, mask]
    observed = observed[np.isfinite(observed)]
    if not len(observed) or (values.min() >= 0 and values.max() <= 1):
        return x, False
    probes = np.linspace(0.05, 0.95, 19)
    known, seen = (np.quantile(v.astype(float), probes) for v in (y[:, 0][:, mask], observed))
    misfits = {name: np.abs((seen - b) / a - known).mean() for name, (a, b) in SCALES.items()}
    name = min(misfits, key=misfits.__getitem__)
    a, b = SCALES[name]
    problem = f"values in [{values.min():.3g}, {values.max():.3g}]"
    if misfits[name] > SAME_SCALE:
        findings.add("range", problem)
        return x, False
    if name != "[0, 1]":
        fix = f"save {'(x_hat + 1)' if b else 'x_hat'} / {a}"
        findings.add("range", f"{problem}: the images are written in {name}", fix=fix)
        return (x - np.float32(b)) / np.float32(a), True
    change = np.abs(values - values.clip(0, 1))
    wild = change.max() > 1 or change.mean() > CLIPPED
    findings.add("range" if wild else "overshoot", problem, fix=NOTES["overshoot"][1])
    return x.clip(0, 1), False


def _unit(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the observed pixels (K,P) without their mean, of length 1."""
    values = values[:, 0][:, mask].astype(np.float64)
    values -= values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _matched(
    y: np.ndarray, x: np.ndarray, own: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find which input each output x (K,1,H,W) holds, and how it was moved.

    Observed pixels are compared by their correlation, which does not see an affine change of
    intensities. Neighbours of one subject resemble each other: another input than y[own], or a
    move, must explain twice as much. Returns the input, the key of MOVES, their correlation, and
    that with y[own], each (K,).
    """
    moved = {name: undo(x) for name, undo in MOVES.items()}
    fitting = [name for name, values in moved.items() if values.shape == x.shape]
    r = np.stack([_unit(moved[name], mask) @ _unit(y, mask).T for name in fitting], 1)
    left = np.maximum(1 - r, TIE)  # (K,M,N); of equals the first move, at home, is the least
    left[:, 1:] *= 2
    rows = np.arange(len(x))
    left[rows, :, own] /= 2
    move, place = np.divmod(left.reshape(len(x), -1).argmin(1), len(y))
    return place, np.array(fitting)[move], r[rows, move, place], r[rows, 0, own]


def _check_observed(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, unlike: np.ndarray, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Name why observed pixels of outputs x (K,1,H,W) differ from those of inputs y (N,1,H,W).

    `unlike` (K,P) bool says which do. Returns (K,) bool, the images whose holes can be judged all
    the same, and (K,) int, the inputs that they belong to.
    """
    own, comparable, place = np.flatnonzero(unlike.any(1)), np.ones(len(x), bool), np.arange(len(x))
    if not len(own):
        return comparable, place
    input_of, move, best, unmoved = _matched(y, x[own], own, mask)
    seen, true = x[own][:, 0][:, mask].astype(np.float64), y[own][:, 0][:, mask]
    affine, share = np.abs(unmoved) > EXACT, unlike[own].mean(1)
    empty = ((x[own][:, 0][:, ~mask] == 0).mean(1) > 0.95) != ((seen == 0).mean(1) > 0.95)
    inverted = empty & ~affine & (best < EXACT) & (share > 0.5)
    certain = ~affine & ~inverted & (best > LIKE) & (share > 0.2)  # no few wild pixels
    elsewhere, moved = certain & (input_of != own), certain & (move != "")
    a = np.sign(unmoved) * seen.std(1) / np.maximum(true.std(1), 1e-12)
    b = seen.mean(1) - a * true.mean(1)
    scaled = affine & ((np.abs(a - 1) > SCALED) | (np.abs(b) > SCALED))

    def listed(which: np.ndarray) -> str:
        return numbered("image", own[which])

    if inverted.any():
        problem = f"{listed(inverted)}: observed pixels replaced, missing ones kept"
        findings.add("inverted-mask", problem)
    for name in dict.fromkeys(move[moved]):
        findings.add("orientation", f"{listed(moved & (move == name))}: {name}")
    place[own[elsewhere]] = input_of[elsewhere]
    if elsewhere.any():
        findings.add("order", _exchanged(place, len(y)))
    if scaled.any():
        factors = f"a {span(a[scaled])}, b {span(b[scaled])}"
        findings.add("scaled", f"{listed(scaled)}: the observed pixels are a*y + b, {factors}")
    rest = ~(inverted | scaled | moved | elsewhere)
    if rest.sum() > elsewhere.sum():  # else single images are in place by chance
        most = np.abs(seen - true)[rest].max()
        count = f"{int(unlike[own[rest]].sum())} observed pixels differ"
        findings.add("observed-changed", f"{count}, by up to {most:.2g}, in {listed(rest)}")
    comparable[own[inverted | moved]] = False
    return comparable, place


def _exchanged(place: np.ndarray, count: int) -> str:
    """Say which outputs k hold another of `count` inputs, place[k], and which inputs none holds."""
    pairs = [f"image {k} holds input {n}" for k, n in enumerate(place) if k != n]
    more = f"; {len(pairs) - 4} more" if len(pairs) > 4 else ""
    lost = np.setdiff1d(np.arange(count), place)
    more += f"; no filling of {numbered('input', lost)}" if len(lost) else ""
    return "; ".join(pairs[:4]) + more


def _check_holes(
    x: np.ndarray, y: np.ndarray, mask: np.ndarray, comparable: np.ndarray, findings: Findings
) -> None:
    """Name holes of x (K,1,H,W) that are empty or constant; y holds the input of each.

    Only images that are `comparable` (K,) have their holes where the mask says.
    """
    around = _surroundings(y, mask)[:, 0]
    bright = around > BRIGHT * around.max((1, 2), keepdims=True)
    judged = comparable & (bright[:, ~mask].sum(1) >= FEW_PIXELS)
    judged &= ~_name_empty(x[:, 0], mask, bright, judged, findings)
    holes = bright & ~mask
    values = [image[hole] for image, hole in zip(x[:, 0], holes, strict=True)]
    most = [np.unique(value, return_counts=True)[1].max(initial=0) for value in values]
    constant = judged & (most > REPEATED * holes.sum((1, 2)))
    if constant.any():
        problem = f"one value in many holes of {numbered('image', np.flatnonzero(constant))}"
        findings.add("not-filled", problem)


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


def _surroundings(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean of the observed pixels in a window of 5×5, 0 without any; shape of x."""
    seen, known = (
        uniform_filter(values, (1, 1, 5, 5), mode="constant")
        for values in (x * mask, mask[None, None].astype(np.float32))
    )
    return seen / np.maximum(known, 1 / 25)
