"""Find the masks of a file of corrupted images whose missing pixels are zero.

The zeros of one image are its missing pixels and its true zeros. Images with the same mask share
all of the former and few of the latter: a mask is what is zero in every image of a group. Nothing
is assumed of its shape, and nothing is guessed: thin evidence is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nogaps.images.arrays import ImageSource
from nogaps.mask_groups import FEW, KNOWN, Batch, Group
from nogaps.runtime.errors import BadInput

APART = 3 * FEW  # bright zeros in which two masks differ, or they cannot be told apart
CHANCE = 0.05  # true zeros that may be expected, by chance, in all images of a group
MOST = 32  # groups
PIXELS = 1 << 20  # read at a time
ASK = "expected a mask (--mask MASK.npy)"


@dataclass(frozen=True)
class Masks:
    """masks: (G,H,W) bool, True = observed, by first image; index: (N,) int, whose is which."""

    masks: np.ndarray
    index: np.ndarray

    def of(self, start: int, count: int) -> np.ndarray:
        """Masks of `count` images from `start` on: (count,H,W), or (1,H,W) if they are the same."""
        index = self.index[start : start + count]
        return self.masks[index[:1] if (index == index[0]).all() else index]


def find_masks(images: np.ndarray, name: str = "images") -> Masks:
    """Masks of images (N,H,W) or (N,1,H,W) of any type and range, whose missing pixels are zero.

    A pixel is missing where it is zero in every image with the same mask; a true zero that all of
    them have cannot be told from it and counts as missing. Images without zeros are complete. Two
    images make a group if their zeros agree exactly; with true zeros it takes more: three if they
    are few, about 20 if half of a dark background is zero. Masks that differ in up to four pixels,
    or only where images are dark and full of true zeros, may pass for one: what all of them lack.

    Raises BadInput, a line that begins with `name`, where the evidence is too thin: one image, an
    image that is zero everywhere, shares its mask with no other or fits two, masks that hardly
    differ, true zeros that may well be common to a group, more than 32 masks.

    >>> images = np.ones((4, 8, 8))
    >>> images[:, 2] = 0  # a row is missing
    >>> images[1, 5, 5] = 0  # a true zero
    >>> found = find_masks(images)
    >>> found.masks.shape, int((~found.masks).sum()), found.index.tolist()
    ((1, 8, 8), 8, [0, 0, 0, 0])
    """
    images = images.reshape(-1, *images.shape[-2:])
    return _find(name, images.shape, lambda start, stop: images[start:stop])


def find_masks_in(
    source: ImageSource, watch: Callable[[int, np.ndarray], None] | None = None
) -> Masks:
    """As `find_masks`, for an open file, which is read once, in constant memory.

    watch(start, images (n,H,W)) sees all that is read, in order. Raises BadInput also if
    stored zeros stand for other values.
    """
    if source.zero:
        why = f"stored zeros stand for {source.zero:g}, not for 0"
        raise BadInput(f"{source.path}: {why}; {ASK}")

    def read(start: int, stop: int) -> np.ndarray:
        images = source.read(start, stop)
        if watch is not None:
            watch(start, images)
        return images

    return _find(str(source.path), source.shape, read)


def shared_mask(y: np.ndarray, name: str = "test set") -> np.ndarray:
    """The one mask (H,W) bool of all images (N,1,H,W), True = observed.

    The coursework's rule: missing is what is zero in every image. Raises BadInput, a line that
    begins with `name`, for another shape, if nothing or everything is missing, or if the images
    have several masks, for the rule would then find only what all of them lack.
    """
    if y.ndim != 4 or y.shape[1] != 1 or 0 in y.shape:
        raise BadInput(f"{name}: has shape {y.shape}, expected (N, 1, H, W)")
    mask = (y != 0).any((0, 1))
    if mask.all() or not mask.any():
        found = f"{int(mask.sum())} of {mask.size} pixels observed"
        raise BadInput(f"{name}: {found}, expected some missing (0 in every image) and some not")
    try:
        count = len(find_masks(y).masks)
    except BadInput:  # too little to tell masks apart: nothing speaks against one
        count = 1
    if count > 1:
        raise BadInput(f"{name}: holds {count} different masks, expected one for all images")
    return mask


def _find(name: str, shape: tuple[int, ...], read: Callable[[int, int], np.ndarray]) -> Masks:
    count, height, width = shape
    if count == 1:
        why = "the evidence is too thin, zeros of one image may be true zeros"
        raise BadInput(f"{name}: holds one image: {why}; {ASK}")
    search, step = _Search(name), max(1, PIXELS // (height * width))
    for start in range(0, count, step):
        search.add(start, read(start, min(start + step, count)))
    groups, index = search.finish(), np.empty(count, np.int32)
    for k, group in enumerate(groups):
        index[np.concatenate(group.members)] = k
    return Masks(~np.stack([group.hole for group in groups]).reshape(-1, height, width), index)


class _Search:
    """Groups the images of one file, batch by batch."""

    def __init__(self, name: str) -> None:
        self.name, self.groups = name, list[Group]()

    def add(self, start: int, images: np.ndarray) -> None:
        """Find a group for each of images (n,H,W), those with the fewest zeros first."""
        batch = Batch(start, images)
        total = np.count_nonzero(batch.zero, axis=1)
        if total.max() == batch.zero.shape[1]:
            self._refuse(f"every pixel of image {start + int(total.argmax())} is zero")
        left = np.argsort(total, kind="stable")
        for group in self.groups:
            left = self._take_equal(batch, left, group)
        left = self._take_new(batch, left, total[left])
        batch.look(left)
        for group in self.groups:
            left = self._take_alike(batch, left, group)
        while len(left):
            group = self._place(batch, left[:1])
            left = self._take_alike(batch, left[1:], group)

    def _take_new(self, batch: Batch, left: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Found a group of any images with nearly the same zeros; the others are left."""
        apart = np.zeros(len(left), bool)
        while not apart.all():
            k = int(apart.argmin())
            similar = np.flatnonzero(~apart & (np.abs(total - total[k]) <= FEW))
            near = similar[batch.near(left[similar], batch.zero[left[k]])]
            apart[k] = True
            if batch.distinct(left[near]) > 2:
                batch.look(left[near[:KNOWN]])
                group = Group(batch, left[near])
                group.equal, group.odd = len(near), batch.odd(left[near], group)
                self._found(group)
                rest = self._take_equal(batch, np.delete(left, near), group)
                kept = np.isin(left, rest)
                left, total, apart = left[kept], total[kept], apart[kept]
        return left

    def _take_equal(self, batch: Batch, left: np.ndarray, group: Group) -> np.ndarray:
        """Put images whose zeros are nearly the hole of a group into it; the others are left."""
        near = batch.near(left, group.hole)
        if near.any():
            batch.look(left[near][: max(0, KNOWN - group.count)])
            found = Group(batch, left[near])
            found.equal = found.count
            group.add(found, batch.odd(left[near], group))
        return left[~near]

    def _take_alike(self, batch: Batch, left: np.ndarray, group: Group) -> np.ndarray:
        """Put images that fit this group, if it is well known, and no other into it."""
        if group.count < KNOWN or not len(left):
            return left
        fits = batch.unlike(left, group) <= FEW
        for other in self.groups:
            if other is not group and fits.any():
                fits[fits] = batch.unlike(left[fits], other) > FEW
        if fits.any():
            group.add(Group(batch, left[fits]), batch.odd(left[fits], group))
        return left[~fits]

    def _place(self, batch: Batch, one: np.ndarray) -> Group:
        """Put one image into the group that it fits, or into a new one."""
        found = Group(batch, one)
        fits = self._joined([group for group in self.groups if group.unlike(found) <= FEW])
        if len(fits) > 1:
            self._refuse(f"the zeros of image {found.first()} fit two masks")
        if fits:
            fits[0].add(found, batch.odd(one, fits[0]))
            return fits[0]
        self._found(found)
        return found

    def _found(self, group: Group) -> None:
        self.groups.append(group)
        if len(self.groups) > MOST:
            self._refuse(f"there seem to be more than {MOST} masks")

    def _joined(self, groups: list[Group]) -> list[Group]:
        """What is left of the groups when those that fit each other are put together."""
        kept: list[Group] = []
        for group in groups:
            same = next((other for other in kept if other.unlike(group) <= FEW), None)
            if same is None:
                kept.append(group)
            else:
                same.add(group, group.odd)
                self.groups.remove(group)
        return kept

    def finish(self) -> list[Group]:
        """The groups, by first image, if the evidence suffices for each."""
        groups = sorted(self._joined(list(self.groups)), key=Group.first)
        for group in groups:
            image = f"image {group.first()}"
            if group.count == 1 and group.hole.any():
                self._refuse(f"no other image has the zeros of {image}, some may be true zeros")
            if group.chance() > CHANCE:
                self._refuse(f"images like {image} have so many true zeros that some may be common")
            if group.recurs():
                self._refuse(f"images like {image} have two masks that hardly differ")
        if any(a.contrast(b) < APART for a, b in combinations(groups, 2)):
            self._refuse("some images have masks that hardly differ")
        return groups

    def _refuse(self, why: str) -> None:
        raise BadInput(f"{self.name}: {why}; {ASK}")
