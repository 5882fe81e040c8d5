"""What `test_set_nogaps.npy` must hold: each fault is named for what it is, and only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from nogaps.files import BadInput
from nogaps.submission.findings import Finding, Findings, images, numbered, printable, span
from nogaps.submission.holes import check_holes, surroundings

RESULT = "test_set_nogaps.npy"
COPY = "copy the observed pixels: x_hat = torch.where(mask, y, x_hat)"
EXACT = 1 - 1e-5  # a correlation above which one image is an affine map of another
LIKE = 0.5  # a correlation below which an image resembles nothing
RANGES = {"[-1, 1]": (2, -1), "[0, 255]": (255, 0), "[0, 65535]": (65535, 0)}  # a*x + b

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


@dataclass
class Match:
    """Which input, moved how, each of K outputs resembles most on the observed pixels."""

    own: np.ndarray  # (K,) correlation with the input of the same place
    best: np.ndarray  # (K,) the highest correlation with any input
    place: np.ndarray  # (K,) that input
    move: np.ndarray  # (K,) the key of MOVES that brought it there


def check_array(y: np.ndarray, x_hat: np.ndarray, file: str = RESULT) -> list[Finding]:
    """Findings about filled images: type, shape, values, order, observed pixels, holes.

    y: the test set (N,1,H,W) float32 in [0,1], missing pixels 0 in every image. x_hat: whatever
    was loaded from `file`; valid if (N,1,H,W) float32 in [0,1] with y's observed pixels. A fault
    with an obvious mend is mended before the next test, so that it is named only once.
    Raises BadInput if y is no such set.
    """
    mask = shared_mask(y)
    findings = Findings(file)
    x = _as_images(y, x_hat, mask, findings)
    if x is not None:
        x = _finite(y, x, mask, findings)
        x, rescaled = _in_range(y, x, mask, findings)
        rounding = 0.003 if rescaled else 1e-3 if x_hat.dtype.itemsize < 4 else 0.0
        unlike = (np.abs(x - y)[:, 0] > rounding)[:, mask]
        comparable = _check_observed(y, x, mask, unlike, findings)
        check_holes(x, mask, comparable, comparable & ~unlike.any(1), findings)
    return findings.all


def shared_mask(y: np.ndarray) -> np.ndarray:
    """Mask (H,W) bool of a test set, True = observed. Raises BadInput if there is none."""
    if y.ndim != 4 or y.shape[1] != 1 or 0 in y.shape:
        raise BadInput(f"test set: has shape {y.shape}, expected (N, 1, H, W)")
    mask = (y != 0).any((0, 1))
    if mask.all() or not mask.any():
        found = f"{int(mask.sum())} of {mask.size} pixels observed"
        raise BadInput(f"test set: {found}, expected some missing (0 in every image) and some not")
    return mask


def _as_images(
    y: np.ndarray, x_hat: np.ndarray, mask: np.ndarray, findings: Findings
) -> np.ndarray | None:
    """x_hat as float32 (N,1,H,W), or None where type or shape leave nothing to compare."""
    if not isinstance(x_hat, np.ndarray):
        kind = type(x_hat).__name__
        findings.add("unreadable", f"a {kind}", "one array", f"np.save({RESULT!r}, x_hat)")
        return None
    if x_hat.dtype != np.float32 or not x_hat.dtype.isnative:
        mend = "fill in [0, 1] and save x_hat.astype(np.float32), observed pixels as they were"
        findings.add("dtype", printable(str(x_hat.dtype)), "float32", mend)
    if x_hat.shape == y.shape:
        shaped: np.ndarray | None = x_hat
    elif x_hat.shape[1:] == y.shape[1:] and 0 < len(x_hat) < len(y):
        shaped = _name_dropped(y, x_hat, mask, findings)
    else:
        shaped = _reshaped(y, x_hat, findings)
    if shaped is None or shaped.dtype.kind != "f":
        return None
    with np.errstate(over="ignore"):
        return shaped.astype(np.float32)


def _name_dropped(y: np.ndarray, x_hat: np.ndarray, mask: np.ndarray, findings: Findings) -> None:
    lost = ""
    if x_hat.dtype.kind in "fiu":
        x = np.nan_to_num(x_hat.astype(np.float64), posinf=0, neginf=0)
        place = match(y, x, np.arange(len(x)), mask).place
        lost = ", no filling of " + numbered("input", np.setdiff1d(np.arange(len(y)), place))
    mend = "fill every image of the test set, in its order (drop_last=False)"
    findings.add("dropped", f"{len(x_hat)} images{lost}", f"{len(y)} images", mend)


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


def _finite(y: np.ndarray, x: np.ndarray, mask: np.ndarray, findings: Findings) -> np.ndarray:
    """Name what is not finite; return x with plausible values there."""
    bad = ~np.isfinite(x)
    if not bad.any():
        return x
    nan = int(np.isnan(x).sum())
    found = f"{nan} NaN and {int(bad.sum()) - nan} infinite values"
    found += f" in {images(np.flatnonzero(bad.any((1, 2, 3))))}"
    mend = "find the division by 0 or the fp16 overflow that makes them; do not replace them by 0"
    findings.add("finite", found, "finite values", mend)
    with np.errstate(invalid="ignore"):
        return np.where(bad, np.where(mask, y, surroundings(y, mask)), x)


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


def match(y: np.ndarray, x: np.ndarray, own: np.ndarray, mask: np.ndarray) -> Match:
    """Compare x (K,1,H,W), whose rightful places are own (K,), with all inputs y (N,1,H,W).

    Correlation over the observed pixels does not see an affine change of intensities.
    """

    def unit(values: np.ndarray) -> np.ndarray:
        values = values[:, 0][:, mask].astype(np.float64)
        values -= values.mean(1, keepdims=True)
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)

    inputs, rows = unit(y), np.arange(len(x))
    r = (unit(x) * inputs[own]).sum(1)
    found = Match(r, r.copy(), own.copy(), np.full(len(x), "", dtype=object))
    for name, undo in MOVES.items():
        moved = undo(x)
        if moved.shape[-2:] == mask.shape:
            table = unit(moved) @ inputs.T
            place = table.argmax(1)
            better = table[rows, place] > found.best + 1e-9
            found.best = np.where(better, table[rows, place], found.best)
            found.place = np.where(better, place, found.place)
            found.move[better] = name
    return found


@dataclass
class Causes:
    """Why the observed pixels of some images differ; every array is (K,)."""

    inverted: np.ndarray  # bool: the hole kept, the observed pixels replaced
    moved: np.ndarray  # bool: the output belongs to another input, or is turned or shifted
    scaled: np.ndarray  # bool: a*y + b
    place: np.ndarray  # the input it belongs to
    move: np.ndarray  # the key of MOVES that brought it there
    a: np.ndarray
    b: np.ndarray


def _causes(
    y: np.ndarray, x: np.ndarray, own: np.ndarray, mask: np.ndarray, share: np.ndarray
) -> Causes:
    """Explain outputs x (K,1,H,W) that differ from y[own] in a share (K,) of observed pixels."""
    m = match(y, x, own, mask)
    seen, true = x[:, 0][:, mask].astype(np.float64), y[own][:, 0][:, mask]
    affine, elsewhere = np.abs(m.own) > EXACT, (m.place != own) | (m.move != "")
    elsewhere &= share > 0.2  # a few wild pixels are no other image
    certain = ~affine & elsewhere & (m.best > EXACT)
    empty = ((x[:, 0][:, ~mask] == 0).mean(1) > 0.95) != ((seen == 0).mean(1) > 0.95)
    inverted = empty & ~affine & ~certain & (share > 0.5)
    # an output that is no copy of any input: another must explain twice as much as its own
    likely = elsewhere & (m.best > LIKE) & (1 - m.best < 0.5 * (1 - m.own))
    moved = certain | (likely & ~affine & ~inverted)
    a = np.sign(m.own) * seen.std(1) / np.maximum(true.std(1), 1e-12)
    b = seen.mean(1) - a * true.mean(1)
    scaled = affine & ((np.abs(a - 1) > 0.002) | (np.abs(b) > 0.002))
    place, move = np.where(moved, m.place, own), np.where(moved, m.move, "")
    return Causes(inverted, moved, scaled, place, move, a, b)


def _check_observed(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, unlike: np.ndarray, findings: Findings
) -> np.ndarray:
    """Name why observed pixels differ (unlike, (N,P) bool).

    Returns where the holes can be judged all the same, (N,) bool.
    """
    comparable = np.ones(len(y), bool)
    own = np.flatnonzero(unlike.any(1))
    if not len(own):
        return comparable
    why = _causes(y, x[own], own, mask, unlike[own].mean(1))
    if why.inverted.any():
        found = f"{images(own[why.inverted])}: observed pixels replaced, missing ones kept"
        mend = "mask is True where observed: x_hat = torch.where(mask, y, network)"
        findings.add("inverted-mask", found, "the opposite", mend)
    _check_moves(own, why.move, findings)
    _check_order(own, why.place, len(y), findings)
    _check_scale(own[why.scaled], why.a[why.scaled], why.b[why.scaled], findings)
    rest = own[~(why.inverted | why.moved | why.scaled)]
    if len(rest):
        most = float(np.abs(x[rest] - y[rest])[:, 0][:, mask].max())
        found = f"{int(unlike[rest].sum())} observed pixels differ, by up to {most:.2g}"
        findings.add("observed-changed", f"{found}, in {images(rest)}", "no difference", COPY)
    comparable[own[why.inverted | (why.move != "")]] = False
    return comparable


def _check_moves(own: np.ndarray, move: np.ndarray, findings: Findings) -> None:
    """Name outputs (own) that are turned or shifted (move)."""
    for name in dict.fromkeys(move[move != ""]):
        mend = "leave rows and columns as they are; undo every augmentation"
        found = f"{images(own[move == name])}: {name}"
        findings.add("orientation", found, "the orientation of the test set", mend)


def _check_scale(own: np.ndarray, a: np.ndarray, b: np.ndarray, findings: Findings) -> None:
    """Name outputs (own) that are a*y + b."""
    if len(own):
        found = f"{images(own)}: the observed pixels are a*y + b, a {span(a)}, b {span(b)}"
        findings.add("scaled", found, "y itself", f"undo the scaling, (x_hat - b) / a; {COPY}")


def _check_order(changed: np.ndarray, place: np.ndarray, n: int, findings: Findings) -> None:
    """Name outputs (changed) that hold another input (place)."""
    wrong = place != changed
    if not wrong.any():
        return
    outputs, inputs = changed[wrong], place[wrong]
    assigned = np.arange(n)
    assigned[outputs] = inputs
    lost = np.setdiff1d(np.arange(n), assigned)
    shifts = np.unique((inputs - outputs + n // 2) % n - n // 2)
    pairs = [f"image {k} holds input {j}" for k, j in zip(outputs, inputs, strict=True)]
    found = "; ".join(pairs[:4]) + (f"; {len(pairs) - 4} more" if len(pairs) > 4 else "")
    found += f"; no filling of {numbered('input', lost)}" if len(lost) else ""
    # a few neighbours may be confused where the observed pixels are only roughly right
    check = "duplicated" if len(lost) > 0.1 * len(outputs) else "shuffled"
    if len(shifts) == 1 and len(outputs) > n / 2:
        check, found = "shuffled", f"off by {abs(shifts[0])}: {found}"
    mend = "fill the test set in its order (DataLoader with shuffle=False), each image once"
    findings.add(check, found, "image k holds input k", mend)
