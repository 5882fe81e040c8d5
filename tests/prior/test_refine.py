"""The adversarial loss of the decoder's refinement."""

from __future__ import annotations

import torch

from nogaps.prior.autoencoder import build_autoencoder
from nogaps.prior.refine import Pair, adversarial_loss


def test_each_player_gets_its_own_gradient() -> None:
    """The critic is not taught to like the decoder's images, nor the decoder to feed the hinge."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = Pair(build_autoencoder((8, 8, 8), 4))
        x, bank = torch.rand(2, 1, 32, 32), torch.randn(4, 4, 8, 8)
    losses = adversarial_loss(pair, x, torch.Generator().manual_seed(0), bank, 0.1, 0.5)
    critic = list(pair.critic.parameters())
    expected = torch.autograd.grad(losses["critic"], critic, retain_graph=True)
    losses["loss"].backward()
    for parameter, gradient in zip(critic, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert pair.stage.decoder.conv_out.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in pair.stage.encoder.parameters())
