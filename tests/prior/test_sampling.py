"""Sampling: one seed per image, any batch size, resume, settings that are not mixed."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DModel

from nogaps.prior import sampling
from nogaps.prior.loading import SHIPPED, Prior, load_prior
from nogaps.prior.pixel_space import PixelSpace
from nogaps.prior.sampling import generate, image_generators, sample_to
from nogaps.prior.schedulers import PREDICTIONS, SCHEDULERS
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_json, save_json, sha256

NOISE = ("linear", "squaredcos_cap_v2")


def images(prior: Prior, n: int = 6, batch_size: int = 4, **settings: object) -> torch.Tensor:
    settings = {"num_inference_steps": 3, "precision": "fp32", **settings}
    return torch.cat(generate(n, batch_size=batch_size, prior=prior, **settings))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_image_k_is_the_same_in_any_batch(prior: Prior, scheduler: str) -> None:
    one = images(prior, batch_size=1, scheduler=scheduler)
    many = images(prior, batch_size=6, scheduler=scheduler)
    fewer = images(prior, n=3, batch_size=2, scheduler=scheduler)
    assert one.shape == (6, 1, 64, 64) and one.dtype == torch.float32
    assert one.min() >= 0 and one.max() <= 1
    assert (one - many).abs().max() < 1e-5
    assert (one[:3] - fewer).abs().max() < 1e-5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_diversity_grows_with_temperature(prior: Prior, scheduler: str) -> None:
    stage = PixelSpace("haar", factor=2, scaling_factor=5.0)  # an untrained decoder normalises
    linear = dataclasses.replace(prior, vqvae=stage)

    def diversity(temperature: float) -> float:
        how = {"scheduler": scheduler, "temperature": temperature, "num_inference_steps": 8}
        x = images(linear, n=6, **how).flatten(1)
        return float(torch.pdist(x).mean()) / x.shape[1] ** 0.5

    low, middle, high = map(diversity, (0.5, 0.8, 1.0))
    assert 0.01 < low < 0.95 * middle and middle < 0.95 * high


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_seed_and_temperature_matter(prior: Prior, scheduler: str) -> None:
    x = images(prior, scheduler=scheduler)
    assert torch.equal(x, images(prior, scheduler=scheduler))
    assert not torch.equal(x, images(prior, scheduler=scheduler, seed=43))
    assert not torch.equal(x, images(prior, scheduler=scheduler, temperature=0.5))
    assert (x[0] - x[1]).abs().max() > 1e-3, "two images of one run are the same"


def test_temperature_zero_leaves_one_image_and_says_so(prior: Prior) -> None:
    with pytest.warns(UserWarning, match="temperature 0"):
        x = images(prior, n=2, temperature=0.0)
    assert torch.equal(x[0], x[1])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"temperature": 1.2}, "more noise than in training"),
        ({"scheduler": "ddpm", "num_inference_steps": 1}, "does what ddim does"),
        ({"scheduler": "dpm", "num_inference_steps": 1}, "does what ddim does"),
    ],
)
def test_choices_without_effect_or_out_of_range_are_named(
    prior: Prior, settings: dict, text: str
) -> None:
    with pytest.warns(UserWarning, match=text):
        x = images(prior, n=2, **settings)
    if "ddim" in text:
        assert (x - images(prior, n=2, **settings | {"scheduler": "ddim"})).abs().max() < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for scheduler in SCHEDULERS:
            images(prior, n=2, scheduler=scheduler)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_samples_at_any_size(prior: Prior, prediction: str, noise: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=(8, 12),
            in_channels=4,
            out_channels=4,
            block_out_channels=(16,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            norm_num_groups=8,
            layers_per_block=1,
        ).eval()
    config = {"beta_schedule": noise, "prediction_type": prediction}
    tiny = dataclasses.replace(prior, unet=unet, scheduler=config)
    for scheduler in SCHEDULERS:
        x = images(tiny, n=3, scheduler=scheduler, num_inference_steps=8)
        assert x.shape == (3, 1, 32, 48) and x.isfinite().all()
        assert x.min() >= 0 and x.max() <= 1
        assert (x[0] - x[1]).abs().max() > 1e-3
        one = images(tiny, n=3, batch_size=1, scheduler=scheduler, num_inference_steps=8)
        assert (x - one).abs().max() < 5e-5  # what an untrained denoiser makes of rounding


@pytest.mark.parametrize(
    ("key", "value"), [("prediction_type", "flow"), ("beta_schedule", "square")]
)
def test_unknown_noise_schedules_are_refused(
    prior: Prior, tmp_path: Path, key: str, value: str
) -> None:
    other = dataclasses.replace(prior, scheduler={**prior.scheduler, key: value})
    with pytest.raises(BadInput, match=value):
        sample_to(tmp_path / "out", 2, 2, prior=other)
    assert not (tmp_path / "out").exists()


def test_global_generator_is_untouched(prior: Prior) -> None:
    before = torch.random.get_rng_state()
    images(prior, n=2, scheduler="ddpm")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_have_the_shapes_of_the_courses_function(prior: Prior) -> None:
    batches = generate(5, 2, 2, "ddim", 1.0, seed=1, prior=prior)
    assert [tuple(batch.shape) for batch in batches] == [(2, 1, 64, 64)] * 2 + [(1, 1, 64, 64)]


def test_interrupted_sampling_continues_to_the_same_file(
    prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_inference_steps": 2, "batch_size": 2, "prior": prior}
    straight = sample_to(tmp_path / "straight", 7, **settings)
    made = []
    batch = sampling.sample_batch

    def interrupted(*arguments: object) -> torch.Tensor:
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return batch(*arguments)

    monkeypatch.setattr(sampling, "sample_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample_to(tmp_path / "resumed", 7, **settings)
    assert not (tmp_path / "resumed" / "images.npy").exists()
    resumed = sample_to(tmp_path / "resumed", 7, **settings)
    assert len(made) == 5, "finished batches were sampled again"
    assert sha256(resumed) == sha256(straight)
    assert sorted(p.name for p in resumed.parent.iterdir()) == ["images.npy", "manifest.json"]
    assert load_images(resumed).shape == (7, 1, 64, 64)
    assert load_json(resumed.parent / "manifest.json")["weights_sha256"] == prior.weights_sha256


SETTINGS = {"num_samples": 60, "steps": 8, "batch_size": 2, "scheduler": "ddpm"}


def test_folders_of_unknown_or_other_settings_are_refused(prior: Prior, tmp_path: Path) -> None:
    def refused(text: str, folder: Path) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(BadInput, match=text):
            sample_to(folder, 4, 2, 2, prior=prior)
        assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    whole = sample_to(tmp_path / "a", 4, 2, 2, prior=prior)
    manifest = whole.parent / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:40])
    refused("is not JSON.*use another folder", whole.parent)
    manifest.unlink()
    refused("no manifest.json", whole.parent)
    manifest.write_text(text)
    np.save(whole, np.load(whole)[:3])
    refused("has shape", whole.parent)
    partial = tmp_path / "b" / ".partial"
    partial.mkdir(parents=True)
    save_json(partial / "manifest.json", {**json.loads(text), "seed": 7})
    refused("seed 7, not 42", partial.parent)
    (partial / "manifest.json").write_text("")
    refused("is not JSON", partial.parent)


def test_killed_before_the_images_were_moved(prior: Prior, tmp_path: Path) -> None:
    straight = sample_to(tmp_path / "a", 4, 2, 2, prior=prior)
    settings = (tmp_path / "a/manifest.json").read_bytes()
    left = tmp_path / "b" / ".partial"
    left.mkdir(parents=True)
    for path in (left, left.parent):
        (path / "manifest.json").write_bytes(settings)
    assert sha256(sample_to(tmp_path / "b", 4, 2, 2, prior=prior)) == sha256(straight)
    left.mkdir()  # killed while it was being removed
    (left / "manifest.json").write_bytes(settings)
    sample_to(tmp_path / "b", 4, 2, 2, prior=prior)
    assert not left.exists()


def test_refused_settings_leave_nothing_behind(prior: Prior, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="scheduler"):
        sample_to(tmp_path / "out", 2, 2, scheduler="euler", prior=prior)
    assert not (tmp_path / "out").exists()


def test_precision_follows_the_device(prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, name in ((None, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        monkeypatch.setattr(sampling, "autocast_dtype", lambda device, dtype=dtype: dtype)
        assert sampling.resolve_precision("auto", prior.device) == name
        assert sampling.PRECISIONS[name] == dtype


@pytest.mark.parametrize(
    "settings",
    [
        {"num_samples": 0},
        {"num_inference_steps": 0},
        {"num_inference_steps": 1001},
        {"batch_size": 0},
        {"scheduler": "euler"},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"precision": "int8"},
    ],
)
def test_impossible_settings_are_refused(prior: Prior, settings: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(settings))):
        generate(**{"num_samples": 1, "num_inference_steps": 1, **settings}, prior=prior)


def test_shipped_prior_loads_in_diffusers_alone() -> None:
    pipeline = DiffusionPipeline.from_pretrained(SHIPPED, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    ours = load_prior()
    assert sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file()) < 20e6
    assert (SHIPPED / "README.md").exists()
    for mine, theirs in ((ours.unet, pipeline.unet), (ours.vqvae, pipeline.vqvae)):
        for (name, a), b in zip(
            mine.state_dict().items(), theirs.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), name
    options = {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}
    images = pipeline(generator=image_generators(0, 0, 2), **options).images
    (x,) = generate(2, 4, 2, "ddim", seed=0, prior=ours, precision="fp32")
    np.testing.assert_allclose(images[..., 0], x[:, 0], atol=1e-4)


def test_shipped_prior_draws_heads() -> None:
    x = torch.cat(generate(4, 6, 4, precision="fp32"))
    middle, corner = x[..., 20:40, 20:40].mean(), x[..., :6, :6].mean()
    assert middle > 0.15 > 0.1 > corner
    assert x.std() > 0.1
