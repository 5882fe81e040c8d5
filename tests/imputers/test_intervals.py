"""Intervals: what they promise holds on errors whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import refused

from benchmarks.uncertainty import cross_validate
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
    names = [f"s{k // 2}" for k in range(2 * n)]
    return torch.from_numpy(error), torch.from_numpy(scale), mask, names


def test_factor_is_the_least_that_keeps_the_bound() -> None:
    error, scale, mask, groups = simulated(12, 0)
    ratios = Ratios(error, scale, mask, groups)
    factor = ratios.factor(0.8)
    ratio = (error.abs() / scale)[:, 0, :, :][:, ~mask[0, 0]].numpy().reshape(12, -1)
    bound = 0.8 + 0.8 / 12
    assert (ratio <= factor).mean(1).mean() >= bound
    assert (ratio <= np.nextafter(factor, 0)).mean(1).mean() < bound
    order = [int(name[1:]) for name in ratios.names]
    np.testing.assert_allclose(ratios.coverage(factor), (ratio <= factor).mean(1)[order])


def test_new_groups_are_covered_as_promised() -> None:
    covered = []
    for seed in range(150):
        error, scale, mask, groups = simulated(40, seed)
        ratios = Ratios(error, scale, mask, groups)
        covered.append(cross_validate(ratios, 0.9, splits=2, seed=seed).mean())
    slack = 3 * np.std(covered) / len(covered) ** 0.5
    assert 0.9 - slack < np.mean(covered) < 0.9 + 2 / 21 + slack  # theorems 1 and 2 of the paper


def test_groups_count_alike_whatever_their_size_and_must_be_enough() -> None:
    error, scale, mask, groups = simulated(9, 0)
    ratios = Ratios(error, scale, mask, groups)
    more = [torch.cat([part, *[part[:2]] * 9]) for part in (error, scale)]
    larger = Ratios(*more, mask, [*groups, *groups[:2] * 9])
    assert larger.factor(0.8) == ratios.factor(0.8)
    top = float((error.abs() / scale)[(~mask).expand_as(error)].max())
    assert ratios.factor(0.9) == pytest.approx(top)
    few = Ratios(error[:16], scale[:16], mask, groups[:16])
    assert "expected 9" in refused(lambda: few.factor(0.9))
    assert "expected" in refused(lambda: cross_validate(ratios, share=0.99))


def test_scale_follows_the_error(clean: torch.Tensor, mask: torch.Tensor) -> None:
    y = corrupt(clean[:20], mask)
    members = torch.stack([factor * linear()(y, mask) for factor in (0.97, 1.0, 1.04)])
    x_hat = keep_observed(members.mean(0), y, mask)
    terms = intervals.scale_terms(members, x_hat, y, mask)
    assert terms.shape == (4, 20, 1, 64, 64) and (terms >= 0).all()
    spread, window = members[:, 3, 0, 9, 30].numpy(), x_hat[3, 0, 8:11, 29:32].numpy()
    np.testing.assert_allclose(terms[1:3, 3, 0, 9, 30], [spread.std(), window.std()], rtol=1e-4)
    error = x_hat - clean[:20]
    fitted = intervals.fit_weights(terms[:, :10], error[:10], mask)
    assert list(fitted) == list(TERMS) and min(fitted.values()) >= 0
    half = intervals.half_width(x_hat[10:], intervals.scale_of(terms[:, 10:], fitted), 2.5, mask)
    assert intervals.rank_correlation(half, error[10:], mask) > 0.5
    exact = intervals.scale_of(terms, WEIGHTS) - intervals.FLOOR
    exact = torch.where(mask, 9.0, exact * torch.sign(error))  # observed pixels: ignored
    assert intervals.fit_weights(terms, exact, mask) == pytest.approx(WEIGHTS, abs=3e-3)


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
