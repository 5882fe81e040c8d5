"""Filling with draws from the prior: exact where observed, seeded, true to schedule and scale."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from pixel_space import PixelSpace

from nogaps.Assessment import corrupt
from nogaps.imputers import posterior as module
from nogaps.imputers.posterior import TOP, Posterior, ancestral_step, renoise
from nogaps.interpolation import linear
from nogaps.prior.diffusion import FORWARD, build_denoiser
from nogaps.prior.loading import PREDICTIONS, Prior
from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.errors import BadInput

STAGES = ("kl", "vqvae2", "haar")


def posterior(prior: Prior, **settings: object) -> Posterior:
    quick = {"num_draws": 2, "num_inference_steps": 2, "precision": "fp32"}
    return Posterior(linear(), prior, **{**quick, **settings})


def with_stage(prior: Prior, name: str) -> Prior:
    """The tiny prior, or one as tiny on another first stage; nothing is trained."""
    if name == "kl":
        return prior
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "vqvae2":
            stage = VQVAE2(width=16, inner_width=8, blocks=1, num_codes=16).eval()
            unet = build_denoiser(12, 32, (16, 32)).eval()
        else:
            stage, unet = PixelSpace(), build_denoiser(16, 16, (16, 32)).eval()
    return dataclasses.replace(prior, vqvae=stage, unet=unet.requires_grad_(False))


class Oracle(torch.nn.Module):
    """A denoiser that knows the noiseless latents."""

    def __init__(self, z0: torch.Tensor, prediction: str) -> None:
        super().__init__()
        self.z0 = torch.nn.Parameter(z0, requires_grad=False)
        self.alpha_bar = FORWARD.alphas_cumprod
        self.prediction = prediction
        self.config = SimpleNamespace(sample_size=16, in_channels=16)

    def forward(self, z: torch.Tensor, t: int) -> SimpleNamespace:
        alpha, sigma = self.alpha_bar[t].sqrt(), (1 - self.alpha_bar[t]).sqrt()
        epsilon = (z - alpha * self.z0) / sigma
        v = alpha * epsilon - sigma * self.z0
        found = {"epsilon": epsilon, "sample": self.z0, "v_prediction": v}
        return SimpleNamespace(sample=found[self.prediction])


@pytest.fixture
def y(corrupted: torch.Tensor) -> torch.Tensor:
    return corrupted[:3].clone()


@pytest.mark.parametrize("stage", STAGES)
def test_observed_pixels_are_identical(
    prior: Prior, y: torch.Tensor, mask: torch.Tensor, corrupted: torch.Tensor, stage: str
) -> None:
    model = posterior(with_stage(prior, stage))
    draws, seen = model.draws(y, mask), mask.expand_as(y)
    assert draws.shape == (2, 3, 1, 64, 64) and draws.dtype == torch.float32
    for x_hat in (*draws, model(y, mask)):
        assert torch.equal(x_hat[seen], y[seen])
        assert x_hat.min() >= 0 and x_hat.max() <= 1
    assert draws[:, ~seen].std() > 0.01, "holes look constant"
    assert torch.equal(y, corrupted[:3]), "the input was changed"


def test_seeds_number_images_and_draws(prior: Prior, y: torch.Tensor, mask: torch.Tensor) -> None:
    y[1] = y[0]
    one = posterior(prior).draws(y, mask)
    assert torch.equal(posterior(prior).draws(y, mask), one)
    garbage = torch.where(mask, y, 0.77)  # what lies in the holes does not matter
    torch.testing.assert_close(posterior(prior).draws(garbage, mask), one, rtol=0, atol=1e-4)
    dark = posterior(prior).draws(0.5 * y, mask)
    torch.testing.assert_close(dark, 0.5 * one, rtol=0, atol=1e-3)
    more = posterior(prior, num_draws=3).draws(y, mask)
    torch.testing.assert_close(more[:2], one, rtol=0, atol=1e-5)
    changed = ({"seed": 43}, {"strength": 0.9}, {"num_inference_steps": 3})
    others = [posterior(prior, **settings).draws(y, mask)[0, 0] for settings in changed]
    filled = [*more[:, 0], *more[:, 1], *others]  # nine fillings of one image
    for i, a in enumerate(filled):
        assert all((a - b).abs().max() > 0.01 for b in filled[:i])


@pytest.mark.parametrize("stage", ["kl", "haar"])
def test_a_draw_does_not_depend_on_its_batch(
    prior: Prior,
    y: torch.Tensor,
    mask: torch.Tensor,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = torch.cat([mask, mask.flip(-1), mask])
    prior = with_stage(prior, stage)
    whole = posterior(prior).draws(y, masks)
    for batch_size in (1, 4):
        with monkeypatch.context() as patch:
            patch.setattr(module, "BATCH_SIZE", batch_size)
            again = posterior(prior).draws(y, masks)
        torch.testing.assert_close(again, whole, rtol=0, atol=1e-4)
    first = posterior(prior).draws(y[:1], masks[:1])
    torch.testing.assert_close(first, whole[:, :1], rtol=0, atol=1e-4)


def test_without_noise_the_imputer_remains(
    prior: Prior, y: torch.Tensor, mask: torch.Tensor
) -> None:
    prior = with_stage(prior, "haar")
    dark = linear()(0.4 * y, mask)
    top = torch.stack([image[mask[0]].quantile(TOP) for image in 0.4 * y]).view(-1, 1, 1, 1)
    start = torch.where(mask, dark, dark.minimum(top))

    def distance(strength: float) -> float:
        x_hat = posterior(prior, strength=strength, num_inference_steps=1)(0.4 * y, mask)
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
    settings = {"strength": 0.9, "num_inference_steps": 5}
    draws = posterior(prior, num_draws=1, **settings).draws(y, mask)
    expected = torch.where(mask, y, top * truth)
    torch.testing.assert_close(draws[0], expected, rtol=0, atol=1e-4)


def test_a_step_leads_to_the_next_noise_level() -> None:
    numbers = [torch.Generator().manual_seed(k) for k in range(4)]
    z0 = torch.full((4, 4, 64, 64), 2.0)
    z = ancestral_step(renoise(z0, 1.0, 0.3, numbers), z0, 0.3, 0.7, numbers)
    for level, latents in ((0.7, z), (0.3, renoise(z, 0.7, 0.3, numbers))):
        assert latents.mean().item() == pytest.approx(2 * level**0.5, abs=0.02)
        assert latents.var().item() == pytest.approx(1 - level, rel=0.03)
    assert torch.equal(ancestral_step(z, z0, 0.7, 1.0, numbers), z0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_draws": 0}, "num_draws 0 .* expected 1 to 1024"),
        ({"num_draws": 2000}, "num_draws 2000 .* expected 1 to 1024"),
        ({"num_inference_steps": 20, "strength": 0.01}, "steps 20 .* at most 10, .* strength 0.01"),
        ({"strength": float("nan")}, "strength nan .* expected above 0, at most 1"),
        ({"precision": "fp8"}, "precision 'fp8'"),
    ],
)
def test_impossible_settings_are_refused(prior: Prior, settings: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        posterior(prior, **settings)
    assert "\n" not in str(error.value)


def test_unusable_images_are_refused(prior: Prior, y: torch.Tensor, mask: torch.Tensor) -> None:
    cases = {
        "images of 1×32×64: the prior was trained on 1×64×64": (y[:, :, :32], mask[:, :, :32]),
        "images of 3×64×64": (y.expand(-1, 3, -1, -1), mask),
        "mask: an image has no observed pixel": (y, torch.stack([*mask, *mask, 0 * mask[0]]) > 0),
    }
    for message, (images, seen) in cases.items():
        with pytest.raises(BadInput, match=message) as error:
            posterior(prior)(images, seen)
        assert "\n" not in str(error.value)
