"""Scores of filled images: on hole pixels only, per image first, then averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


def gradient_energy(x: torch.Tensor) -> float:
    """Mean squared horizontal difference over the variance of the whole set; x (N,1,H,W)."""
    return float(x.diff(dim=-1).square().mean() / x.var())


def hole_mse(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over each image's hole pixels, (N,) fp32.

    x_hat, x: (N,1,H,W) in [0,1]; mask: bool (1,1,H,W) or (N,1,H,W), True = observed.
    """
    hole = (~mask).expand_as(x).float()
    return ((x_hat - x) ** 2 * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3)).clamp(min=1)


def hole_against_observed(
    x_hat: torch.Tensor, mask: torch.Tensor, share: float = 0.995
) -> tuple[float, float]:
    """Two scores without a truth, near 1 and 0 where the hole is like the observed pixels.

    The quantile `share` in the hole over that of the observed pixels, which falls where
    intensities are compressed; and the observed pixels' mean minus the hole's. x_hat: (N,1,H,W) in
    [0,1]; mask: bool (1,1,H,W) or (N,1,H,W), True = observed.
    """
    seen = mask.expand_as(x_hat)
    hole, observed = x_hat[~seen], x_hat[seen]
    ratio = np.quantile(hole.numpy(), share) / np.quantile(observed.numpy(), share)
    return float(ratio), float(observed.mean() - hole.mean())


def ssim_map(x_hat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Local structural similarity, data range 1, Gaussian window of 11 pixels and sigma 1.5.

    Shape of the input. Source: Wang et al. 2004 (doi 10.1109/TIP.2003.819861).
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
    """Per-image "rmse", "psnr" (dB, data range 1) and "ssim" over hole pixels, (N,) each."""
    x_hat, x = x_hat.float().cpu(), x.float().cpu()
    mask = mask.cpu()
    mse = hole_mse(x_hat, x, mask)
    hole = (~mask).expand_as(x).float()
    ssim = (ssim_map(x_hat, x) * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3)).clamp(min=1)
    psnr = -10 * torch.log10(mse.clamp(min=1e-12))
    return {"rmse": mse.sqrt().numpy(), "psnr": psnr.numpy(), "ssim": ssim.numpy()}


def bootstrap(
    values: np.ndarray, groups: Sequence[str] | None = None, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `values` (N,) and its 95 % percentile interval, resampling whole groups."""
    names = np.arange(len(values)) if groups is None else np.asarray(groups)
    _, which = np.unique(names, return_inverse=True)
    sums = np.bincount(which, weights=values)
    counts = np.bincount(which)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def summarize(
    x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, groups: Sequence[str] | None = None
) -> dict[str, float | list[float]]:
    """Scores of one imputer: pooled hole RMSE, mean PSNR and SSIM with 95 % intervals.

    "rmse" is the root of the mean over images of their hole MSE; its interval is the root of that
    mean's interval.
    """
    scores = hole_scores(x_hat, x, mask)
    mse, low, high = bootstrap(scores["rmse"].astype(np.float64) ** 2, groups)
    row: dict[str, float | list[float]] = {"rmse": mse**0.5, "rmse_95": [low**0.5, high**0.5]}
    for name in ("psnr", "ssim"):
        mean, low, high = bootstrap(scores[name].astype(np.float64), groups)
        row |= {name: mean, f"{name}_95": [low, high]}
    return row
