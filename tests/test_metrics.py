from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from nogaps.metrics import bootstrap, hole_against_observed, hole_scores, ssim_map, summarize


def test_scores_look_at_the_hole_only(clean: torch.Tensor, mask: torch.Tensor) -> None:
    x = clean[:3]
    wrong_outside = torch.where(mask, 1 - x, x)
    assert np.all(hole_scores(wrong_outside, x, mask)["rmse"] == 0)
    off = torch.where(mask, x, x + 0.1)
    scores = hole_scores(off, x, mask)
    np.testing.assert_allclose(scores["rmse"], 0.1, rtol=1e-5)
    np.testing.assert_allclose(scores["psnr"], 20, rtol=1e-5)


def test_ssim_is_scikit_images(clean: torch.Tensor) -> None:
    """Borders included, which are mirrored."""
    a, b = clean[0, 0].double(), clean[1, 0].double()
    _, expected = structural_similarity(
        *(np.pad(image.numpy(), 5, "reflect") for image in (a, b)),
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ssim = ssim_map(a[None, None], b[None, None])[0, 0]
    np.testing.assert_allclose(ssim.numpy(), expected[5:-5, 5:-5], atol=1e-6)


def test_bootstrap_resamples_groups_not_images() -> None:
    values = np.repeat([0.0, 1.0], 50)
    mean, low, high = bootstrap(values, ["a"] * 50 + ["b"] * 50)
    assert (mean, low, high) == (0.5, 0.0, 1.0)
    _, low, high = bootstrap(values)
    assert 0.35 < low < 0.5 < high < 0.65


def test_summary_has_intervals_around_its_means(clean: torch.Tensor, mask: torch.Tensor) -> None:
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    row = summarize(clean + 0.05 * noise, clean, mask)
    for name in ("rmse", "psnr", "ssim"):
        low, high = row[f"{name}_95"]
        assert low <= row[name] <= high
    assert row["rmse"] == pytest.approx(0.05, rel=0.01)


def test_compressed_intensities_show_without_a_truth(
    clean: torch.Tensor, mask: torch.Tensor
) -> None:
    ratio, gap = hole_against_observed(clean, mask)
    assert abs(ratio - 1) < 0.02 and abs(gap) < 0.01
    ratio, gap = hole_against_observed(torch.where(mask, clean, 0.8 * clean), mask)
    assert 0.78 < ratio < 0.82 and gap > 0.03
