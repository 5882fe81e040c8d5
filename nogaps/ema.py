"""Exponential moving average of a model's weights."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import AveragedModel


def ema_of(model: torch.nn.Module, decay: float = 0.999) -> AveragedModel:
    """Average of `model` in fp32, floating-point buffers included.

    BatchNorm's running statistics are averaged with the weights, so that they fit each other.
    After n updates the decay is min(decay, (1+n)/(10+n)), so that the random initial weights are
    forgotten early. Call `.update_parameters(model)` after each optimiser step; the averaged
    network is `.module`.
    """

    @torch.no_grad()
    def update(averages: list, currents: list, count: torch.Tensor | int) -> None:
        if averages[0].is_floating_point():
            n = int(count)
            torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + n) / (10 + n)))
        else:  # BatchNorm counts its batches in an integer
            torch._foreach_copy_(averages, currents)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
