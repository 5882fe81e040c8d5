"""Are the observed pixels those of the input? If not, why: each cause has its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nogaps.submission.findings import Findings, images, numbered, span

COPY = "copy the observed pixels: x_hat = torch.where(mask, y, x_hat)"
EXACT = 1 - 1e-5  # a correlation above which one image is an affine map of another
LIKE = 0.5  # a correlation below which an image resembles nothing

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

    def replace(
        self, where: np.ndarray, best: np.ndarray, place: np.ndarray, move: str | np.ndarray
    ) -> None:
        """Take another match where (K,) bool says so."""
        self.best = np.where(where, best, self.best)
        self.place = np.where(where, place, self.place)
        self.move = np.where(where, np.asarray(move, dtype=object), self.move)


def match(y: np.ndarray, x: np.ndarray, own: np.ndarray | None, mask: np.ndarray) -> Match:
    """Compare outputs with all inputs, which may be moved, over the observed pixels.

    Correlation does not see an affine change of intensities. Neighbours of one subject resemble
    each other, so that another input than the rightful one must explain twice as much.

    Args:
        y: Inputs (N,1,H,W).
        x: Outputs (K,1,H,W).
        own: The rightful places (K,); None where any may be the one.
        mask: (H,W) bool, True = observed.
    """
    inputs, rows = _unit(y, mask), np.arange(len(x))
    home = np.zeros(len(x), int) if own is None else own
    r = (_unit(x, mask) * inputs[home]).sum(1)
    kept, free = (Match(r, r.copy(), home, np.full(len(x), "", dtype=object)) for _ in range(2))
    for name, undo in MOVES.items():
        moved = undo(x)
        if moved.shape[-2:] == mask.shape:
            table = _unit(moved, mask) @ inputs.T
            for best, place in ((kept, home), (free, table.argmax(1))):
                best.replace(table[rows, place] > best.best + 1e-9, table[rows, place], place, name)
    if own is None:
        return free
    kept.replace(1 - free.best < 0.5 * (1 - kept.best), free.best, free.place, free.move)
    return kept


def _unit(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the observed pixels (K,P) without their mean, of length 1."""
    values = values[:, 0][:, mask].astype(np.float64)
    values -= values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def places(y: np.ndarray, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return which inputs y (N,1,H,W) fewer outputs x (K,1,H,W) belong to, (K,) int.

    The places rise if that explains the outputs about as well as any other order.
    """
    free, r = match(y, x, None, mask), _unit(x, mask) @ _unit(y, mask).T
    rising = _rising(r)
    kept = r[np.arange(len(x)), rising].mean() > free.best.mean() - 0.05
    return rising if kept else free.place


def _rising(r: np.ndarray) -> np.ndarray:
    """Return rising columns, one for each row of r (K,N), with the greatest sum.

    By dynamic programming over the rows.
    """
    sums, best = [], np.zeros(r.shape[1] + 1)
    for row in r:
        sums.append(best[:-1] + row)
        best = np.concatenate([[-np.inf], np.maximum.accumulate(sums[-1])])
    columns, stop = [], r.shape[1]
    for values in reversed(sums):
        stop = int(values[:stop].argmax())
        columns.append(stop)
    return np.array(columns[::-1])


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
    elsewhere &= share > 0.2  # a few wild pixels do not make another image
    certain = ~affine & elsewhere & (m.best > EXACT)
    empty = ((x[:, 0][:, ~mask] == 0).mean(1) > 0.95) != ((seen == 0).mean(1) > 0.95)
    inverted = empty & ~affine & ~certain & (share > 0.5)
    # an output that copies no input: another must explain twice as much as its own
    likely = elsewhere & (m.best > LIKE) & (1 - m.best < 0.5 * (1 - m.own))
    moved = certain | (likely & ~affine & ~inverted)
    a = np.sign(m.own) * seen.std(1) / np.maximum(true.std(1), 1e-12)
    b = seen.mean(1) - a * true.mean(1)
    scaled = affine & ((np.abs(a - 1) > 0.002) | (np.abs(b) > 0.002))
    place, move = np.where(moved, m.place, own), np.where(moved, m.move, "")
    return Causes(inverted, moved, scaled, place, move, a, b)


def check_observed(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, unlike: np.ndarray, findings: Findings
) -> np.ndarray:
    """Name why observed pixels differ.

    Args:
        y: Inputs (N,1,H,W).
        x: Outputs (N,1,H,W), finite.
        mask: (H,W) bool, True = observed.
        unlike: (N,P) bool, which of the observed pixels differ.
        findings: Takes the findings.

    Returns:
        (N,) bool, the images whose holes can be judged all the same.
    """
    comparable = np.ones(len(y), bool)
    own = np.flatnonzero(unlike.any(1))
    if not len(own):
        return comparable
    why = _causes(y, x[own], own, mask, unlike[own].mean(1))
    if why.inverted.any():
        problem = f"{images(own[why.inverted])}: observed pixels replaced, missing ones kept"
        fix = "mask is True where observed: x_hat = torch.where(mask, y, network)"
        findings.add("inverted-mask", problem, "the opposite", fix)
    for move in dict.fromkeys(why.move[why.move != ""]):
        problem = f"{images(own[why.move == move])}: {move}"
        fix = "leave rows and columns as they are; undo every augmentation"
        findings.add("orientation", problem, "the orientation of the test set", fix)
    _check_order(own, why.place, len(y), findings)
    if why.scaled.any():
        a, b = span(why.a[why.scaled]), span(why.b[why.scaled])
        problem = f"{images(own[why.scaled])}: the observed pixels are a*y + b, a {a}, b {b}"
        findings.add("scaled", problem, "y itself", f"undo the scaling, (x_hat - b) / a; {COPY}")
    rest = own[~(why.inverted | why.moved | why.scaled)]
    if len(rest):
        most = float(np.abs(x[rest] - y[rest])[:, 0][:, mask].max())
        problem = f"{int(unlike[rest].sum())} observed pixels differ, by up to {most:.2g}"
        findings.add("observed-changed", f"{problem}, in {images(rest)}", "no difference", COPY)
    comparable[own[why.inverted | (why.move != "")]] = False
    return comparable


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
    problem = "; ".join(pairs[:4]) + (f"; {len(pairs) - 4} more" if len(pairs) > 4 else "")
    problem += f"; no filling of {numbered('input', lost)}" if len(lost) else ""
    # a few neighbours may be confused where the observed pixels are only roughly right
    check = "duplicated" if len(lost) > 0.1 * len(outputs) else "shuffled"
    if len(shifts) == 1 and len(outputs) > n / 2:
        check, problem = "shuffled", f"off by {abs(shifts[0])}: {problem}"
    fix = "fill the test set in its order (DataLoader with shuffle=False), each image once"
    findings.add(check, problem, "image k holds input k", fix)
