"""What `test_set_nogaps.npy` must hold: each fault is named for what it is, and only once."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from nogaps.masks import shared_mask
from nogaps.submission.findings import NOTES, Finding, Findings, numbered
from nogaps.submission.holes import check_holes, surroundings
from nogaps.submission.observed import check_observed, likeliest

RESULT = "test_set_nogaps.npy"
SCALES = {"[0, 1]": (1, 0), "[-1, 1]": (2, -1), "[0, 255]": (255, 0), "[0, 65535]": (65535, 0)}
SAME_SCALE = 0.1  # mean difference of quantiles up to which images are written in a scale
CLIPPED = 0.02  # mean change up to which clipping to [0, 1] spoils nothing
EXTREME = 1e6  # beyond it sums of values could overflow


def check_array(y: np.ndarray, x_hat: np.ndarray, file: str = RESULT) -> list[Finding]:
    """Check filled images: type, shape, values, order, observed pixels, holes.

    A fault with an obvious fix is fixed before the next test, so that it is named only once.

    Args:
        y: The test set, (N,1,H,W) float32 in [0,1], missing pixels 0 in every image.
        x_hat: Whatever was loaded from `file`; valid if it is (N,1,H,W), in the intensities and the
            order of `y`, with filled holes.
        file: Its name in the findings.

    Returns:
        The errors and notes; [] for float32 in [0,1] with y's observed pixels and filled holes.

    Raises:
        BadInput: `y` is not such a set.
    """
    mask = shared_mask(y)
    findings = Findings(file)
    x = _as_images(y, x_hat, findings)
    if x is None:
        return findings
    bad = ~np.isfinite(x)
    if bad.any():
        nan, where = int(np.isnan(x).sum()), numbered("image", np.flatnonzero(bad.any((1, 2, 3))))
        findings.add("finite", f"{nan} NaN and {int(bad.sum()) - nan} infinite values in {where}")
    x, rescaled = _in_range(y, x, mask, findings)
    x = np.where(bad, 0, x).clip(-EXTREME, EXTREME)
    if len(x) != len(y):
        place, count = likeliest(y, x, mask), f"{len(x)} of {len(y)} images"
        if (np.diff(place) <= 0).any():
            findings.add("number", count)
            return findings
        lost = numbered("input", np.setdiff1d(np.arange(len(y)), place))
        findings.add("number", f"{count}, no filling of {lost}")
        y = y[place]  # the rest can be compared image by image
    x = np.where(bad, np.where(mask, y, surroundings(y, mask)), x)
    rounding = 0.004 if rescaled else 1e-3 if x_hat.dtype.itemsize < 4 else 0.0
    unlike = (np.abs(x - y) > rounding)[:, 0][:, mask]
    comparable, place = check_observed(y, x, mask, unlike, findings)
    check_holes(x, y[place], mask, comparable, comparable & ~unlike.any(1), findings)
    return findings


def _as_images(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """Return x_hat as float32 (K,1,H,W), 0 < K <= N; None where nothing can be compared."""
    if not isinstance(x_hat, np.ndarray) or x_hat.dtype.kind not in "fiu":
        kind = str(x_hat.dtype if isinstance(x_hat, np.ndarray) else type(x_hat))
        findings.add("unreadable", kind, "one array of numbers", f"np.save({RESULT!r}, x_hat)")
        return None
    if x_hat.dtype != np.float32 or not x_hat.dtype.isnative:
        findings.add("dtype", str(x_hat.dtype))
    x = x_hat if x_hat.shape[1:] == y.shape[1:] else _reshaped(y, x_hat, findings)
    if x is None:
        return None
    if not 0 < len(x) <= len(y):
        findings.add("number", f"{len(x)} images, the test set has {len(y)}")
        return None
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def _reshaped(y: np.ndarray, x_hat: np.ndarray, findings: Findings) -> np.ndarray | None:
    """Name the wrong shape; return x_hat with y's axes where the fix is certain, else None."""
    n, _, height, width = y.shape
    problem, expected = f"shape {x_hat.shape}", f"{y.shape}"
    flat = tuple(size for size in x_hat.shape if size != 1)
    fix = f"save x_hat.reshape(-1, 1, {height}, {width})"
    if flat[-2:] == (height, width) and len(flat) < 4:
        findings.add("axes", problem, expected, fix)
    elif flat in ((n, height * width), (y.size,)):
        findings.add("shape", problem, expected, fix)
    elif sorted(flat) == sorted((n, height, width)):
        axes = next(p for p in permutations(range(3)) if [flat[k] for k in p] == [n, height, width])
        fix = f"save np.squeeze(x_hat).transpose{axes}[:, None]"
        findings.add("shape", f"{problem}, the axes exchanged", expected, fix)
        x_hat = x_hat.reshape(flat).transpose(axes)
    else:
        findings.add("shape", problem, expected)
        return None
    return x_hat.reshape(-1, 1, height, width)


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
    scales = dict(SCALES)
    if known.std() > 0.01 and seen.std() > 0:
        a, b = np.polyfit(known, seen, 1)
        scales[f"a*y + b, a {a:.3g}, b {b:.3g}"] = (a, b)
    misfits = {name: np.abs((seen - b) / a - known).mean() for name, (a, b) in scales.items()}
    name = min(SCALES, key=misfits.__getitem__)
    if misfits[name] > SAME_SCALE:
        name = min(misfits, key=misfits.__getitem__)
    problem = f"values in [{values.min():.3g}, {values.max():.3g}]"
    a, b = scales[name]
    if misfits[name] > SAME_SCALE or a <= 0:
        findings.add("range", problem)
    elif name != "[0, 1]":
        moved = f"(x_hat {'-' if b > 0 else '+'} {abs(b):.4g})" if b else "x_hat"
        problem += f": the images are written in {name}"
        findings.add("range", problem, fix=f"save {moved} / {a:.4g}")
        return (x - np.float32(b)) / np.float32(a), True
    elif np.abs(values - values.clip(0, 1)).clip(max=1).mean() > CLIPPED:
        findings.add("range", problem)
    else:
        wild = values.min() < -1 or values.max() > 2
        findings.add("range" if wild else "overshoot", problem, fix=NOTES["overshoot"][1])
        return x.clip(0, 1), False
    return x, False
