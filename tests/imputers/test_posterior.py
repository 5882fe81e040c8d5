"""Filling with draws from the prior: exact where observed, seeded, true to schedule and scale."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from image_files import refused
from pixel_space import PixelSpace

from nogaps.Assessment import corrupt
from nogaps.imputers import posterior as module
from nogaps.imputers.posterior import TOP, Posterior, ancestral_step, forward
from nogaps.interpolation import linear
from nogaps.prior.diffusion import FORWARD, build_denoiser
from nogaps.prior.loading import PREDICTIONS, Prior
from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.errors import BadInput


def posterior(prior: Prior, **settings: object) -> Posterior:
    quick = {"num_draws": 2, "num_inference_steps": 2, "precision": "fp32"}
    return Posterior(linear(), prior, **{**quick, **settings})


def with_stage(prior: Prior, name: str) -> Prior:
    """The tiny prior, or one as tiny on another first stage; nothing is trained."""
    if name == "kl":
        return prior
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vqvae2 = VQVAE2(width=16, inner_width=8, blocks=1, num_codes=16).eval()
        stage, shape = (vqvae2, (12, 32)) if name == "vqvae2" else (PixelSpace(), (16, 16))
        unet = build_denoiser(*shape, (16, 32)).eval().requires_grad_(False)
    return dataclasses.replace(prior, vqvae=stage, unet=unet)


class Oracle(torch.nn.Module):
    """A denoiser that knows the noiseless latents."""

    def __init__(self, z0: torch.Tensor, prediction: str) -> None:
        super().__init__()
        self.z0, self.prediction = torch.nn.Parameter(z0, requires_grad=False), prediction
        self.config = SimpleNamespace(sample_size=16, in_channels=16)

    def forward(self, z: torch.Tensor, t: int) -> SimpleNamespace:
        alpha, sigma = FORWARD.alphas_cumprod[t].sqrt(), (1 - FORWARD.alphas_cumprod[t]).sqrt()
        epsilon = (z - alpha * self.z0) / sigma
        outputs = {"epsilon": epsilon, "sample": self.z0}
        outputs["v_prediction"] = alpha * epsilon - sigma * self.z0
        return SimpleNamespace(sample=outputs[self.prediction])


@pytest.mark.parametrize("stage", ["kl", "vqvae2", "haar"])
def test_observed_pixels_are_identical(
    prior: Prior, mask: torch.Tensor, corrupted: torch.Tensor, stage: str
) -> None:
    model, y = posterior(with_stage(prior, stage)), corrupted[:3].clone()
    draws, seen = model.draws(y, mask), mask.expand_as(y)
    assert draws.shape == (2, 3, 1, 64, 64) and draws.dtype == torch.float32
    for x_hat in (*draws, model(y, mask)):
        assert torch.equal(x_hat[seen], y[seen])
        assert x_hat.min() >= 0 and x_hat.max() <= 1
    assert draws[:, ~seen].std() > 0.01, "holes look constant"
    assert torch.equal(y, corrupted[:3]), "the input was changed"


def test_seeds_number_images_and_draws(
    prior: Prior, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    y, model = corrupted[[0, 0, 2]], posterior(prior)
    one = model.draws(y, mask)
    garbage = torch.where(mask, y, 0.77)  # what lies in the holes does not matter
    torch.testing.assert_close(model.draws(garbage, mask), one, rtol=0, atol=1e-4)
    torch.testing.assert_close(model.draws(0.5 * y, mask), 0.5 * one, rtol=0, atol=1e-3)
    more = posterior(prior, num_draws=3).draws(y, mask)
    torch.testing.assert_close(more[:2], one, rtol=0, atol=1e-5)
    changed = ({"seed": 43}, {"strength": 0.9}, {"num_inference_steps": 3})
    others = [posterior(prior, **settings).draws(y, mask)[0, 0] for settings in changed]
    filled = [*more[:, 0], *more[:, 1], *others]  # nine fillings of one image
    for i, a in enumerate(filled):
        assert all((a - b).abs().max() > 0.01 for b in filled[:i])


@pytest.mark.parametrize("stage", ["kl", "haar"])
def test_a_draw_does_not_depend_on_its_batch(
    prior: Prior, corrupted: torch.Tensor, mask: torch.Tensor, stage: str, monkeypatch
) -> None:
    y, masks = corrupted[:3], torch.cat([mask, mask.flip(-1), mask])
    model = posterior(with_stage(prior, stage))
    whole, first = model.draws(y, masks), model.draws(y[:1], masks[:1])
    torch.testing.assert_close(first, whole[:, :1], rtol=0, atol=1e-4)
    for batch_size in (1, 4):
        monkeypatch.setattr(module, "BATCH_SIZE", batch_size)
        torch.testing.assert_close(model.draws(y, masks), whole, rtol=0, atol=1e-4)


def test_without_noise_the_imputer_remains(
    prior: Prior, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    prior, y = with_stage(prior, "haar"), 0.4 * corrupted[:3]
    filled = linear()(y, mask)
    top = y[:, mask[0]].quantile(TOP, 1).view(-1, 1, 1, 1)
    start = torch.where(mask, filled, filled.minimum(top))

    def distance(strength: float) -> float:
        x_hat = posterior(prior, strength=strength, num_inference_steps=1)(y, mask)
        return float((x_hat - start).abs().max())

    near, middle, far = (distance(strength) for strength in (0.001, 0.1, 0.8))
    assert near < 0.05 < middle < far


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_denoiser_gives_the_truth(
    prior: Prior, clean: torch.Tensor, mask: torch.Tensor, prediction: str
) -> None:
    y = corrupt(0.6 * clean[:1], mask)
    top = y[mask].quantile(TOP)
    truth, stage = (0.6 * clean[:1] / top).clamp(0, 1), PixelSpace()
    unet = Oracle(stage.encode(2 * truth - 1).latent_dist.mean, prediction)
    schedule = {**FORWARD.config, "prediction_type": prediction}
    prior = dataclasses.replace(prior, vqvae=stage, unet=unet, scheduler=schedule)
    (x_hat,) = posterior(prior, num_draws=1, strength=0.9, num_inference_steps=5).draws(y, mask)
    torch.testing.assert_close(x_hat, torch.where(mask, y, top * truth), rtol=0, atol=1e-4)


def test_a_step_leads_to_the_next_noise_level() -> None:
    numbers = [torch.Generator().manual_seed(k) for k in range(4)]
    z0 = torch.full((4, 4, 64, 64), 2.0)
    noisy = forward(z0, 0.3, numbers)
    z = ancestral_step(noisy, z0, 0.3, 0.7, numbers)
    for level, latents in ((0.7, z), (0.3, noisy)):
        assert latents.mean().item() == pytest.approx(2 * level**0.5, abs=0.02)
        assert latents.var().item() == pytest.approx(1 - level, rel=0.03)
    assert torch.equal(ancestral_step(z, z0, 0.7, 1.0, numbers), z0)


def test_what_is_impossible_is_refused(
    prior: Prior, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    for message, settings in {
        "num_draws 0 is not possible, expected 1 to 1024": {"num_draws": 0},
        "num_draws 2000 is not possible": {"num_draws": 2000},
        "at most 10, the noise levels of strength 0.01": {"num_inference_steps": 20},
        "strength nan is not possible, expected above 0, at most 1": {"strength": float("nan")},
        "precision 'fp8'": {"precision": "fp8"},
    }.items():
        small = {"strength": 0.01} if "levels" in message else {}
        assert message in refused(lambda s={**small, **settings}: posterior(prior, **s))
    y, model = corrupted[:3], posterior(prior)
    for message, images, seen in (
        ("images of 1×32×64: the prior was trained on 1×64×64", y[:, :, :32], mask[:, :, :32]),
        ("images of 3×64×64", y.expand(-1, 3, -1, -1), mask),
        ("mask: an image has no observed pixel", y, torch.cat([mask, mask, 0 * mask]).bool()),
    ):
        with pytest.raises(BadInput, match=message):
            model(images, seen)
