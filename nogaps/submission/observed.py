"""Are the observed pixels those of the input? If not, why: each cause has its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nogaps.submission.findings import Findings, numbered, span

EXACT = 1 - 1e-5  # a correlation above which one image is an affine map of another
LIKE = 0.5  # a correlation below which an image resembles nothing
TIE = 1e-9  # a difference of correlations that is rounding
SCALED = 0.05  # from here on a factor - 1, or an offset, is no rounding

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


def _correlations(y: np.ndarray, x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare outputs x (K,1,H,W), moved back, with all inputs y (N,1,H,W) where observed.

    Correlation does not see an affine change of intensities.

    Returns:
        The moves that fit the shape (M,), and the correlations (M,K,N).
    """
    moved = {name: undo(x) for name, undo in MOVES.items()}
    fitting = [name for name, values in moved.items() if values.shape == x.shape]
    tables = [_unit(moved[name], mask) @ _unit(y, mask).T for name in fitting]
    return np.array(fitting), np.stack(tables)


def _unit(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the observed pixels (K,P) without their mean, of length 1."""
    values = values[:, 0][:, mask].astype(np.float64)
    values -= values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def likeliest(y: np.ndarray, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return which inputs y (N,1,H,W) outputs x (K,1,H,W) resemble most, (K,) int.

    It is the first K if these explain the outputs about as well: single images can be confused.
    """
    r = _unit(x, mask) @ _unit(y, mask).T
    first = r.diagonal().mean() > r.max(1).mean() - 0.05
    return np.arange(len(x)) if first else r.argmax(1)


class Causes(NamedTuple):
    """Why the observed pixels of some images differ; every array is (K,)."""

    inverted: np.ndarray  # bool: the hole kept, the observed pixels replaced
    scaled: np.ndarray  # bool: a*y + b
    place: np.ndarray  # the input that the output belongs to
    move: np.ndarray  # the key of MOVES that brought it there
    a: np.ndarray
    b: np.ndarray


def _causes(
    y: np.ndarray, x: np.ndarray, own: np.ndarray, mask: np.ndarray, share: np.ndarray
) -> Causes:
    """Explain outputs x (K,1,H,W) that differ from y[own] in a share (K,) of observed pixels.

    Neighbours of one subject resemble each other, so that another input than the rightful one must
    explain twice as much.
    """
    moves, r = _correlations(y, x, mask)
    rows = np.arange(len(x))
    unmoved = r[0, rows, own]
    r -= TIE * np.arange(len(moves))[:, None, None]  # of equals the simplest move, at home
    r[0, rows, own] += TIE
    at_home, anywhere = r[:, rows, own], r.transpose(1, 0, 2).reshape(len(x), -1)
    strange = 1 - anywhere.max(1) < 0.5 * (1 - at_home.max(0))
    best = np.where(strange, anywhere.max(1), at_home.max(0))
    move, place = np.divmod(anywhere.argmax(1), len(y))
    move, place = np.where(strange, move, at_home.argmax(0)), np.where(strange, place, own)

    seen, true = x[:, 0][:, mask].astype(np.float64), y[own][:, 0][:, mask]
    affine = np.abs(unmoved) > EXACT
    empty = ((x[:, 0][:, ~mask] == 0).mean(1) > 0.95) != ((seen == 0).mean(1) > 0.95)
    inverted = empty & ~affine & (best < EXACT) & (share > 0.5)
    # a few wild pixels do not make another image
    moved = ~affine & ~inverted & ((place != own) | (move > 0)) & (share > 0.2)
    moved &= (best > LIKE) & (1 - best < 0.5 * (1 - unmoved))
    a = np.sign(unmoved) * seen.std(1) / np.maximum(true.std(1), 1e-12)
    b = seen.mean(1) - a * true.mean(1)
    scaled = affine & ((np.abs(a - 1) > SCALED) | (np.abs(b) > SCALED))
    move = moves[np.where(moved, move, 0)]
    return Causes(inverted, scaled, np.where(moved, place, own), move, a, b)


def check_observed(
    y: np.ndarray, x: np.ndarray, mask: np.ndarray, unlike: np.ndarray, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Name why observed pixels differ.

    Args:
        y: Inputs (N,1,H,W).
        x: Outputs (N,1,H,W), finite.
        mask: (H,W) bool, True = observed.
        unlike: (N,P) bool, which of the observed pixels differ.
        findings: Takes the findings.

    Returns:
        (N,) bool, the images whose holes can be judged all the same; (N,) int, the inputs that
        they belong to.
    """
    own, comparable, place = np.flatnonzero(unlike.any(1)), np.ones(len(y), bool), np.arange(len(y))
    if not len(own):
        return comparable, place
    why = _causes(y, x[own], own, mask, unlike[own].mean(1))

    def listed(which: np.ndarray) -> str:
        return numbered("image", own[which])

    if why.inverted.any():
        problem = f"{listed(why.inverted)}: observed pixels replaced, missing ones kept"
        findings.add("inverted-mask", problem)
    for move in dict.fromkeys(why.move[why.move != ""]):
        findings.add("orientation", f"{listed(why.move == move)}: {move}")
    place[own] = why.place
    _check_order(place, findings)
    if why.scaled.any():
        a, b = span(why.a[why.scaled]), span(why.b[why.scaled])
        problem = f"{listed(why.scaled)}: the observed pixels are a*y + b, a {a}, b {b}"
        findings.add("scaled", problem)
    rest = ~(why.inverted | why.scaled | (why.move != "") | (why.place != own))
    if rest.sum() > (why.place != own).sum():  # else single images are in place by chance
        most = float(np.abs(x - y)[own[rest], 0][:, mask].max())
        count = f"{int(unlike[own[rest]].sum())} observed pixels differ"
        findings.add("observed-changed", f"{count}, by up to {most:.2g}, in {listed(rest)}")
    comparable[own[why.inverted | (why.move != "")]] = False
    return comparable, place


def _check_order(place: np.ndarray, findings: Findings) -> None:
    """Name outputs k that hold another input (place[k])."""
    outputs = np.flatnonzero(place != np.arange(len(place)))
    if len(outputs):
        pairs = [f"image {k} holds input {place[k]}" for k in outputs]
        problem = "; ".join(pairs[:4]) + (f"; {len(pairs) - 4} more" if len(pairs) > 4 else "")
        lost = np.setdiff1d(np.arange(len(place)), place)
        problem += f"; no filling of {numbered('input', lost)}" if len(lost) else ""
        findings.add("order", problem)
