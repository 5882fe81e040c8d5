"""Which submissions hold the same, or nearly the same, filled pixels: where to look, no verdict.

Networks that learn the same task agree on most of what they fill. So, image by image, the hole
pixels of a submission are fitted by what needs no network: a constant, linear, biharmonic and
kriging interpolation and the square of the last. Changes of intensity, and blends with such
fillings, vanish with the fit. What the fit leaves of one submission is correlated with what it
leaves of the other *at the neighbouring hole pixels*: noise and rounding, which know nothing of
their neighbours, cancel. 1 - correlation is the distance of two fillings of one image.

Measured on the stand-in and on the course's file, as the lower quartile over the images [and the
least of them]: networks that differ by their seeds 0.011 [0.005], one of three and the mean of all
three 0.004 [0.002]; disguised copies (in 8 bits, rescaled, noisy, blended) at most 0.0012. The
whole table stands in docs/staff.md. A filling that the fit explains is the same for everyone who
makes it; it is named, and compared with nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import convolve

from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, keep_observed, linear
from nogaps.masks import shared_mask
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_npy, sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.findings import printable, reason_of

NEAR = 0.0015  # distance below which two fillings of an image are alike
QUARTER = 0.25  # share of the images that must be alike, unless one is identical
STEADY = 0.75  # least correlation of pixel with pixel: with more noise an image tells nothing
EXPLAINED = 0.003  # share of the variance beyond which a filling is more than interpolation
NEIGHBOURS = np.array([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]])  # of a pixel: those beside it
PLAIN = "(interpolation)"  # in the place of another submission
SHIPPED = ("nogaps fill", "nogaps fill --quality fast")  # fillings that anybody can have


@dataclass(frozen=True)
class Likeness:
    """How S fillings of N images resemble each other; all but `plain` are (S,S), symmetric."""

    identical: np.ndarray  # images with the same bits in the holes
    alike: np.ndarray  # images with a distance below NEAR, or with the same bits
    compared: np.ndarray  # images that can be compared
    plain: np.ndarray  # (S,) bool: interpolation explains nearly every image

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs to look at: one image identical, or a quarter of the images alike."""
        listed = self.identical > 0
        listed |= (self.alike >= QUARTER * self.compared) & (self.compared > 0)
        listed &= ~self.plain[:, None] & ~self.plain
        return [(int(a), int(b)) for a, b in np.argwhere(np.triu(listed, 1))]


def compare_fillings(
    fillings: Sequence[np.ndarray], interpolations: Sequence[np.ndarray], mask: np.ndarray
) -> Likeness:
    """Compare fillings of the same images, pair by pair, holding one image of each at a time.

    Args:
        fillings: (N,1,H,W) each; they may be memory-mapped. An image with NaN is not compared.
        interpolations: (N,1,H,W) each, fillings that need no network, at least one.
        mask: (H,W) bool, True = observed.
    """
    count = len(fillings)
    identical, alike, compared = np.zeros((3, count, count))
    plain, readable = np.zeros((2, count))
    for k in range(len(interpolations[0])):
        values = _holes(fillings, k, mask)
        finite = np.isfinite(values).all(1)
        values[~finite] = 0
        rest, explained = _rest(values, _holes(interpolations, k, mask))
        plain, readable = plain + (explained & finite), readable + finite
        usable = finite & ~explained
        both = usable[:, None] & usable
        _, number = np.unique(values, axis=0, return_inverse=True)
        same = both & (number[:, None] == number)
        identical += same
        alike += same | (both & (_distance(rest, mask) < NEAR))
        compared += both
    return Likeness(identical, alike, compared, plain > (1 - QUARTER) * readable)


def _holes(images: Sequence[np.ndarray], k: int, mask: np.ndarray) -> np.ndarray:
    """Return the hole pixels (S,P) float64 of image k of each, as float32 has them."""
    with np.errstate(over="ignore"):
        rows = [image[k, 0][~mask].astype(np.float32) for image in images]
    return np.stack(rows).astype(np.float64)


