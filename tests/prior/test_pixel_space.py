"""Pixel spaces: orthonormal, standardised, and nothing is lost."""

from __future__ import annotations

import pytest
import torch

from nogaps.prior.autoencoder import encode, reconstruct
from nogaps.prior.pixel_space import TRANSFORMS, PixelSpace, block_basis


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_they_lose_nothing(transform: str, factor: int) -> None:
    x = torch.rand(3, 1, 32, 16, generator=torch.Generator().manual_seed(0))
    space = PixelSpace(transform, factor)
    space.measure(2 * x - 1)
    z = encode(space, x)
    assert z.shape == (3, factor**2, 32 // factor, 16 // factor)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(factor**2))
    torch.testing.assert_close(reconstruct(space, x), x, atol=1e-6, rtol=0)
    basis = block_basis(transform, factor).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(factor**2))


def test_haar_separates_scales_and_unshuffle_does_not() -> None:
    flat = torch.full((1, 1, 8, 8), 0.7)
    haar = PixelSpace("haar", 4).encode(flat).latent_dist.mean
    assert haar[:, 1:].abs().max() < 1e-6 and haar[:, 0].min() > 2
    expected = torch.nn.functional.pixel_unshuffle(flat, 4)
    torch.testing.assert_close(PixelSpace("unshuffle", 4).encode(flat).latent_dist.mean, expected)


@pytest.mark.parametrize("factor", [3, 0])
def test_impossible_blocks_are_refused(factor: int) -> None:
    with pytest.raises(ValueError, match="power of 2"):
        block_basis("haar", factor)
