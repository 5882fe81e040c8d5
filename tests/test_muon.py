"""Muon: equal steps in all directions of a kernel, AdamW's steps elsewhere, resumed to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nogaps.muon import Muon, orthogonal


def network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 1, 1)
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, scale: float = 1
) -> None:
    for step in steps:
        x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (scale * (model(x) - x[:, :1]) ** 2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(8, 18), (18, 8), (6, 6)])
def test_orthogonal_keeps_directions_and_levels_them(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    levelled = u.mT @ orthogonal(matrix) @ v.mT
    values = levelled.diagonal()
    assert ((values > 0.6) & (values < 1.3)).all()
    torch.testing.assert_close(levelled, torch.diag(values), atol=1e-4, rtol=0)


def test_only_kernels_are_moved_otherwise_than_by_adamw() -> None:
    before, ours, adamw = network(), network(), network()
    train(ours, Muon(ours.parameters(), lr=1e-3), range(1))
    train(adamw, torch.optim.AdamW(adamw.parameters(), lr=1e-3), range(1))
    for name, p in ours.named_parameters():
        assert torch.equal(p, adamw.get_parameter(name)) == (name != "0.weight"), name
    move = (ours[0].weight - before[0].weight).detach()
    assert 0.1e-3 < move.square().mean().sqrt() < 0.3e-3, "a step of another size than AdamW's"


def test_the_size_of_gradients_does_not_count() -> None:
    one, other = network(), network()
    train(one, Muon(one.parameters(), lr=1e-3), range(3))
    train(other, Muon(other.parameters(), lr=1e-3), range(3), scale=64)
    torch.testing.assert_close(one[0].weight, other[0].weight, atol=1e-5, rtol=0)


def test_a_loaded_state_continues_to_the_same_bits() -> None:
    whole, part = network(), network()
    train(whole, Muon(whole.parameters(), lr=1e-3), range(4))
    optimizer = Muon(part.parameters(), lr=1e-3)
    train(part, optimizer, range(2))
    again = Muon(part.parameters(), lr=1e-3)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(part, again, range(2, 4))
    for name, p in part.named_parameters():
        assert torch.equal(p, whole.get_parameter(name)), name
