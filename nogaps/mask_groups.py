"""What images of one mask have in common, and what tells two masks apart; used by masks.py.

Pixels are flat, (P,). A zero that lies amid bright pixels is hardly a true one; true zeros in the
dark may be many, and much the same in all images of a subject.
"""

from __future__ import annotations

import numpy as np

FEW = 4  # true zeros amid bright pixels that an image may have
MANY = 24  # true zeros from which on an image is unlike those that have FEW
KNOWN = 8  # images from which on a group is well known
TOGETHER = 0.5  # share of images with either of two odd zeros that have both: no chance
STREWN = 0.05  # share of the observed pixels on which lone true zeros lie, at least
REMEMBERED = 512  # sets of odd zeros per group, and the most frequent pixels of these


def bright_zeros(images: np.ndarray) -> np.ndarray:
    """Zeros amid bright pixels: images (n,H,W), of any type and range, to bool (n,H,W).

    The nearest other values to the left and right, above and below are all at least the image's
    mean; if a whole row or column is zero, the other two.
    """
    seen = images != 0
    with np.errstate(all="ignore"):  # NaN and infinity are never bright
        values = np.abs(images.astype(np.float64))
        share = values / np.maximum(seen.sum((1, 2), keepdims=True), 1)
        bright = seen & (values >= share.sum((1, 2), keepdims=True) * (1 - 1e-6))
    left, up, right, down = (
        np.rot90(_nearest(*(np.rot90(a, turn, (1, 2)) for a in (seen, bright))), -turn, (1, 2))
        for turn in (0, 1, 2, 3)
    )
    across, along = left & right, up & down
    no_row, no_column = (~seen.any(axis, keepdims=True) for axis in (2, 1))
    return ~seen & (across & along | across & no_column | along & no_row)


def _nearest(seen: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Is the nearest seen pixel at or before each one, along the last axis, bright?"""
    place = 2 * np.arange(seen.shape[2], dtype=np.int32)
    return np.maximum.accumulate(np.where(seen, place + bright, 0), 2) % 2 == 1


class Batch:
    """Images (n,H,W) from index `start` on; their zeros (n,P) and, once looked at, bright ones."""

    def __init__(self, start: int, images: np.ndarray) -> None:
        self.start, self.images = start, images
        self.zero = (images == 0).reshape(len(images), -1)
        self.bright = np.zeros_like(self.zero)

    def look(self, which: np.ndarray) -> None:
        """Find the bright zeros of images (n,), by their place in the batch."""
        self.bright[which] = bright_zeros(self.images[which]).reshape(-1, self.zero.shape[1])

    def unlike(self, which: np.ndarray, group: Group) -> np.ndarray:
        """As `Group.unlike`, (n,), of each of these images by itself."""
        zero = self.zero[which]
        ours = np.count_nonzero(self.bright[which] & ~group.hole, axis=1)
        found = ours + np.count_nonzero(group.sure & ~zero, axis=1)
        if group.clean():
            differ = np.count_nonzero(zero ^ group.hole, axis=1)
            found = np.where(differ > MANY, differ, found)
        return found

    def near(self, which: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """Are the zeros of these images, but for a FEW, those of a hole? (n,)."""
        return np.count_nonzero(self.zero[which] ^ hole, axis=1) <= FEW

    def distinct(self, which: np.ndarray) -> int:
        """How many of these images are no copies."""
        return len({self.images[k].tobytes() for k in which[:REMEMBERED]})

    def odd(self, which: np.ndarray, group: Group) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Zeros that these images, by hash, have outside the hole of a group, if more than one.

        Of more than MANY, and of more than FEW, those that are bright.
        """
        extra = self.zero[which] & ~group.hole
        total = np.count_nonzero(extra, axis=1)
        bright = extra & self.bright[which]
        loose, strict = (np.where((total > most)[:, None], bright, extra) for most in (MANY, FEW))
        several = np.flatnonzero(np.count_nonzero(loose, axis=1) > 1)[:REMEMBERED]
        return {
            hash(self.images[which[k]].tobytes()): (
                np.flatnonzero(loose[k]),
                np.flatnonzero(strict[k]),
            )
            for k in several
        }


class Group:
    """Images taken to share one mask.

    members: their indices; hole: zero in all of them; sure: of these, bright zeros of some; zeros:
    images with a zero at each pixel; odd: sets of further zeros of some images, without copies;
    torn: some showed several pixels that were missing before; equal: images that had all but FEW
    zeros in common when they were taken in.
    """

    def __init__(self, batch: Batch, which: np.ndarray) -> None:
        zero = batch.zero[which]
        self.members, self.count = [batch.start + which], len(which)
        self.hole, self.zeros = zero.all(0), zero.sum(0, np.int32)
        self.sure = batch.bright[which].any(0) & self.hole
        self.odd: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.until = self.zeros  # zeros of the images up to the last of odd
        self.torn = False
        self.equal = 0

    def add(self, other: Group, odd: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Take in another group, and sets of zeros of its images outside the hole of this one."""
        lost = np.count_nonzero((self.hole if self.clean() else self.sure) & ~other.hole)
        self.equal += other.equal
        self.torn |= other.torn or (lost > 1 and self.count > 2)
        self.members += other.members
        self.count += other.count
        self.hole &= other.hole
        self.sure = (self.sure | other.sure) & self.hole
        self.zeros = self.zeros + other.zeros
        if len(self.odd) < REMEMBERED:
            self.odd |= odd
            self.until = self.zeros

    def first(self) -> int:
        """The first of the images."""
        return min(int(part.min()) for part in self.members)

    def clean(self) -> bool:
        """Is it well known that the images have few true zeros?"""
        return self.equal >= max(KNOWN, self.count / 4)

    def unlike(self, other: Group) -> int:
        """In how many pixels the masks differ: by bright zeros; by all, if these are telling."""
        differ = int(np.count_nonzero(self.hole ^ other.hole))
        if (self.equal and other.equal) or (differ > MANY and (self.clean() or other.clean())):
            return differ
        return self.contrast(other)

    def contrast(self, other: Group) -> int:
        """Bright zeros of either that are observed in the other."""
        ours, theirs = self.sure & ~other.hole, other.sure & ~self.hole
        return int(np.count_nonzero(ours) + np.count_nonzero(theirs))

    def chance(self) -> float:
        """How many true zeros to expect by chance in all images, judged by the others.

        As if each pixel were zero as often as it was. From three images on, pixels that were zero
        once are taken to be strewn over the darkest part of the images.
        """
        zeros, n = self.zeros[~self.hole], float(self.count)
        lone = np.count_nonzero(zeros == 1)
        single = lone * n**-n
        if n > 2:
            single = min(single, lone / n * (lone / (n * STREWN * max(1, zeros.size))) ** (n - 1))
        return single + float(((zeros[zeros > 1] / n) ** n).sum())

    def recurs(self) -> bool:
        """Are pixels zero together in some images, and hardly ever one without the other?"""
        odd = [loose if self.clean() else strict for loose, strict in self.odd.values()]
        total = np.bincount(np.concatenate([[], *odd]).astype(int), minlength=len(self.hole))
        often = np.argsort(-total, kind="stable")[:REMEMBERED]
        rows = np.array([np.isin(often, pixels) for pixels in odd], float).reshape(-1, len(often))
        together = rows.T @ rows
        either = self.until[often][:, None] + self.until[often] - together
        np.fill_diagonal(together, 0)
        return self.torn or bool(((together > 2) & (together >= TOGETHER * either)).any())
