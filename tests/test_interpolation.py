"""Filling without a network: the weights themselves; tests/imputers has what all imputers share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nogaps.interpolation import (
    LinearImputer,
    autocovariance,
    biharmonic,
    kriging,
    linear,
    linear_operator,
    observed_moments,
)


def test_linear_interpolates_along_rows_and_extends_their_ends() -> None:
    y = torch.tensor([[[[0.0, 0.2, 0.0, 0.0, 0.8, 0.0], [0.0] * 6, [0.5] * 6]]])
    mask = (y > 0).clone()
    expected = [[0.2, 0.2, 0.4, 0.6, 0.8, 0.8], [0.5, 0.2, 0.5, 0.5, 0.8, 0.5], [0.5] * 6]
    torch.testing.assert_close(linear()(y, mask)[0, 0], torch.tensor(expected))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_linear_weights_sum_to_one(share: float) -> None:
    mask = np.random.default_rng(0).random((9, 12)) < share
    weights = linear_operator(mask)
    assert weights.shape == ((~mask).sum(), mask.sum())
    assert weights.data.min(initial=0) >= 0
    np.testing.assert_allclose(weights.sum(1), 1)


@pytest.mark.parametrize("name", ["linear", "kriging", "biharmonic"])
def test_follows_brightness_and_contrast(
    name: str, clean: torch.Tensor, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    imputer = {"linear": linear(), "kriging": kriging(clean), "biharmonic": biharmonic}[name]
    x_hat = imputer(corrupted[:4], mask)
    changed = imputer(torch.where(mask, 0.5 * corrupted[:4] + 0.25, 0), mask)
    inside = (x_hat > 0.01) & (x_hat < 0.99)  # not clipped
    torch.testing.assert_close(changed[inside], 0.5 * x_hat[inside] + 0.25, rtol=0, atol=1e-3)


def test_kriging_weights_solve_the_normal_equations(clean: torch.Tensor) -> None:
    """Against a dense solve with all observed pixels of a small image."""
    covariance = autocovariance(clean)
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    mask[0, 0, 2:4, 3] = False
    weights = kriging(clean).weights(mask[0, 0]).to_dense()
    at = np.argwhere(mask[0, 0].numpy())
    lag = covariance.shape[0] // 2
    cov = covariance.double().numpy()

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        offset = a[:, None] - b[None] + lag
        return cov[offset[..., 0], offset[..., 1]]

    dense = np.linalg.solve(
        between(at, at) + 1e-4 * np.eye(len(at)), between(at, np.array([[2, 3]]))
    )
    np.testing.assert_allclose(weights[2 * 6 + 3][mask[0, 0].flatten()], dense[:, 0], atol=1e-4)


def test_autocovariance_is_that_of_shifted_images() -> None:
    x = torch.rand(20, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    covariance = autocovariance(x, lag=3)
    z = x - x.mean((1, 2, 3), keepdim=True)
    pairs = (z[..., 1:, :-2] * z[..., :-1, 2:]).mean() / z.square().mean()
    assert covariance.shape == (7, 7) and covariance[3, 3] == 1
    torch.testing.assert_close(covariance[2, 5], pairs)
    torch.testing.assert_close(covariance, covariance.flip(0, 1))


def test_moments_are_those_of_the_observed_pixels() -> None:
    y = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = y[:1] > 0.3
    mean, std = observed_moments(torch.where(mask, y, 99), mask)
    values = y[1, 0][mask[0, 0]]
    torch.testing.assert_close(mean[1, 0, 0, 0], values.mean())
    torch.testing.assert_close(std[1, 0, 0, 0], values.std(correction=0))
    assert observed_moments(torch.ones(1, 1, 4, 4), mask[..., :4, :4])[1] == pytest.approx(0.05)


def test_weights_are_kept_for_some_masks_only() -> None:
    """A stream of ever new masks does not fill the memory."""
    made: list[np.ndarray] = []
    imputer = LinearImputer(lambda mask: made.append(mask) or linear_operator(mask))
    masks = torch.rand(70, 1, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    masks[..., 0, 0] = True
    for mask in (*masks, *masks[-4:]):
        imputer(torch.rand(1, 1, 4, 5), mask[None])
    assert len(made) == 70 and len(imputer._weights) <= 64
