"""What `test_set_nogaps.npy` must hold: each fault is named for what it is, and only once."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from nogaps.masks import shared_mask
from nogaps.submission.findings import Finding, Findings, images, numbered, printable
from nogaps.submission.holes import check_holes, surroundings
from nogaps.submission.observed import COPY, check_observed, places

RESULT = "test_set_nogaps.npy"
RANGES = {"[-1, 1]": (2, -1), "[0, 255]": (255, 0), "[0, 65535]": (65535, 0)}  # a*x + b


def check_array(y: np.ndarray, x_hat: np.ndarray, file: str = RESULT) -> list[Finding]:
    """Findings about filled images: type, shape, values, order, observed pixels, holes.

    y: the test set (N,1,H,W) float32 in [0,1], missing pixels 0 in every image. x_hat: whatever
    was loaded from `file`; valid if (N,1,H,W) float32 in [0,1] with y's observed pixels. A fault
    with an obvious mend is mended before the next test, so that it is named only once.
    Raises BadInput if y is no such set.
    """
    mask = shared_mask(y)
    findings = Findings(file)
    x = _as_images(y, x_hat, findings)
    if x is not None and len(x) < len(y):
        place = _name_dropped(y, x, mask, findings)
        # the rest can be compared image by image if it is in order
        x, y = (x, y[place]) if (np.diff(place) > 0).all() else (None, y)
    if x is not None:
        x, bad = _finite(y, x, mask, findings)
        x, rescaled = _in_range(y, x, mask, findings)
        rounding = 0.003 if rescaled else 1e-3 if x_hat.dtype.itemsize < 4 else 0.0
        unlike = ((np.abs(x - y) > rounding) & ~bad)[:, 0][:, mask]
        comparable = check_observed(y, x, mask, unlike, findings)
        check_holes(x, mask, comparable, comparable & ~unlike.any(1), findings)
    return findings.all


def _as_images(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """x_hat as float32 (K,1,H,W), K <= N; None where type or shape leave nothing to compare."""
    if not isinstance(x_hat, np.ndarray):
        kind = type(x_hat).__name__
        findings.add("unreadable", f"a {kind}", "one array", f"np.save({RESULT!r}, x_hat)")
        return None
    if x_hat.dtype != np.float32 or not x_hat.dtype.isnative:
        mend = "fill in [0, 1] and save x_hat.astype(np.float32), observed pixels as they were"
        findings.add("dtype", printable(str(x_hat.dtype)), "float32", mend)
    fewer = x_hat.shape[1:] == y.shape[1:] and 0 < len(x_hat) < len(y)
    shaped = x_hat if fewer or x_hat.shape == y.shape else _reshaped(y, x_hat, findings)
    if shaped is None:
        return None
    if shaped.dtype.kind != "f":
        if fewer:
            _add_dropped(len(x_hat), "", len(y), findings)
        return None
    with np.errstate(over="ignore"):
        return shaped.astype(np.float32)


def _name_dropped(y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings) -> np.ndarray:
    """Name the inputs that none of x (K,1,H,W) belongs to; return the place of each, (K,) int."""
    finite = np.nan_to_num(x, posinf=0, neginf=0).clip(-1e6, 1e6)
    place = places(y, finite, mask)
    lost = numbered("input", np.setdiff1d(np.arange(len(y)), place))
    _add_dropped(len(x), f", no filling of {lost}", len(y), findings)
    return place


def _add_dropped(count: int, lost: str, wanted: int, findings: Findings) -> None:
    mend = "fill every image of the test set, in its order (drop_last=False)"
    findings.add("dropped", f"{count} images{lost}", f"{wanted} images", mend)


def _reshaped(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """Name the wrong shape; return x_hat with y's axes where the mend is certain, else None."""
    n, _, height, width = y.shape
    found, expected = f"shape {x_hat.shape}", f"{y.shape}"
    flat = tuple(size for size in x_hat.shape if size != 1)
    wanted = tuple(size for size in y.shape if size != 1)
    if flat in (wanted, (n, height * width), (y.size,)):
        mend = "x_hat[:, None]" if x_hat.shape == (n, height, width) else f"x_hat.reshape{y.shape}"
        findings.add("shape", found, expected, f"save {mend}")
        return x_hat.reshape(y.shape)
    for axes in permutations(range(3)) if len(flat) == 3 else ():
        if tuple(flat[axis] for axis in axes) == (n, height, width):
            mend = f"save np.squeeze(x_hat).transpose{axes}[:, None]"
            findings.add("shape", f"{found}, the axes exchanged", expected, mend)
            return x_hat.reshape(flat).transpose(axes)[:, None]
    mend = "one filled image for each of the test set, in one channel, at its size"
    findings.add("shape", found, expected, mend)
    return None


def _finite(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Name what is not finite; return x with plausible values there, and where, bool."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return x, bad
    nan, wrong = int(np.isnan(x).sum()), np.flatnonzero(bad.any((1, 2, 3)))
    found = f"{nan} NaN and {int(bad.sum()) - nan} infinite values in {images(wrong)}"
    mend = "find the division by 0 or the fp16 overflow that makes them; do not replace them by 0"
    findings.add("finite", found, "finite values", mend)
    x, likely = x.copy(), np.where(mask, y, surroundings(y, mask))
    for k in wrong:
        a, b = _affine(y[k, 0], x[k, 0], mask & ~bad[k, 0])
        x[k] = np.where(bad[k], np.clip(a * likely[k] + b, -1e6, 1e6), x[k])
    return x, bad


def _affine(y: np.ndarray, x: np.ndarray, where: np.ndarray) -> tuple[float, float]:
    """a and b of x = a*y + b by least squares, for images (H,W): a scaled one stays scaled."""
    if where.sum() < 2 or y[where].std() == 0:
        return 1.0, 0.0
    known, seen = y[where].astype(np.float64), x[where].astype(np.float64)
    a = float(((known - known.mean()) * (seen - seen.mean())).mean() / known.var())
    return a, float(seen.mean() - a * known.mean())


def _in_range(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings
) -> tuple[np.ndarray, bool]:
    """Name values outside [0,1]; return x brought back from a known range, and whether it was."""
    low, high = float(x.min()), float(x.max())
    if low >= 0 and high <= 1:
        return x, False

    def distance(values: np.ndarray) -> float:
        seen, true = values[:, 0][:, mask].astype(np.float64), y[:, 0][:, mask]
        return abs(seen.mean() - true.mean()) + abs(seen.std() - true.std())

    nearest, name, back = min(distance(x), 0.15), "", x
    for known, (a, b) in RANGES.items():
        values = (x - b) / np.float32(a)
        if values.min() > -0.05 and values.max() < 1.05 and distance(values) < nearest:
            nearest, name, back = distance(values), known, values
    found, mend = f"values in [{low:.3g}, {high:.3g}]", "x_hat.clamp(0, 1) before saving"
    if name:
        a, b = RANGES[name]
        found += f": the images are written in {name}"
        mend = f"save {'(x_hat + 1) / 2' if b else f'x_hat / {a}'}; {COPY}"
    findings.add("range", found, "[0, 1]", mend)
    return back.clip(-1e6, 1e6), bool(name)  # sums of absurd values must not overflow
