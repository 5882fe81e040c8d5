"""Which submissions hold the same, or nearly the same, filled pixels: where to look, no verdict.

Networks that learn the same task agree on most of what they fill; what tells them apart is what is
left when everything that needs no network is taken away. So, image by image, the hole pixels of a
submission are fitted by what anybody gets from the observed pixels: a constant, linear, biharmonic
and kriging interpolation and the square of the last. Changes of intensity, and blends with such
fillings, vanish with the fit. The rest of one submission is then correlated with the rest of the
other *at the neighbouring hole pixels*: noise and rounding, which know nothing of their neighbours,
cancel on both sides. 1 - correlation is the distance of two fillings of one image.

Measured on the stand-in and on the course's file, the lower quartile over the images, in brackets
the least of them: networks that differ by their seeds 0.011 [0.005]; one of three and the mean of
all three 0.004 [0.002], which is by its variance what two independent means of three would have;
after the short training of the smoke profile 0.044 [0.021]. A copy in other clothes: rounded to 8
bits, rescaled, with white noise of up to 0.03, seven tenths of interpolation: below 0.0001; a fifth
of another network 0.0005, a third 0.0012; a slight blur up to 0.0009; a gamma of 1.1 0.0012. Not
recognised: a gamma of 1.3, half of another network, noise stronger than the filling's own errors.

A filling that the fit explains (kriging with whatever covariance) is the same for everyone who
makes it; it is named, and compared with nobody. Fast: all pairs of an image are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.masks import shared_mask
from nogaps.runtime.files import BadInput, load_images, load_npy, sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.findings import printable
from nogaps.submission.holes import box_sum

NEAR = 0.0015  # distance below which two fillings of an image are alike
QUARTER = 0.25  # share of the images that must be alike, unless one is identical
STEADY = 0.75  # least correlation of pixel with pixel: with more noise an image tells nothing
EXPLAINED = 0.003  # share of the variance beyond which a filling is more than interpolation
PLAIN = "(interpolation)"  # in the place of another submission
SHIPPED = {"best": "nogaps fill", "fast": "nogaps fill --quality fast"}  # what anybody can run


@dataclass(frozen=True)
class Likeness:
    """How S fillings of N images resemble each other; all but `plain` are (S,S), symmetric.

    identical, alike: images with the same bits in the holes, and with a distance below NEAR.
    compared: images that tell. rms: over all hole pixels, in the units of the images. plain: (S,)
    bool, where interpolation explains nearly every image.
    """

    identical: np.ndarray
    alike: np.ndarray
    compared: np.ndarray
    rms: np.ndarray
    plain: np.ndarray

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs to look at: with an identical image, or with a quarter of the images alike."""
        found = self.identical > 0
        found |= (self.alike >= QUARTER * self.compared) & (self.compared > 0)
        found &= ~self.plain[:, None] & ~self.plain
        return [(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(found, 1)), strict=True)]


def compare_fillings(
    fillings: Sequence[np.ndarray], interpolations: Sequence[np.ndarray], mask: np.ndarray
) -> Likeness:
    """Compare fillings (N,1,H,W) of the same images, pair by pair; they may be memory-mapped.

    interpolations: (N,1,H,W) each, what needs no network, at least one. mask: (H,W) bool, True =
    observed. Holds the hole pixels of one image at a time. NaN: that image tells nothing.
    """
    count = len(fillings)
    identical, alike, compared = (np.zeros((count, count), int) for _ in range(3))
    squares, told, plain = np.zeros((count, count)), np.zeros((count, count)), np.zeros(count)
    for k in range(len(interpolations[0])):
        values = _holes(fillings, k, mask)
        finite = np.isfinite(values).all(1)
        values[~finite] = 0
        rest, explained = _rest(values, _holes(interpolations, k, mask))
        plain += explained & finite
        tells = finite & ~explained
        both = tells[:, None] & tells
        numbers: dict[bytes, int] = {}
        same = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in values])
        distance = _distance(rest, mask)
        identical += both & (same[:, None] == same)
        alike += both & ((distance < NEAR) | (same[:, None] == same))
        compared += both
        products = values @ values.T
        size = np.diag(products)
        squares += np.maximum(size[:, None] + size - 2 * products, 0) * (finite[:, None] & finite)
        told += finite[:, None] & finite
    rms = np.sqrt(squares / np.maximum(told * np.count_nonzero(~mask), 1))
    mostly = plain > (1 - QUARTER) * np.diag(told)
    return Likeness(identical, alike, compared, rms, mostly)


