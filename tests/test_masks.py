"""The mask of a file: exact where all images share one, refused where they do not; never wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mask_pairs
import numpy as np
import pytest
import torch
from mask_pairs import judged

from nogaps import masks, standin, submission, training
from nogaps.Assessment import find_mask
from nogaps.evaluation import scoring
from nogaps.filling.files import fill_file
from nogaps.images.arrays import open_npy
from nogaps.interpolation import linear
from nogaps.masks import MaskCheck, shared_mask, shared_mask_of
from nogaps.runtime.errors import BadInput

HIDDEN = ["blocks", "black background"]  # where a hole may lie and nothing shows
CLEAN, COURSE = standin.clean_images()[:, 0], standin.course_mask()
ROWS = np.broadcast_to(np.arange(64)[:, None] % 4 != 0, (64, 64))
MASKS = {
    "the course's": COURSE,
    "shifted": np.roll(COURSE, (5, 3), (0, 1)),
    "mirrored": COURSE[:, ::-1],
    "transposed": COURSE.T,
    "random half": np.random.default_rng(0).random((64, 64)) < 0.5,
    "every 4th row": ROWS,
    "every 4th column": ROWS.T,
}


def clipped(x: np.ndarray) -> np.ndarray:
    """Heads of 8 bits, whose background is 0 for the most part."""
    return np.round(255 * np.clip(x - 0.004, 0, 1)).astype(np.uint8)


def with_zeros(x: np.ndarray, each: int = 2) -> np.ndarray:
    """Heads with so many true zeros anywhere in each."""
    x, rng = x.copy(), np.random.default_rng(0)
    for image in x:
        image.flat[rng.integers(0, image.size, each)] = 0
    return x


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": np.copy,
    "true zeros": with_zeros,
    "zero background": lambda x: np.where(x > 0.1, x, 0),
    "clipped to 8 bits": clipped,
    "16 bits, big-endian": lambda x: np.round(4095 * x + 1).astype(">i2"),
    "tiny and negative": lambda x: (x + 0.01) * -1e-30,
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_mask(name: str, kind: str) -> None:
    """What is zero in every image is missing; nothing else is. A wide background is refused."""
    x, mask = KINDS[kind](CLEAN), MASKS[name]
    y = np.where(mask, x, 0).astype(x.dtype)
    if kind == "zero background":
        with pytest.raises(BadInput, match=r"zero in every image, expected lines or single pixels"):
            shared_mask(y[:, None])
        return
    expected = mask & (x != 0).any(0)
    assert np.array_equal(shared_mask(y[:, None]), expected)
    if kind != "clipped to 8 bits":
        assert np.array_equal(expected, mask)


def test_zeros_that_are_no_lines_are_refused() -> None:
    """Padding, cropped rows, wide gaps; thin lines of any direction and lone pixels are taken."""
    rows, columns = np.mgrid[:64, :64]
    plain = {
        "3 px of 12 at 30 degrees": (columns + rows * 0.577) % 12 >= 3,
        "5 px rows": rows % 16 >= 5,
        "4 px columns from the border on": columns % 9 >= 4,
        "a grid": (rows % 8 > 0) & (columns % 8 > 0),
        "nine tenths at random": np.random.default_rng(1).random((64, 64)) < 0.1,
    }
    for name, mask in plain.items():
        assert np.array_equal(shared_mask((CLEAN * mask)[:, None]), mask), name
    framed = {
        "8 outer columns": (columns >= 8) & (columns < 56),
        "2 outer rows": rows >= 2,
        "1 outer rows": rows < 63,
        "a region of 6×6 pixels": np.hypot(rows - 30, columns - 30) > 5,
    }
    for name, mask in framed.items():
        for lines in (COURSE, MASKS["random half"]):
            with pytest.raises(BadInput, match=f"{name}.* zero in every image, expected lines"):
                shared_mask((CLEAN * (mask & lines))[:, None])


@pytest.mark.parametrize("marker", [-1, 1.5, 255])
def test_another_marker_is_refused(marker: float) -> None:
    """Where a value that is not 0 repeats at the same pixels, it may be what is missing."""
    y = np.where(MASKS["shifted"], CLEAN, marker) * COURSE
    with pytest.raises(BadInput, match=f"holds {marker:g} at the same [0-9]+ pixels in every"):
        shared_mask(y[:, None])


@pytest.mark.parametrize(("count", "most"), [(60, 1), pytest.param(500, 5, marks=pytest.mark.slow)])
def test_wrong_masks_are_refused_and_right_ones_are_not(count: int, most: int) -> None:
    made, wrong = judged(count)
    print(made, wrong)
    assert len(made) == 10 and len(wrong) <= most
    assert all(error and place == HIDDEN for error, *place in wrong)


def test_one_wrong_mask_among_many_is_named() -> None:
    masks = np.stack([np.roll(COURSE, k, 1) for k in range(40)])
    y, wrong = CLEAN[:40] * masks, masks.copy()
    wrong[[30, 31]] = masks[[31, 30]]
    for order, problem in (
        (wrong, "is not the mask of image 30, which that of image 31 fits"),
        (masks[::-1], "is not the mask of image 0, which that of image 39 fits"),
        (~masks, "calls observed only what is missing in image 0, expected 1, True or white"),
        (masks.swapaxes(1, 2), "is not the mask of image 0, which it fits transposed"),
    ):
        with pytest.raises(BadInput, match=f"^mask.npy: {problem}"):
            MaskCheck("mask.npy").add(0, y, order)


def test_images_that_keep_their_values_are_unlike_those_that_lost_them() -> None:
    """In whichever batch they come: a mask of a black place does not show by itself."""
    mask, y = np.ones((40, 64, 64), bool), CLEAN[:40].copy()
    mask[:, 20:30, 30:40] = False
    y[:20] *= mask[:20]
    for first, second in ((slice(0, 20), slice(20, 40)), (slice(20, 40), slice(0, 20))):
        check = MaskCheck("mask.npy")
        check.add(first.start, y[first], mask[first])
        with pytest.raises(BadInput, match=r"missing pixels hold values, expected .* as those of"):
            check.add(second.start, y[second], mask[second])


def test_lesions_that_are_called_observed_are_refused() -> None:
    """Segmentations are 1 where a lesion is, which filling takes for observed."""
    lesion = np.hypot(*(np.mgrid[:64, :64] - 30)) < 6
    with pytest.raises(BadInput, match="calls all but a part of image 0 missing"):
        MaskCheck("mask.npy").add(0, CLEAN[:3], lesion[None])
    MaskCheck("mask.npy").add(0, CLEAN[:3], ~lesion[None])


BLOCK = COURSE.copy()
BLOCK[28:36, 28:36] = False


@pytest.mark.parametrize(("odd", "together"), [(0, 256), (0, 7), (30, 7), (79, 256)])
@pytest.mark.parametrize("other", [BLOCK, COURSE.T, COURSE | True], ids=["within", "", "complete"])
@pytest.mark.parametrize("swapped", [False, True])
def test_one_image_with_another_mask(
    odd: int, other: np.ndarray, swapped: bool, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands, whichever mask holds the other, however many are read together."""
    monkeypatch.setattr(masks, "PIXELS", together * 64 * 64)
    first, second = (other, COURSE) if swapped else (COURSE, other)
    y = CLEAN[:80] * first
    y[odd] = CLEAN[odd] * second
    if first.all():
        y[[5, 40]] = CLEAN[[5, 40]] * second
    with pytest.raises(BadInput, match=r"different masks|4096 of 4096 pixels observed"):
        shared_mask(y[:, None])


