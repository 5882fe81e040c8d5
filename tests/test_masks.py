"""Mask inference: exact on generated files of one to four masks, or refused; never wrong."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nogaps import masks, standin, submission, training
from nogaps.evaluation import scoring
from nogaps.filling.files import fill_file
from nogaps.interpolation import linear
from nogaps.mask_groups import bright_zeros
from nogaps.masks import find_masks, shared_mask
from nogaps.runtime.errors import BadInput

CLEAN, COURSE = standin.clean_images()[:, 0], standin.course_mask()
DENSE, ENOUGH = ("noise", "clipped"), {"noise": 20, "clipped": 32}  # images that suffice; else 3


@dataclass(frozen=True)
class File:
    """Corrupted images y (N,H,W), the masks (G,H,W), whose is which (N,), and what else is so."""

    y: np.ndarray
    masks: np.ndarray
    index: np.ndarray
    kind: str
    blank: bool

    def thin(self) -> str:
        """Why the masks cannot be found, or "" if they can."""
        groups = [(self.y[self.index == g] == 0, ~mask) for g, mask in enumerate(self.masks)]
        if self.blank:
            return "a blank image"
        if any(len(zero) == 1 and zero.any() for zero, _ in groups):
            return "an image alone"
        if any(len(zero) == 2 and (zero[0] != zero[1]).any() for zero, _ in groups):
            return "two images that differ"
        if any((zero.all(0) != hole).any() for zero, hole in groups):
            return "true zeros in common"
        few = min(len(zero) for zero, _ in groups if zero.any())
        return "few images with many true zeros" if few < ENOUGH.get(self.kind, 2) else ""


def one_mask(rng: np.random.Generator) -> np.ndarray:
    i, j = np.mgrid[:64, :64]
    share, period = rng.uniform(0.1, 0.6), rng.integers(3, 9)
    blocks = np.ones((64, 64), bool)
    for _ in range(rng.integers(2, 9)):
        top, left, height, width = *rng.integers(8, 48, 2), *rng.integers(4, 16, 2)
        blocks[top : top + height, left : left + width] = False
    stripes = (i * rng.integers(-3, 4) // 2 + j) % period >= rng.integers(1, period - 1)
    rows = np.broadcast_to(rng.random((64, 1)) > share, (64, 64))
    spots = rng.random((64, 64)) > share
    kinds = [COURSE, COURSE.T, COURSE[:, ::-1], stripes, rows, rows.T, blocks, spots]
    return np.array(kinds[rng.integers(len(kinds))])


def some_masks(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Different in 64 pixels at least; a quarter of them lie within another one."""
    made = [one_mask(rng)]
    while len(made) < count:
        new = one_mask(rng)
        if rng.random() < 0.25:
            new &= made[rng.integers(len(made))]
        if all((new != mask).sum() >= 64 for mask in made):
            made.append(new)
    return made