def _holes(images: Sequence[np.ndarray], k: int, mask: np.ndarray) -> np.ndarray:
    """Hole pixels (S,P) float64 of image k of each, as float32 has them."""
    with np.errstate(over="ignore"):
        return np.stack([one[k, 0][~mask].astype(np.float32) for one in images]).astype(np.float64)


def _rest(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the interpolations (K,P) leave of values (S,P), and where that is next to nothing."""
    basis = np.concatenate([np.ones_like(known[:1]), known, known[-1:] ** 2])
    q, r = np.linalg.qr(basis.T)
    kept = np.abs(np.diag(r)) > 1e-9 * np.abs(np.diag(r)).max()
    rest = values - (values @ q[:, kept]) @ q[:, kept].T
    around = values - values.mean(1, keepdims=True)
    return rest, (rest**2).sum(1) <= EXPLAINED * (around**2).sum(1)


def _distance(rest: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """1 - correlation of each row (S,P) with the others at the neighbouring hole pixels, (S,S).

    Infinite where noise, or too little agreement of neighbours, lets nothing be said.
    """
    pages = np.zeros((len(rest), *mask.shape))
    pages[:, ~mask] = rest
    beside = (box_sum(pages, 1) - pages)[:, ~mask]
    steady = _correlation(rest @ rest.T) >= STEADY
    return np.where(steady, 1 - _correlation(rest @ beside.T), math.inf)


def _correlation(products: np.ndarray) -> np.ndarray:
    """Products (S,S) divided by the roots of the diagonal's; -1 where these are not positive."""
    own = np.where(np.diag(products) > 0, np.diag(products), math.inf)
    found = products / np.sqrt(own[:, None] * own)
    return np.where(np.isinf(own[:, None] + own), -1, found)


def compare_folders(
    folders: Sequence[str | Path], test_set: str | Path | None = None
) -> dict[str, object]:
    """Which submissions, and the shipped imputer, fill alike: for `nogaps check` of several.

    test_set: for all of them, else each folder's own; those with equal ones are compared. Returns
    "pairs": {"dirs": [two], "identical", "alike", "images": numbers of images, "rms"}; "plain":
    folders filled without a network; "not_compared": {folder: why}. A name of SHIPPED stands for
    what the imputer of this package gives. An array of another type or range is compared all the
    same, up to an affine change; one of another number of values is not.
    """
    found: dict[str, object] = {"pairs": [], "plain": [], "not_compared": {}}
    sets: dict[str, tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = {}
    for folder in dict.fromkeys(map(str, folders)):
        try:
            source = Path(test_set) if test_set else Path(folder) / "test_set.npy"
            if (digest := sha256(source)) not in sets:
                y = load_images(source)
                sets[digest] = (y, shared_mask(y, str(source)), {})
            y, _, arrays = sets[digest]
            arrays[folder] = _read(Path(folder) / RESULT, y)
        except (BadInput, OSError, ValueError) as error:
            text = str(error).removeprefix(f"{Path(folder) / RESULT}: ")
            found["not_compared"][folder] = printable(text, 160)
    for y, mask, arrays in sets.values():
        if len(arrays) > 0:
            _compare(y, mask, arrays, found)
    return found


def _read(path: Path, y: np.ndarray) -> np.ndarray:
    """A result with the axes of y, memory-mapped. Raises BadInput if it cannot be compared."""
    x = load_npy(path, mmap=True)
    if x.dtype.kind not in "fiu" or x.size != y.size or x.shape[0] != len(y):
        raise BadInput(f"{path}: {x.dtype} of shape {x.shape}, expected float32 of {y.shape}")
    return x.reshape(y.shape)


def _compare(y: np.ndarray, mask: np.ndarray, arrays: dict[str, np.ndarray], found: dict) -> None:
    interpolations, shipped = _references(y, mask)
    named = {**arrays, **shipped}
    names = list(named)
    likeness = compare_fillings([*named.values()], interpolations, mask)
    found["plain"] += [n for n, plain in zip(names, likeness.plain, strict=True) if plain]
    for a, b in likeness.pairs():
        if names[a] in arrays:  # the two qualities of one imputer are no news
            pair = {"dirs": [names[a], names[b]], "identical": int(likeness.identical[a, b])}
            pair |= {"alike": int(likeness.alike[a, b]), "images": len(y)}
            found["pairs"].append(pair | {"rms": float(likeness.rms[a, b])})


def _references(y: np.ndarray, seen: np.ndarray) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Fillings of y without a network, kriging last, and those of the shipped imputer by name."""
    import torch

    from nogaps.imputers.loading import load_imputer
    from nogaps.interpolation import biharmonic, keep_observed, linear

    images, mask = torch.from_numpy(y), torch.from_numpy(seen)[None, None]
    imputer = load_imputer()
    plain = [linear()(images, mask), biharmonic(images, mask)]
    plain.append(imputer.kriging(images, mask))
    with torch.no_grad():
        parts = [imputer.members(part, mask) for part in images.split(64)]
    members = torch.cat(parts, dim=1)
    shipped = {"best": members.mean(0), "fast": members[0]}
    return [part.numpy() for part in plain], {
        SHIPPED[quality]: keep_observed(x_hat, images, mask).numpy()
        for quality, x_hat in shipped.items()
    }


def others(found: dict, folder: str, same: bool) -> list[str]:
    """What a folder fills alike to, of `compare_folders`; same: in every bit, else nearly."""
    pairs = [pair for pair in found["pairs"] if folder in pair["dirs"]]
    names = [
        pair["dirs"][pair["dirs"][0] == folder]
        for pair in pairs
        if (pair["identical"] == pair["images"]) == same
    ]
    return names + ([PLAIN] if folder in found["plain"] and not same else [])


def as_text(found: dict) -> str:
    """What `compare_folders` found, for people: a line per group of submissions."""
    lines = []
    if found["pairs"]:
        lines.append("same or nearly the same filled pixels, the reason is not known; look:")
    for names in _groups(found["pairs"]):
        pairs = [pair for pair in found["pairs"] if pair["dirs"][0] in names]
        names.sort(key=lambda name: name in SHIPPED.values())  # submissions first
        identical, alike = (_span([pair[key] for pair in pairs]) for key in ("identical", "alike"))
        count, rms = pairs[0]["images"], max(pair["rms"] for pair in pairs)
        how = f"the same in all {count} images"
        if identical != f"{count}":
            how = f"nearly or quite the same in {alike} of {count} images, to the bit in "
            how += f"{identical}; RMS difference, as stored, up to {rms:.4f}"
        lines.append(f"  {', '.join(names)}: {how}")
    if found["plain"]:
        lines.append("filled without a network, which is the same for everybody, or not at all:")
        lines.append(f"  {', '.join(found['plain'])}")
    if found["not_compared"]:
        lines.append("not compared:")
        lines += [f"  {folder}: {why}" for folder, why in found["not_compared"].items()]
    return "\n".join(lines)


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _groups(pairs: Sequence[dict]) -> list[list[str]]:
    """Names that pairs connect, directly or through other submissions."""
    groups: list[list[str]] = []
    for pair in pairs:
        own = set(pair["dirs"]) - set(SHIPPED.values())
        joined = [group for group in groups if own & set(group)]
        groups = [group for group in groups if group not in joined]
        names = [name for group in joined for name in group] + pair["dirs"]
        groups.append(list(dict.fromkeys(names)))
    return groups
