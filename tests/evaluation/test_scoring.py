"""Scores are of images that belong together; those without labels rank as the truth does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import refused

from nogaps import standin
from nogaps.Assessment import corrupt
from nogaps.evaluation.scoring import (
    hidden_folds,
    hidden_score,
    line_segments,
    rank_agreement,
    read_truth,
    score_files,
)
from nogaps.interpolation import keep_observed, kriging, linear

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


def test_every_pixel_beside_a_hole_is_hidden_in_one_fold_per_side(mask: torch.Tensor) -> None:
    hidden = hidden_folds(mask, folds=4, seed=3)
    assert torch.equal(hidden, hidden_folds(mask, folds=4, seed=3))
    assert not torch.equal(hidden, hidden_folds(mask, folds=4, seed=4))
    assert not (hidden & ~mask).any()
    for side, shift in enumerate((1, -1)):
        beside = ~mask[0, 0].roll(shift, 1)
        beside[:, [0, -1][side]] = False
        assert torch.equal(hidden[side::2].sum(0)[0, 0], (beside & mask[0, 0]).long())
    sizes = hidden.sum((1, 2, 3, 4))
    assert sizes.min() > 0.8 * sizes.max()
    segments = line_segments(mask[0, 0].numpy(), 1)
    assert np.bincount(segments.ravel())[1:].max() <= 9  # eight rows, and a step of the stripe
    flipped = line_segments(mask[0, 0].numpy().T, 1)
    assert np.array_equal(flipped > 0, (segments > 0).T), "rows and columns are treated alike"
    with pytest.raises(ValueError, match="even"):
        hidden_folds(mask, 3)


def test_hidden_pixels_are_never_shown(clean: torch.Tensor, mask: torch.Tensor) -> None:
    mask, shown = mask[..., :24, :24], []
    y = corrupt(clean[:4, :, :24, :24], mask)

    def spy(y_seen: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        shown.append((~seen).sum() - (~mask).sum())
        assert (y_seen[~seen.expand_as(y_seen)] == 0).all()
        return linear()(y_seen, seen)

    scores = hidden_score(spy, y, mask, folds=4, kriging=linear())
    assert len(shown) == 4 and min(shown) > 0
    assert scores["imputer"] == scores["kriging"] and scores["gain"]["psnr"] == 0
    masks = mask.repeat(4, 1, 1, 1)
    masks[0] = masks[0].flip(-1)
    each = hidden_score(linear(), corrupt(y, masks), masks, folds=4, kriging=linear())
    assert each["imputer"]["rmse"] != scores["imputer"]["rmse"] > 0
    with pytest.raises(ValueError, match="beside a hole"):
        hidden_score(spy, y, mask | True, kriging=linear())


def test_label_free_score_ranks_as_the_truth_does(clean: torch.Tensor, mask: torch.Tensor) -> None:
    x, mask = clean[:12, :, 16:48, 16:48], mask[..., 16:48, 16:48]
    kriged = kriging(clean[50:])
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def noisy(amount: float) -> Callable[..., torch.Tensor]:
        return lambda y, mask: keep_observed(kriged(y, mask) + amount * noise, y, mask)

    models = {f"{a}": noisy(a) for a in (0.2, 0.0, 0.1, 0.3)}
    result = rank_agreement(models, x, mask, folds=2)
    assert result["spearman"] == pytest.approx(1)
    rows = result["models"]
    assert rows["0.0"]["hole_psnr"] > rows["0.3"]["hole_psnr"]
    assert rows["0.0"]["hidden_psnr"] > rows["0.3"]["hidden_psnr"]
