"""Scores are of images that belong together: another order, and turned images, are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import refused

from nogaps import standin
from nogaps.evaluation.scoring import read_truth, score_files

X, Y = standin.clean_images()[::10], standin.corrupted_images()[::10]


def stored(folder: Path, **arrays: np.ndarray) -> list[Path]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [folder / f"{name}.npy" for name in arrays]


SWAPPED = X[[0, 1, 2, 4, 3, *range(5, 10)]]
WRONG = {
    "image 3 is image 4 of": SWAPPED,
    "image 0 is image 9 of": np.roll(X, 1, 0),
    "transposed, expected the same axes": X.swapaxes(2, 3).copy(),
}


@pytest.mark.parametrize("problem", WRONG)
def test_images_of_another_order(tmp_path: Path, problem: str) -> None:
    y, right, wrong = stored(tmp_path, y=Y, right=X, wrong=WRONG[problem])
    assert problem in refused(lambda: score_files(right, wrong, y))
    assert problem in refused(lambda: score_files(wrong, right, y))
    assert str(wrong) in refused(lambda: score_files(wrong, right, y))


def test_images_that_are_alike_or_noisy_are_not_mistaken(tmp_path: Path) -> None:
    noisy = np.clip(X + np.random.default_rng(0).normal(0, 0.1, X.shape), 0, 1).astype("f4")
    alike = np.repeat(X[:1], 10, 0)
    for x, truth in ((X, noisy), (alike, alike)):
        read_truth(*stored(tmp_path, truth=truth, y=x * standin.course_mask()))
