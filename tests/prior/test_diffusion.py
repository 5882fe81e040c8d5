"""The loss of the denoiser against the definition of what it predicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nogaps.prior.diffusion import PREDICTIONS, diffusion_loss, noise_schedule, train_diffusion
from nogaps.prior.training import Schedule
from nogaps.runtime.errors import BadInput


@pytest.mark.parametrize("noise", ["cosine", "linear"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_denoiser_that_knows_the_answer_has_no_loss(prediction: str, noise: str) -> None:
    """z = α x0 + σ ε, v = α ε - σ x0."""
    forward = noise_schedule(prediction, noise)
    x0 = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    levels = forward.alphas_cumprod

    class Oracle(torch.nn.Module):
        def forward(self, z: torch.Tensor, t: torch.Tensor) -> object:
            alpha, sigma = (v[t].sqrt().view(-1, 1, 1, 1) for v in (levels, 1 - levels))
            epsilon = (z - alpha * x0) / sigma
            answer = {"x0": x0, "epsilon": epsilon, "v": alpha * epsilon - sigma * x0}[prediction]
            return type("Output", (), {"sample": answer})

    for smooth_l1 in (0.0, 0.1):
        generator = torch.Generator().manual_seed(2)
        loss = diffusion_loss(Oracle(), x0, generator, forward, smooth_l1)["loss"]
        assert float(loss) < 1e-4


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 4.0), (1.0, 1.5), (4.0, 0.5)])
def test_the_loss_is_squared_or_smooth_l1(beta: float, expected: float) -> None:
    """An error of 2 everywhere, whose smooth L1 loss is 2 - beta / 2, or 2² / (2 beta)."""
    z = torch.zeros(2, 1, 4, 4)

    class Off(torch.nn.Module):
        def forward(self, z: torch.Tensor, t: torch.Tensor) -> object:
            return type("Output", (), {"sample": torch.full_like(z, 2.0)})

    forward, generator = noise_schedule("x0"), torch.Generator()
    assert float(diffusion_loss(Off(), z, generator, forward, beta)["loss"]) == expected


@pytest.mark.parametrize("choice", [{"prediction": "w"}, {"noise": "square"}, {"space": "fourier"}])
def test_unknown_choices_are_named(frames_file: Path, tmp_path: Path, choice: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(choice.values()))):
        train_diffusion([frames_file], tmp_path, Schedule(2), **choice)
