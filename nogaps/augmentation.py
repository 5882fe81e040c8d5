"""Random geometry and contrast without loss of sharpness."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def uniform(low: float, high: float, n: int, generator: torch.Generator) -> torch.Tensor:
    """Return n numbers from U[low, high), shape (n,), float32, on the CPU."""
    return low + (high - low) * torch.rand(n, generator=generator)


def sharpen(x: torch.Tensor, amount: torch.Tensor | float) -> torch.Tensor:
    """Return x + amount * (x - blur(x)), with the binomial 3×3 blur and edges repeated.

    Args:
        x: Images (N,1,H,W); the range is not clipped.
        amount: A number, or (N,1,1,1).
    """
    row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    kernel = (row[:, None] * row)[None, None]
    blurred = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel)
    return x + amount * (x - blurred)


def random_affine(
    x: torch.Tensor,
    generator: torch.Generator,
    degrees: float,
    scale: float,
    shift: float,
    mode: str = "bilinear",
) -> torch.Tensor:
    """Move each image of x through an affine map of its own; 0 comes in from outside.

    Args:
        x: Images (N,1,H,W).
        generator: On the CPU.
        degrees: Rotation U[-degrees, degrees].
        scale: Size exp(U[-scale, scale]), aspect a third of that.
        shift: U[-shift, shift] pixels.
        mode: Of `grid_sample`.
    """
    n, _, height, width = x.shape
    angle = uniform(-degrees, degrees, n, generator) * math.pi / 180
    size = uniform(-scale, scale, n, generator)
    aspect = uniform(-scale / 3, scale / 3, n, generator)
    across = uniform(-shift, shift, n, generator) * 2 / width
    down = uniform(-shift, shift, n, generator) * 2 / height
    cos, sin = torch.cos(angle), torch.sin(angle)
    sx, sy = torch.exp(size + aspect), torch.exp(size - aspect)
    rows = torch.stack([cos * sx, -sin * sy, across, sin * sx, cos * sy, down], 1)
    theta = rows.view(n, 2, 3).to(x.device)
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    return F.grid_sample(x, grid, mode=mode, align_corners=False)


def warp(frames: torch.Tensor, generator: torch.Generator, sharpness: float = 0.4) -> torch.Tensor:
    """Move, darken or brighten and sharpen frames of heads at random, at half their size.

    No mirror: all noses point right. Resampling blurs: of the train frames' gradient energy,
    bilinear leaves 84 %, bicubic 97 %. The mean unsharp amount of 0.2 makes that 113 %, to give
    back what both stages of the prior take.

    Args:
        frames: (N,1,2H,2W) in [0,1].
        generator: On the CPU.
        sharpness: The unsharp amount is U[0, sharpness].

    Returns:
        (N,1,H,W) in [0,1].
    """
    x = random_affine(frames, generator, degrees=8, scale=0.1, shift=4, mode="bicubic")
    x = F.avg_pool2d(x.clamp(0, 1), 2)
    power = torch.exp(uniform(-0.15, 0.15, len(x), generator)).view(-1, 1, 1, 1)
    amount = uniform(0, sharpness, len(x), generator).view(-1, 1, 1, 1)
    return sharpen(x, amount.to(x.device)).clamp(0, 1) ** power.to(x.device)
