"""What `test_set_nogaps.npy` must hold: each fault is named for what it is, and only once."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from nogaps.masks import shared_mask
from nogaps.submission.findings import COPY, Finding, Findings, images, numbered, printable
from nogaps.submission.holes import check_holes, surroundings
from nogaps.submission.observed import check_observed, places

RESULT = "test_set_nogaps.npy"
RANGES = {"[-1, 1]": (2, -1), "[0, 255]": (255, 0), "[0, 65535]": (65535, 0)}  # a*x + b
EXTREME = 1e6  # beyond it sums of values could overflow


def check_array(y: np.ndarray, x_hat: np.ndarray, file: str = RESULT) -> list[Finding]:
    """Check filled images: type, shape, values, order, observed pixels, holes.

    A fault with an obvious fix is fixed before the next test, so that it is named only once.

    Args:
        y: The test set, (N,1,H,W) float32 in [0,1], missing pixels 0 in every image.
        x_hat: Whatever was loaded from `file`; valid if it is (N,1,H,W) float32 in [0,1] with
            y's observed pixels and filled holes.
        file: Its name in the findings.

    Returns:
        The findings, [] for a valid array.

    Raises:
        BadInput: `y` is not such a set.
    """
    mask = shared_mask(y)
    findings = Findings(file)
    x = _as_images(y, x_hat, findings)
    if x is None:
        return findings
    if len(x) < len(y):
        place = places(y, np.nan_to_num(x, posinf=0, neginf=0).clip(-EXTREME, EXTREME), mask)
        lost = numbered("input", np.setdiff1d(np.arange(len(y)), place))
        findings.add("dropped", f"{len(x)} of {len(y)} images, no filling of {lost}")
        if (np.diff(place) <= 0).any():
            return findings
        y = y[place]  # the rest can be compared image by image
    x, bad = _finite(y, x, mask, findings)
    x, rescaled = _in_range(y, x, mask, findings)
    rounding = 0.003 if rescaled else 1e-3 if x_hat.dtype.itemsize < 4 else 0.0
    unlike = ((np.abs(x - y) > rounding) & ~bad)[:, 0][:, mask]
    comparable = check_observed(y, x, mask, unlike, findings)
    check_holes(x, mask, comparable, comparable & ~unlike.any(1), findings)
    return findings


def _as_images(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """Return x_hat as float32 (K,1,H,W), K <= N; None where nothing is left to compare."""
    if not isinstance(x_hat, np.ndarray):
        kind = type(x_hat).__name__
        findings.add("unreadable", f"a {kind}", "one array", f"np.save({RESULT!r}, x_hat)")
        return None
    if x_hat.dtype != np.float32 or not x_hat.dtype.isnative:
        findings.add("dtype", printable(str(x_hat.dtype)))
    fewer = x_hat.shape[1:] == y.shape[1:] and 0 < len(x_hat) < len(y)
    shaped = x_hat if fewer or x_hat.shape == y.shape else _reshaped(y, x_hat, findings)
    if shaped is not None and shaped.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return shaped.astype(np.float32)
    if fewer:
        findings.add("dropped", f"{len(x_hat)} of {len(y)} images")
    return None


def _reshaped(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """Name the wrong shape; return x_hat with y's axes where the fix is certain, else None."""
    n, _, height, width = y.shape
    problem, images_only = f"shape {x_hat.shape}", (n, height, width)
    flat = tuple(size for size in x_hat.shape if size != 1)
    wanted = tuple(size for size in y.shape if size != 1)
    fix = "save one filled image for each of the test set, in one channel, at its size"
    reshaped = None
    if flat in (wanted, (n, height * width), (y.size,)):
        reshaped = x_hat.reshape(y.shape)
        fix = f"save x_hat{'[:, None]' if x_hat.shape == images_only else f'.reshape{y.shape}'}"
    elif sorted(flat) == sorted(images_only):
        axes = next(p for p in permutations(range(3)) if tuple(flat[k] for k in p) == images_only)
        reshaped = x_hat.reshape(flat).transpose(axes)[:, None]
        fix = f"save np.squeeze(x_hat).transpose{axes}[:, None]"
        problem += ", the axes exchanged"
    findings.add("shape", problem, f"{y.shape}", fix)
    return reshaped


def _finite(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Name values that are not finite; return x with plausible ones there, and where, bool."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return x, bad
    nan, wrong = int(np.isnan(x).sum()), bad.any((1, 2, 3))
    infinite = int(bad.sum()) - nan
    findings.add("finite", f"{nan} NaN and {infinite} infinite values in {images(wrong)}")
    x, likely = x.copy(), np.where(mask, y, surroundings(y, mask))
    for k in np.flatnonzero(wrong):
        a, b = _affine(y[k, 0], x[k, 0], mask & ~bad[k, 0])
        x[k] = np.where(bad[k], np.clip(a * likely[k] + b, -EXTREME, EXTREME), x[k])
    return x, bad


def _affine(y: np.ndarray, x: np.ndarray, where: np.ndarray) -> tuple[float, float]:
    """Return a and b of x = a*y + b by least squares, for images (H,W)."""
    known, seen = y[where].astype(np.float64), x[where].astype(np.float64)
    if len(known) < 2 or known.std() == 0:
        return 1.0, 0.0
    a, b = np.polyfit(known, seen, 1)
    return a, b


def _in_range(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings
) -> tuple[np.ndarray, bool]:
    """Name values outside [0,1]; return x brought back from a known range, and whether it was."""
    low, high = float(x.min()), float(x.max())
    if low >= 0 and high <= 1:
        return x, False
    true = y[:, 0][:, mask].astype(np.float64)

    def distance(values: np.ndarray) -> float:
        seen = values[:, 0][:, mask].astype(np.float64)
        return abs(seen.mean() - true.mean()) + abs(seen.std() - true.std())

    problem, nearest, back, fix = f"values in [{low:.3g}, {high:.3g}]", distance(x), x, ""
    rescaled = False
    for name, (a, b) in RANGES.items():
        values = (x - b) / np.float32(a)
        if values.min() > -0.05 and values.max() < 1.05 and distance(values) < min(nearest, 0.15):
            nearest, back, rescaled = distance(values), values, True
            problem = f"values in [{low:.3g}, {high:.3g}]: the images are written in {name}"
            fix = f"save {'(x_hat + 1) / 2' if b else f'x_hat / {a}'}; {COPY}"
    findings.add("range", problem, fix=fix)
    return back.clip(-EXTREME, EXTREME), rescaled