def test_generated_files() -> None:
    """Of one to four masks, in blocks or shuffled: found or refused, never wrong."""
    verdicts: Counter[str] = Counter()
    for seed in range(80):
        rng = np.random.default_rng(seed)
        kinds = rng.choice(["stripes", "course", "pixels"], rng.integers(1, 5))
        made = [mask_pairs.KINDS[kind](rng) for kind in kinds]
        if len(made) > 1 and rng.random() < 0.25:
            made[1] &= made[0]  # one lies within another
        index = np.repeat(np.arange(len(made)), rng.integers(4, 30, len(made)))[:100]
        if rng.random() < 0.6:
            rng.shuffle(index)
        look = rng.choice(["noise floor", "12 bits", "other range"])
        y = np.where(np.stack(made)[index], mask_pairs.heads(rng, look, len(index)), 0)[:, None]
        several = len(set(index.tolist())) > 1
        try:
            right = np.array_equal(shared_mask(y), (y != 0).any((0, 1)))
            verdicts["wrong" if several or not right else "exact"] += 1
        except BadInput:
            verdicts["refused" if several else "refused in vain"] += 1
    assert set(verdicts) == {"exact", "refused"}, verdicts


IN_TURN = CLEAN[:40] * np.where(np.arange(40)[:, None, None] % 2, COURSE, COURSE.T)
BLANK = CLEAN[:9] * COURSE
BLANK[4] = 0
REFUSED = {
    "one image": (CLEAN[:1] * COURSE, "holds one image"),
    "a blank image": (BLANK, "every pixel of image 4 is zero"),
    "two masks in turn": (IN_TURN, "different masks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_need_a_mask_ask_for_it(tmp_path: Path, case: str) -> None:
    (images, problem), options = REFUSED[case], {"progress": False}
    np.save(path := tmp_path / "y.npy", images)
    with pytest.raises(BadInput, match=rf"y\.npy: .*{problem}.* expected a mask \(--mask MASK"):
        fill_file(path, tmp_path / "x.npy", linear(), **options)
    assert [file.name for file in tmp_path.iterdir()] == ["y.npy"]
    np.save(tmp_path / "mask.npy", images != 0 if case != "a blank image" else COURSE)
    options |= {"mask": tmp_path / "mask.npy"}
    assert fill_file(path, tmp_path / "x.npy", linear(), **options).images == len(images)


def test_one_mask_is_asked_for_where_only_one_is_used(tmp_path: Path) -> None:
    y, x = tmp_path / "y.npy", tmp_path / "x.npy"
    np.save(x, CLEAN[:40, None])
    np.save(y, IN_TURN[:, None])
    for call in (
        lambda: scoring.score_files(x, x, y),
        lambda: training.train_imputer(x, y, tmp_path / "run", "smoke"),
        lambda: submission.check_submission(tmp_path, y),
    ):
        with pytest.raises(BadInput, match=r"y\.npy: holds images with different masks"):
            call()
    assert not (tmp_path / "run").exists()
    for images in (np.ones((3, 1, 8, 8)), np.zeros((3, 1, 8, 8)), np.ones((3, 8, 8))):
        with pytest.raises(BadInput, match=r"^y\.npy: .*, expected"):
            shared_mask(images, "y.npy")


def test_traps_of_the_stand_in(tmp_path: Path) -> None:
    """Measured on the course's file: neither one image's zeros nor a threshold tells the mask."""
    y = standin.corrupted_images()
    assert int((~COURSE).sum()) == 2073
    zeros_at_observed = ((y == 0) & COURSE).sum((1, 2, 3))
    assert (zeros_at_observed == 1).sum() == 56 and zeros_at_observed.max() == 1
    assert ((y > 0) & (y < 1e-3)).sum() == 159
    assert np.array_equal(shared_mask(y), COURSE)
    first = torch.from_numpy(y[np.argsort(-zeros_at_observed)])  # whose first image has a true zero
    assert np.array_equal(find_mask(first)[0, 0], COURSE)
    for images, expected in ((y, COURSE), (CLEAN, True)):  # true zeros are no mask
        np.save(path := tmp_path / "y.npy", images)
        with open_npy(path) as source:
            assert np.array_equal(shared_mask_of(source), COURSE | expected)
    for value in (0.0, 0.5):
        with pytest.raises(ValueError, match="no mask to find"):
            find_mask(torch.full((3, 1, 8, 8), value))
