"""Sampling: one seed per image, any batch size, resume, manifests, schedulers."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from nogaps.files import BadInput, load_images, load_json, sha256
from nogaps.prior import course, sampling
from nogaps.prior.loading import SHIPPED, WEIGHTS, Prior, load_prior
from nogaps.prior.sampling import SCHEDULERS, generate, sample_to


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


def test_half_written_batches_are_not_joined(prior: Prior, tmp_path: Path) -> None:
    straight = sample_to(tmp_path / "straight", 5, 2, 2, prior=prior)
    partial = tmp_path / "resumed" / ".partial"
    partial.mkdir(parents=True)
    (partial / ".00000002.k1ll3d.npy").write_bytes(b"half a file")
    assert sha256(sample_to(tmp_path / "resumed", 5, 2, 2, prior=prior)) == sha256(straight)


def test_refused_settings_leave_nothing_behind(prior: Prior, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="scheduler"):
        sample_to(tmp_path / "out", 2, 2, scheduler="euler", prior=prior)
    assert not (tmp_path / "out").exists()


def test_precision_follows_the_device(prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, name in ((None, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        monkeypatch.setattr(sampling, "autocast_dtype", lambda device, dtype=dtype: dtype)
        assert sampling.resolve_precision("auto", prior.device) == name
        assert sampling.PRECISIONS[name] == dtype


def test_manifests_are_not_mixed(prior: Prior, tmp_path: Path) -> None:
    path = sample_to(tmp_path, 2, 2, prior=prior)
    before = sha256(path)
    with pytest.raises(BadInput, match="num_inference_steps 2, not 3"):
        sample_to(tmp_path, 2, 3, prior=prior)
    assert sha256(path) == before


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


def test_damaged_weights_are_refused(prior_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "prior"
    shutil.copytree(prior_folder, folder)
    weights = folder / "unet" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(BadInput, match="unet"):
        load_prior(folder)
    weights.unlink()
    with pytest.raises(BadInput, match="not found"):
        load_prior(folder)


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


def test_shipped_prior_draws_heads() -> None:
    x = torch.cat(generate(4, 6, 4, precision="fp32"))
    middle, corner = x[..., 20:40, 20:40].mean(), x[..., :6, :6].mean()
    assert middle > 0.15 > 0.1 > corner
    assert x.std() > 0.1


def fake_course(value: torch.Tensor) -> types.ModuleType:
    module = types.ModuleType("ese_invldm")

    def generate(num_samples, num_inference_steps, batch_size, scheduler, temperature, seed=42):
        return list(value[:num_samples].split(batch_size))

    module.generate = generate
    return module


def test_courses_model_takes_our_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.02 - 0.01
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(value))
    batches = course.generate(5, 10, 2, "ddim", 1.0, seed=0, out=tmp_path)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(load_images(tmp_path / "images.npy"), value.clamp(0, 1))
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(value * 0))
    again = course.generate(5, 10, 2, "ddim", 1.0, seed=0, out=tmp_path)
    assert torch.equal(torch.cat(again), value.clamp(0, 1)), "the saved set was made again"
    with pytest.raises(BadInput, match="other settings"):
        course.generate(5, 20, 2, "ddim", 1.0, seed=0, out=tmp_path)


@pytest.mark.parametrize("value", [torch.ones(5, 64, 64), 2 * torch.rand(5, 1, 64, 64) - 1])
def test_courses_model_is_checked(value: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(value))
    with pytest.raises(BadInput, match="ese_invldm: returned"):
        course.generate(5, 10, 2)


def test_missing_course_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ese_invldm", None)
    with pytest.raises(BadInput, match="not installed"):
        course.generate(5)
