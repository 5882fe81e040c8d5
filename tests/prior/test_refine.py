"""The adversarial loss of the decoder's refinement, and the latents that it decodes."""

from __future__ import annotations

from pathlib import Path

import torch

from nogaps.prior import refine
from nogaps.prior.autoencoder import build_autoencoder
from nogaps.prior.loading import load_prior
from nogaps.prior.refine import Pair, adversarial_loss


def test_each_player_gets_its_own_gradient() -> None:
    """The critic is not taught to like the decoder's images, nor the decoder to feed the hinge."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = Pair(build_autoencoder((8, 8, 8), 4))
        x, bank = torch.rand(2, 1, 32, 32), torch.randn(4, 4, 8, 8)
    losses = adversarial_loss(pair, x, torch.Generator().manual_seed(0), bank)
    critic = list(pair.critic.parameters())
    expected = torch.autograd.grad(losses["critic"], critic, retain_graph=True)
    losses["loss"].backward()
    for parameter, gradient in zip(critic, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert pair.stage.decoder.conv_out.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in pair.stage.encoder.parameters())


def test_sampled_latents_are_those_of_their_seed(prior_folder: Path, tmp_path: Path) -> None:
    """A run that is killed before its first checkpoint leaves latents, and no other record."""
    prior = load_prior(prior_folder)
    banks = [refine.latent_bank(prior, tmp_path, 2, seed) for seed in (0, 1, 0)]
    assert not torch.equal(banks[0], banks[1]) and torch.equal(banks[0], banks[2])
    assert len(refine.latent_bank(prior, tmp_path, 3, 0)) == 3
