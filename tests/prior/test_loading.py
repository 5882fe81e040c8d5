"""Schedulers: exact denoisers give the distribution, every number of steps ends at the image."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import DDIMScheduler

from nogaps.prior.loading import PREDICTIONS, SCHEDULERS, make_scheduler
from nogaps.runtime.errors import BadInput

NOISE = ("linear", "squaredcos_cap_v2")


def gaussian_samples(scheduler: str, config: dict, steps: int, half: bool) -> torch.Tensor:
    """Samples of N(0.5, 0.7²) by the reverse process with the exact denoiser."""
    mean, std, generator = 0.5, 0.7, torch.Generator().manual_seed(0)
    solver, levels = make_scheduler(scheduler, config, steps), DDIMScheduler(**config)

    def noise() -> torch.Tensor:
        z = torch.randn(4096, 1, 1, 1, generator=generator)
        return (z - z.mean()) / z.std()

    z = noise()
    for t in solver.timesteps:
        alpha, sigma = levels.alphas_cumprod[t].sqrt(), (1 - levels.alphas_cumprod[t]).sqrt()
        variance = (alpha * std) ** 2 + sigma**2
        x0 = (mean * sigma**2 + alpha * std**2 * z) / variance
        epsilon = sigma * (z - alpha * mean) / variance
        predicted = {"epsilon": epsilon, "sample": x0, "v_prediction": alpha * epsilon - sigma * x0}
        output = predicted[config["prediction_type"]]
        output = output.bfloat16().float() if half else output
        fresh = noise() if scheduler == "ddpm" else None
        z = solver.step(output, t, z, variance_noise=fresh).prev_sample
    return z


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_exact_denoiser_gives_the_distribution(scheduler: str, noise: str) -> None:
    for prediction, half in itertools.product(PREDICTIONS, (False, True)):
        config = {"beta_schedule": noise, "prediction_type": prediction}
        z = gaussian_samples(scheduler, config, 103, half)  # diffusers' own levels for it reach -1
        assert abs(z.mean() - 0.5) < 0.01 and abs(z.std() - 0.7) < 0.05, (prediction, half)


def test_every_number_of_steps_falls_to_the_image() -> None:
    for prediction, most in (("v_prediction", 1000), ("epsilon", 996)):
        config = {"beta_schedule": NOISE[1], "prediction_type": prediction}
        for steps, name in itertools.product([*range(1, most + 1, 83), most], ("ddim", "dpm")):
            t = make_scheduler(name, config, steps).timesteps
            assert len(t) == steps and t[0] == most - 1 and t[-1] >= 0
            assert (t.diff() < 0).all()
        with pytest.raises(BadInput, match=f"has {most} noise levels"):
            make_scheduler("ddim", config, most + 1)


@pytest.mark.parametrize(("scheduler", "eta"), [("ddim", 0.0), ("ddpm", 1.0)])
def test_schedulers_are_those_of_diffusers(scheduler: str, eta: float) -> None:
    config = {"beta_schedule": NOISE[1], "prediction_type": "v_prediction"}
    ours = make_scheduler(scheduler, config, 25)
    theirs = DDIMScheduler(**config, clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(25)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    a = b = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for t in ours.timesteps:
        fresh = torch.randn(a.shape, generator=torch.Generator().manual_seed(int(t)))
        a = ours.step(a.tanh(), t, a, variance_noise=fresh).prev_sample
        b = theirs.step(b.tanh(), t, b, eta=eta, variance_noise=fresh).prev_sample
    assert (a - b).abs().max() < 1e-4 < a.std()
