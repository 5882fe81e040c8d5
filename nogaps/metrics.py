"""Scores of filled images: on hole pixels only, per image first, then averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


def gradient_energy(x: torch.Tensor) -> float:
    """Return the mean squared horizontal difference over the variance of images x (N,1,H,W)."""
    return float(x.diff(dim=-1).square().mean() / x.var())


def hole_mse(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over each image's hole pixels.

    Args:
        x_hat: Filled images (N,C,H,W) in [0,1].
        x: Clean images of the same shape.
        mask: bool (1,1,H,W) or (N,1,H,W), True = observed.

    Returns:
        (N,) fp32; 0 for an image without a hole.
    """
    return _hole_mean((x_hat - x) ** 2, mask)


def _hole_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    hole = (~mask).expand_as(values).float()
    return (values * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3)).clamp(min=1)


def hole_against_observed(x_hat: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
    """Compare the hole with the observed pixels; no truth is needed.

    Args:
        x_hat: Filled images (N,1,H,W) in [0,1].
        mask: bool (1,1,H,W) or (N,1,H,W), True = observed.

    Returns:
        The 0.995 quantile in the hole over that of the observed pixels, near 1 and lower where
        intensities are compressed; the observed pixels' mean minus the hole's, near 0.
    """
    observed = mask.expand_as(x_hat)
    hole, seen = x_hat[~observed], x_hat[observed]
    top, usual = (np.quantile(values.numpy(), 0.995) for values in (hole, seen))
    return float(top / usual), float(seen.mean() - hole.mean())


def ssim_map(x_hat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the local structural similarity of images (N,1,H,W) with values in [0,1].

    The Gaussian window has 11 pixels and sigma 1.5; borders are mirrored. Source: Wang et al. 2004
    (doi 10.1109/TIP.2003.819861).

    Returns:
        (N,1,H,W), at most 1.
    """
    at = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    row = torch.exp(-(at**2) / (2 * 1.5**2))
    kernel = ((row[:, None] * row) / row.sum() ** 2)[None, None]

    def mean(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(image, (5, 5, 5, 5), mode="reflect"), kernel)

    mu_a, mu_b = mean(x_hat), mean(x)
    var_a, var_b = mean(x_hat**2) - mu_a**2, mean(x**2) - mu_b**2
    cov = mean(x_hat * x) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return luminance * (2 * cov + c2) / (var_a + var_b + c2)


def hole_scores(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """Score each image over its hole pixels.

    Args:
        x_hat: Filled images (N,1,H,W) in [0,1].
        x: Clean images of the same shape.
        mask: bool (1,1,H,W) or (N,1,H,W), True = observed.

    Returns:
        "rmse", "psnr" (dB, data range 1) and "ssim", each (N,).
    """
    x_hat, x, mask = x_hat.float().cpu(), x.float().cpu(), mask.cpu()
    mse = hole_mse(x_hat, x, mask)
    ssim = _hole_mean(ssim_map(x_hat, x), mask)
    psnr = -10 * torch.log10(mse.clamp(min=1e-12))
    return {"rmse": mse.sqrt().numpy(), "psnr": psnr.numpy(), "ssim": ssim.numpy()}


def bootstrap(
    values: np.ndarray, groups: Sequence[str] | None = None, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of `values` (N,) and its 95 % percentile interval.

    Args:
        values: One number per image.
        groups: Of the images; whole groups are resampled, else images.
        draws: Number of resamples.
        seed: Of the resamples.
    """
    names = np.arange(len(values)) if groups is None else groups
    _, which = np.unique(names, return_inverse=True)
    sums, counts = np.bincount(which, weights=values), np.bincount(which)
    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def summarize(
    x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, groups: Sequence[str] | None = None
) -> dict[str, float | list[float]]:
    """Sum up the scores of one imputer.

    Args:
        x_hat, x, mask: See `hole_scores`.
        groups: See `bootstrap`.

    Returns:
        "rmse", the root of the mean over images of their hole MSE, and the mean "psnr" (dB) and
        "ssim", with 95 % intervals "rmse_95", "psnr_95" and "ssim_95".
    """
    scores = {name: s.astype(np.float64) for name, s in hole_scores(x_hat, x, mask).items()}
    return score_row(scores.pop("rmse") ** 2, groups, **scores)


def score_row(
    mse: np.ndarray, groups: Sequence[str] | None, **scores: np.ndarray
) -> dict[str, float | list[float]]:
    """Return the root of the mean of `mse` (N,), and means of scores (N,), with 95 % intervals."""
    mean, low, high = bootstrap(mse, groups)
    row: dict[str, float | list[float]] = {"rmse": mean**0.5, "rmse_95": [low**0.5, high**0.5]}
    for name, values in scores.items():
        mean, *interval = bootstrap(values, groups)
        row |= {name: mean, f"{name}_95": interval}
    return row
