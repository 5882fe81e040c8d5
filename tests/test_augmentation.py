from __future__ import annotations

import torch

from nogaps.augmentation import random_affine, sharpen, warp
from nogaps.metrics import gradient_energy


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_warping_repeats_and_keeps_sharpness(clean: torch.Tensor) -> None:
    frames = clean[:16].repeat_interleave(2, 2).repeat_interleave(2, 3)
    once = warp(frames, seeded())
    assert torch.equal(once, warp(frames, seeded()))
    assert once.shape == (16, 1, 64, 64) and once.min() >= 0 and once.max() <= 1
    assert gradient_energy(once) > 1.2 * gradient_energy(warp(frames, seeded(), sharpness=0))


def test_nothing_moves_without_an_amount(clean: torch.Tensor) -> None:
    torch.testing.assert_close(random_affine(clean[:3], seeded(), 0, 0, 0), clean[:3])
    moved = random_affine(clean[:3], seeded(), 0, 0, 4)
    assert (moved - clean[:3]).abs().amax((1, 2, 3)).min() > 0.1
    assert not torch.equal(*(m - x for m, x in zip(moved[:2], clean[:2], strict=True)))


def test_sharpening_keeps_flat_parts_and_means() -> None:
    x = torch.full((1, 1, 8, 8), 0.4)
    torch.testing.assert_close(sharpen(x, 1.0), x)
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 0.5
    sharp = sharpen(edge, 1.0)
    assert sharp.max() > 0.5 and float(sharp.mean()) == float(edge.mean())