def complete(rng: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """Heads (N,64,64), up to two true zeros anywhere in each, and those that `kind` makes."""
    order = np.concatenate([rng.permutation(100) for _ in range(count // 100 + 1)])[:count]
    x = CLEAN[order][:, :, :: rng.choice([1, -1])]
    if kind == "noise":
        x = np.clip(x + rng.normal(0, rng.uniform(0.002, 0.03), x.shape), 0, 1)
    if kind == "clipped":  # 8 bits, much of the background 0
        x = np.clip(x - rng.uniform(0.002, 0.006), 0, 1)
    if kind in ("rounded", "uint8", "clipped"):
        x = np.round(255 * x) / (1 if kind != "rounded" else 255)
    x = x.astype(np.uint8 if kind in ("uint8", "clipped") else np.float32)
    for image, zeros in zip(x, rng.integers(0, 3, count), strict=True):
        image.flat[rng.integers(0, image.size, zeros)] = 0
    return x


def outlier(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    top = 255 if x.dtype.kind == "u" else 1
    constant, saturated = np.full(x.shape, top / 2), np.clip(4.0 * x, 0, top)
    return [constant, saturated, rng.uniform(0.01 * top, top, x.shape)][rng.integers(3)]


def generate(seed: int) -> File:
    rng = np.random.default_rng(seed)
    made = some_masks(rng, rng.integers(1, 5))
    most = rng.choice([4, 120, *[40] * 8], len(made))
    index = np.repeat(np.arange(len(made)), [rng.integers(1, m + 1) for m in most])
    if rng.random() < 0.2:
        index = np.append(index, [len(made)] * rng.integers(1, 5))
        made.append(np.ones((64, 64), bool))
    if rng.random() < 0.6:
        rng.shuffle(index)
    kind = str(rng.choice(["float", "float", "rounded", "uint8", *DENSE]))
    x = complete(rng, len(index), kind)
    if rng.random() < 0.3:
        for k in rng.choice(len(x), min(len(x), 3), replace=False):
            x[k] = outlier(rng, x[k])
    y = np.where(np.stack(made)[index], x, 0).astype(x.dtype)
    blank = rng.random() < 0.03
    if blank:
        y[rng.integers(len(y))] = 0
    return File(y, np.stack(made), index, kind, bool(blank))


def verdict(file: File) -> str:
    try:
        found = find_masks(file.y, "y.npy")
    except BadInput as error:
        assert str(error).startswith("y.npy: ") and "--mask" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 160
        return f"refused: {file.thin()}" if file.thin() else "refused in vain"
    right = np.array_equal(found.masks[found.index], file.masks[file.index])
    return "exact" if right else "wrong"


def verdicts(seeds: range) -> Counter[str]:
    found = {seed: verdict(generate(seed)) for seed in seeds}
    bad = {seed: text for seed, text in found.items() if text in ("wrong", "refused in vain")}
    counts = Counter(found.values())
    print(dict(counts), bad)
    assert not counts["wrong"], bad
    return counts


def test_generated_files() -> None:
    counts = verdicts(range(60))
    assert counts["refused in vain"] <= 1
    assert counts["exact"] >= 30


@pytest.mark.slow
def test_a_thousand_generated_files() -> None:
    counts = verdicts(range(1000))
    assert counts["refused in vain"] <= 10
    assert counts["exact"] >= 500


def holed(*groups: tuple[int, np.ndarray]) -> np.ndarray:
    """Heads, as many with each mask as said."""
    seen = np.repeat([mask for _, mask in groups], [count for count, _ in groups], axis=0)
    return CLEAN[: len(seen)] * seen


def with_zeros(images: np.ndarray, *places: tuple[int | slice, ...]) -> np.ndarray:
    images = images.copy()
    for place in places:
        images[place] = 0
    return images


BLOCK, CORNER = COURSE.copy(), COURSE.copy()
BLOCK[28:36, 28:36] = False
CORNER[:8, :8] = False
TINY = COURSE.copy()
TINY[31, 27:33] = False
NO_ZEROS = np.flatnonzero((CLEAN != 0).all((1, 2)))
OWN = np.random.default_rng(0).random((40, 64, 64)) > 0.5
THIN: dict[str, tuple[np.ndarray, str]] = {
    "one image": (holed((1, COURSE)), "one image"),
    "a blank image": (with_zeros(holed((9, COURSE)), (4,)), "image 4 is zero"),
    "a mask that one image has": (holed((9, COURSE), (1, COURSE.T)), "zeros of image 9"),
    "one complete image with a zero": (
        with_zeros(holed((9, COURSE), (1, COURSE | True)), (9, 5, 5)),
        "zeros of image 9",
    ),
    "each its own": (CLEAN[:20] * OWN[:20], "zeros of image 0"),
    "each of too many its own": (CLEAN[:40] * OWN, "more than 32"),
    "two images with true zeros": (
        with_zeros(CLEAN[NO_ZEROS[:2]] * COURSE, (0, 0, 0), (1, 0, 1)),
        "images like image 0 have so many true zeros",
    ),
    "zeros in all but one": (
        with_zeros(holed((9, COURSE)), *((k, 0, 0) for k in range(8))),
        "so many true zeros",
    ),
    "a zero background": (np.where(CLEAN > 0.05, CLEAN, 0)[:20] * COURSE, "so many true zeros"),
    "masks that differ in six pixels": (holed((9, COURSE), (9, TINY)), "hardly differ"),
    "masks that differ in the dark": (holed((20, COURSE), (20, CORNER)), "hardly differ"),
}


@pytest.mark.parametrize("case", list(THIN))
def test_thin_evidence_asks_for_a_mask(case: str) -> None:
    images, expected = THIN[case]
    with pytest.raises(BadInput) as refused:
        find_masks(images, "y.npy")
    assert expected in str(refused.value) and "--mask" in str(refused.value)


@pytest.mark.parametrize(
    ("counts", "seen"),
    [
        ((9, 9), (BLOCK, COURSE)),
        ((9, 9), (COURSE, BLOCK)),
        ((3, 3, 3), (COURSE, COURSE.T, COURSE[:, ::-1])),
        ((1,) * 16, (COURSE, COURSE.T) * 8),
        ((9, 1, 9), (COURSE, COURSE | True, COURSE.T)),
    ],
    ids=["around", "within", "three each", "in turn", "one complete"],
)
@pytest.mark.parametrize("scale", [1, -1e6, 1e-30, "uint8", ">i2"])
def test_masks_of_images_of_any_type(
    counts: tuple[int, ...], seen: tuple[np.ndarray, ...], scale: float | str
) -> None:
    each = np.repeat(seen, counts, axis=0)
    y = np.where(each, np.maximum(CLEAN[: len(each)], 0.003), 0)
    y = np.round(255 * y).astype(scale) if isinstance(scale, str) else y * scale
    found = find_masks(y[:, None])
    assert np.array_equal(found.masks[found.index], each)
    assert len(found.masks) == len({mask.tobytes() for mask in seen})
    assert np.array_equal(sorted(set(found.index)), list(dict.fromkeys(found.index)))


def test_two_images_that_agree_are_enough() -> None:
    found = find_masks(CLEAN[NO_ZEROS[:2]] * COURSE)
    assert np.array_equal(found.masks, COURSE[None])


def test_masks_are_found_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    y = holed((20, COURSE), (3, BLOCK), (20, COURSE.T), (12, COURSE))
    whole = find_masks(y)
    monkeypatch.setattr(masks, "PIXELS", 5 * 64 * 64)
    parts = find_masks(y)
    assert np.array_equal(parts.index, [0] * 20 + [1] * 3 + [2] * 20 + [0] * 12)
    assert np.array_equal(parts.index, whole.index) and np.array_equal(parts.masks, whole.masks)
    assert [len(parts.of(*at)) for at in ((0, 20), (19, 2), (20, 3))] == [1, 2, 1]


def test_bright_zeros_lie_between_bright_pixels() -> None:
    image = np.array([[9, 9, 9, 1, 1], [9, 0, 9, 1, 0], [9, 9, 9, 0, 1], [0, 0, 0, 0, 0], [9] * 5])
    expected = np.zeros((5, 5), bool)
    expected[1, 1] = expected[3, :3] = True
    assert np.array_equal(bright_zeros(image[None])[0], expected)
    for turned in (image.T, image[::-1], image[:, ::-1]):
        assert bright_zeros(turned[None]).sum() == 4


@pytest.mark.slow
def test_a_large_file_takes_little_memory_and_time() -> None:
    y = np.tile(CLEAN * COURSE, (10, 1, 1))
    tracemalloc.start()
    started = time.process_time()
    found = masks._find("y", (100_000, 64, 64), lambda start, stop: y[: stop - start])
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{100_000 / seconds:.0f} images/s, {peak >> 20} MiB")
    assert np.array_equal(found.masks, COURSE[None])
    assert seconds < 20 and peak < 100 << 20


def test_each_image_is_filled_in_its_own_hole(
    tmp_path: Path, nogaps: Callable[..., object]
) -> None:
    seen = np.repeat([COURSE, COURSE.T, COURSE[:, ::-1]], [5, 4, 4], axis=0)
    order = np.random.default_rng(0).permutation(len(seen))
    truth = np.maximum(CLEAN[: len(seen)], 1e-3)[order][:, None]
    y = np.where(seen[order][:, None], truth, 0)
    np.save(tmp_path / "y.npy", y)
    done = nogaps("fill", tmp_path / "y.npy", "-o", tmp_path / "x.npy", "--json")
    assert done.returncode == 0, done.stderr
    report, x_hat = json.loads(done.stdout), np.load(tmp_path / "x.npy")
    assert report["masks"] == 3 and report["missing_pixels"] == (y == 0).sum()
    assert x_hat[y != 0].tobytes() == y[y != 0].tobytes()
    assert np.sqrt(((x_hat - truth)[y == 0] ** 2).mean()) < 0.1


def test_complete_images_come_back_as_they_are(tmp_path: Path) -> None:
    seen = np.repeat([COURSE, COURSE | True, COURSE.T], [5, 1, 4], axis=0)
    y = np.where(seen, np.maximum(CLEAN[: len(seen)], 1e-3), 0)
    np.save(tmp_path / "y.npy", y)
    report = fill_file(tmp_path / "y.npy", tmp_path / "x.npy", linear(), progress=False)
    x_hat = np.load(tmp_path / "x.npy")
    assert report.masks == 3 and np.array_equal(x_hat[5], y[5])
    assert (x_hat[y == 0] > 0).all() and np.array_equal(x_hat[y != 0], y[y != 0])


def test_one_mask_is_asked_for_where_only_one_is_used(tmp_path: Path) -> None:
    both = np.where(np.arange(40)[:, None, None] % 2, COURSE, COURSE.T)
    y, x = tmp_path / "y.npy", tmp_path / "x.npy"
    np.save(x, CLEAN[:40, None])
    np.save(y, (CLEAN[:40] * both)[:, None])
    for call in (
        lambda: scoring.score_files(x, x, y),
        lambda: training.train_imputer(x, y, tmp_path / "run", "smoke"),
        lambda: submission.check_submission(tmp_path, y),
    ):
        with pytest.raises(BadInput, match=r"y\.npy: holds 2 different masks, expected one"):
            call()
    assert not (tmp_path / "run").exists()
    assert np.array_equal(shared_mask((CLEAN * COURSE)[:, None]), COURSE)
