"""Intervals: what they promise holds on errors whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import refused

from nogaps.Assessment import corrupt
from nogaps.imputers import intervals
from nogaps.imputers.intervals import TERMS, Ratios
from nogaps.interpolation import keep_observed, linear

WEIGHTS = dict(zip(TERMS, (0.02, 0.9, 0.2, 0.05), strict=True))


def simulated(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    """Errors of n groups of two images; some groups are far worse than their scale says."""
    rng = np.random.default_rng(seed)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., ::3] = True
    scale = rng.uniform(0.01, 0.1, (2 * n, 1, 8, 8))
    worse = np.repeat(rng.lognormal(0, 0.5, n), 2)[:, None, None, None]
    error = rng.laplace(0, 1, scale.shape) * scale * worse
    return (
        torch.from_numpy(error),
        torch.from_numpy(scale),
        mask,
        [f"s{k // 2}" for k in range(2 * n)],
    )


def test_factor_is_the_least_that_keeps_the_bound() -> None:
    error, scale, mask, groups = simulated(12, 0)
    found = Ratios(error, scale, mask, groups)
    factor = Ratios(error, scale, mask, groups).factor(0.8)
    ratio = (error.abs() / scale)[:, 0, :, :][:, ~mask[0, 0]].numpy().reshape(12, -1)
    bound = 0.8 + 0.8 / 12
    assert (ratio <= factor).mean(1).mean() >= bound
    assert (ratio <= np.nextafter(factor, 0)).mean(1).mean() < bound
    order = [int(name[1:]) for name in found.names]
    np.testing.assert_allclose(found.coverage(factor), (ratio <= factor).mean(1)[order])


def test_new_groups_are_covered_as_promised() -> None:
    covered = []
    for seed in range(150):
        error, scale, mask, groups = simulated(40, seed)
        ratios = Ratios(error, scale, mask, groups)
        covered.append(intervals.cross_validate(ratios, 0.9, splits=2, seed=seed).mean())
    slack = 3 * np.std(covered) / len(covered) ** 0.5
    assert 0.9 - slack < np.mean(covered) < 0.9 + 2 / 21 + slack  # theorems 1 and 2 of the paper


def test_groups_count_alike_whatever_their_size() -> None:
    error, scale, mask, groups = simulated(12, 0)
    many = [error, scale, np.array(groups)]
    more = [torch.cat([part, *[part[:2]] * 9]) for part in many[:2]]
    factor = Ratios(error, scale, mask, groups).factor(0.8)
    assert Ratios(*more, mask, [*groups, *groups[:2] * 9]).factor(0.8) == factor


def test_too_few_groups_are_refused() -> None:
    error, scale, mask, groups = simulated(9, 0)
    top = float((error.abs() / scale)[(~mask).expand_as(error)].max())
    assert Ratios(error, scale, mask, groups).factor(0.9) == pytest.approx(top)
    assert "expected 9" in refused(
        lambda: Ratios(error[:16], scale[:16], mask, groups[:16]).factor(0.9)
    )
    ratios = Ratios(error, scale, mask, groups)
    assert "expected" in refused(lambda: intervals.cross_validate(ratios, share=0.99))


def test_scale_follows_the_error(clean: torch.Tensor, mask: torch.Tensor) -> None:
    y = corrupt(clean[:20], mask)
    linear_fill = linear()(y, mask)
    members = torch.stack([factor * linear_fill for factor in (0.97, 1.0, 1.04)])
    x_hat = keep_observed(members.mean(0), y, mask)
    terms = intervals.scale_terms(members, x_hat, y, mask)
    assert terms.shape == (4, 20, 1, 64, 64) and (terms >= 0).all()
    np.testing.assert_allclose(
        terms[1, 3, 0, 9, 30], members[:, 3, 0, 9, 30].numpy().std(), rtol=1e-4
    )
    window = x_hat[3, 0, 8:11, 29:32].numpy()
    np.testing.assert_allclose(terms[2, 3, 0, 9, 30], window.std(), rtol=1e-4)
    error = x_hat - clean[:20]
    weights = intervals.fit_weights(terms[:, :10], error[:10], mask)
    assert list(weights) == list(TERMS) and min(weights.values()) >= 0
    scale = intervals.scale_of(terms[:, 10:], weights)
    half = intervals.half_width(x_hat[10:], scale, 2.5, mask)
    assert intervals.rank_correlation(half, error[10:], mask) > 0.5


def test_weights_are_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    terms = torch.rand(4, 10, 1, 16, 16, generator=generator)
    mask = torch.rand(1, 1, 16, 16, generator=generator) < 0.5
    error = intervals.scale_of(terms, WEIGHTS) - intervals.FLOOR
    error = torch.where(mask, 9.0, error * torch.sign(terms[0] - 0.5))  # observed pixels: ignored
    assert intervals.fit_weights(terms, error, mask) == pytest.approx(WEIGHTS, abs=1e-5)


def test_coverage_and_rank_correlation_count_hole_pixels_only() -> None:
    mask = torch.zeros(1, 1, 1, 4, dtype=torch.bool)
    mask[..., 0] = True
    x_hat = torch.full((3, 1, 1, 4), 0.5)
    x = x_hat + torch.tensor([9, 0.125, -0.25, 0.375])
    half = torch.tensor([0, 0.125, 0.1875, 0.5]).expand_as(x)
    x[2, ..., 1:] = 0.5
    found = intervals.coverage_by_group(x_hat, half, x, mask, ["b", "b", "a"])
    assert found == {"a": 1.0, "b": pytest.approx(2 / 3)}
    assert intervals.rank_correlation(half[:1], (x_hat - x)[:1], mask) == pytest.approx(1)
    assert intervals.rank_correlation(-half[:1], (x_hat - x)[:1], mask) == pytest.approx(-1)