def _rest(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the interpolations (K,P) leave of values (S,P), and where that is nothing."""
    basis = np.concatenate([np.ones_like(known[:1]), known, known[-1:] ** 2])
    q, r = np.linalg.qr(basis.T)
    kept = np.abs(np.diag(r)) > 1e-9 * np.abs(np.diag(r)).max()
    rest = values - (values @ q[:, kept]) @ q[:, kept].T
    around = values - values.mean(1, keepdims=True)
    return rest, (rest**2).sum(1) <= EXPLAINED * (around**2).sum(1)


def _distance(rest: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return 1 - correlation of each row (S,P) with the others at neighbouring pixels, (S,S).

    It is infinite where noise, or too little agreement of neighbours, lets nothing be said.
    """
    pages = np.zeros((len(rest), *mask.shape))
    pages[:, ~mask] = rest
    beside = convolve(pages, NEIGHBOURS, mode="constant")[:, ~mask]
    steady = _correlation(rest @ rest.T) >= STEADY
    return np.where(steady, 1 - _correlation(rest @ beside.T), math.inf)


def _correlation(products: np.ndarray) -> np.ndarray:
    """Divide products (S,S) by the roots of their diagonal's; -1 where these are not positive."""
    own = np.where(np.diag(products) > 0, np.diag(products), math.inf)
    scaled = products / np.sqrt(own[:, None] * own)
    return np.where(np.isinf(own[:, None] + own), -1, scaled)


def compare_folders(
    folders: Sequence[str | Path], test_set: str | Path | None = None
) -> dict[str, object]:
    """Compare submissions with each other and with what the shipped imputer fills.

    An array of another type or range is compared all the same, up to an affine change; one with
    another number of values is not.

    Args:
        folders: Those with equal test sets are compared.
        test_set: For all of them; else each folder's own.

    Returns:
        "pairs": a list of {"dirs": [two names], "identical", "alike", "images": counts}, where a
        name of SHIPPED stands for the shipped imputer; "plain": folders filled without a network;
        "not_compared": {folder: reason}.
    """
    result: dict[str, object] = {"pairs": [], "plain": [], "not_compared": {}}
    sets: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]] = {}
    for folder in dict.fromkeys(map(str, folders)):
        try:
            source = Path(test_set) if test_set else Path(folder) / "test_set.npy"
            y, arrays = sets.setdefault(sha256(source), (load_images(source), {}))
            shared_mask(y, str(source))
            x = load_npy(Path(folder) / RESULT, mmap=True)
            if x.dtype.kind not in "fiu" or x.size != y.size or x.shape[0] != len(y):
                raise BadInput(f"has {x.dtype} of shape {x.shape}", f"{y.shape}", path=RESULT)
            arrays[folder] = x.reshape(y.shape)
        except (BadInput, OSError, ValueError) as error:
            result["not_compared"][folder] = printable(reason_of(error), 160)
    for y, arrays in sets.values():
        if arrays:
            _compare(y, arrays, result)
    return result


def _compare(y: np.ndarray, arrays: dict[str, np.ndarray], result: dict) -> None:
    """Add to `result` what the arrays of one test set y have in common."""
    mask = shared_mask(y)
    interpolations, shipped = _references(y, mask)
    names = [*arrays, *shipped]
    likeness = compare_fillings([*arrays.values(), *shipped.values()], interpolations, mask)
    result["plain"] += [n for n, plain in zip(names, likeness.plain, strict=True) if plain]
    for a, b in likeness.pairs():
        if names[a] in arrays:  # that the two qualities of one imputer are alike is not news
            counts = {key: int(getattr(likeness, key)[a, b]) for key in ("identical", "alike")}
            pair = {"dirs": [names[a], names[b]], **counts, "images": len(y)}
            result["pairs"].append(pair)


def _references(y: np.ndarray, seen: np.ndarray) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Fill y without a network, kriging last, and by the shipped imputer, by name."""
    images, mask, imputer = torch.from_numpy(y), torch.from_numpy(seen)[None, None], load_imputer()
    plain = [fill(images, mask).numpy() for fill in (linear(), biharmonic, imputer.kriging)]
    with torch.no_grad():
        members = torch.cat([imputer.members(part, mask) for part in images.split(64)], dim=1)
    shipped = dict(zip(SHIPPED, (members.mean(0), members[0]), strict=True))
    return plain, {n: keep_observed(x, images, mask).numpy() for n, x in shipped.items()}


def others(result: dict, folder: str, same: bool) -> list[str]:
    """Return what a folder is like, of `compare_folders`; same: in every bit, else nearly."""
    names = [
        name
        for pair in result["pairs"]
        if folder in pair["dirs"] and (pair["identical"] == pair["images"]) == same
        for name in pair["dirs"]
        if name != folder
    ]
    return names + ([PLAIN] if folder in result["plain"] and not same else [])


def as_text(result: dict) -> str:
    """Return what `compare_folders` returned as text: a line for each pair."""
    lines = []
    if result["pairs"]:
        lines.append("same or nearly the same filled pixels, the reason is not known; look:")
    for pair in result["pairs"]:
        counts = "{alike} of {images} images, to the bit in {identical}".format(**pair)
        lines.append(f"  {' and '.join(pair['dirs'])}: {counts}")
    if result["plain"]:
        lines.append("filled without a network, which is the same for everybody, or not at all:")
        lines.append(f"  {', '.join(result['plain'])}")
    if result["not_compared"]:
        lines.append("not compared:")
        lines += [f"  {folder}: {why}" for folder, why in result["not_compared"].items()]
    return "\n".join(lines)
