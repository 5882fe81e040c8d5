"""Sampling: one seed per image, any batch size, resume, manifests, schedulers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DModel
from PIL import Image
from typer.testing import CliRunner

from nogaps.commands.main import app
from nogaps.prior import course, pictures, sampling
from nogaps.prior.loading import SHIPPED, WEIGHTS, Prior, load_prior
from nogaps.prior.pixel_space import PixelSpace
from nogaps.prior.sampling import generate, image_generators, sample_to
from nogaps.prior.schedulers import PREDICTIONS, SCHEDULERS, make_scheduler
from nogaps.runtime.files import BadInput, load_images, load_json, save_json, sha256

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
def test_batches_of_16_and_64_give_the_same_images(prior: Prior, scheduler: str) -> None:
    one = images(prior, n=64, batch_size=16, scheduler=scheduler)
    assert (one - images(prior, n=64, batch_size=64, scheduler=scheduler)).abs().max() <= 1e-5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_diversity_grows_with_temperature(prior: Prior, scheduler: str) -> None:
    stage = PixelSpace("haar", factor=2, scaling_factor=5.0)  # an untrained decoder normalises
    linear = dataclasses.replace(prior, vqvae=stage)

    def diversity(temperature: float) -> float:
        how = {"scheduler": scheduler, "temperature": temperature, "num_inference_steps": 20}
        x = images(linear, n=8, **how).flatten(1)
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


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_exact_denoiser_gives_the_distribution(scheduler: str, noise: str, half: bool) -> None:
    for steps in (103, 500):  # diffusers' own levels for 103 steps end with -1
        for prediction in PREDICTIONS:
            config = {"beta_schedule": noise, "prediction_type": prediction}
            z = gaussian_samples(scheduler, config, steps, half)
            assert abs(z.mean() - 0.5) < 0.01, (steps, prediction)
            assert abs(z.std() - 0.7) < 0.05, (steps, prediction)


def test_every_number_of_steps_falls_to_the_image() -> None:
    for prediction, most in (("v_prediction", 1000), ("epsilon", 996)):
        config = {"beta_schedule": NOISE[1], "prediction_type": prediction}
        for steps, name in itertools.product([*range(1, most + 1, 37), most], ("ddim", "dpm")):
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


def kill_when(prior_folder: Path, out: Path, batches: int, delay: float) -> None:
    """Start the command line, and end it with SIGKILL `delay` s after that many batches."""
    options = [str(v) for k, x in SETTINGS.items() for v in (f"--{k.replace('_', '-')}", x)]
    command = [sys.executable, "-m", "nogaps", "sample", "--out", str(out), *options]
    command += ["--prior", str(prior_folder), "--precision", "fp32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    record = out / ".partial" / "done-0.json"
    while not record.exists() or len(load_json(record)["batches"]) < batches:
        assert process.poll() is None and time.monotonic() < deadline, "nothing to kill"
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "images.npy").exists()


def resumed_like_straight(prior: Prior, folder: Path) -> bool:
    n, steps, batch_size, scheduler = SETTINGS.values()
    settings = {"scheduler": scheduler, "prior": prior, "precision": "fp32"}
    straight = sample_to(folder / "straight", n, steps, batch_size, **settings)
    resumed = sample_to(folder / "killed", n, steps, batch_size, **settings)
    names = sorted(path.name for path in resumed.parent.iterdir())
    return sha256(resumed) == sha256(straight) and names == ["images.npy", "manifest.json"]


def test_killed_sampling_continues_to_the_same_file(
    prior: Prior, prior_folder: Path, tmp_path: Path
) -> None:
    kill_when(prior_folder, tmp_path / "killed", 1, 0.01)
    assert resumed_like_straight(prior, tmp_path)


@pytest.mark.slow
def test_sampling_killed_at_five_points_continues_to_the_same_file(
    prior: Prior, prior_folder: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    for batches in range(1, 6):
        kill_when(prior_folder, tmp_path / "killed", batches, 0.3 * chance.random())
    assert resumed_like_straight(prior, tmp_path)


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
    with pytest.raises(BadInput, match="No such file"):
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
    options = {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}
    images = pipeline(generator=image_generators(0, 0, 2), **options).images
    (x,) = generate(2, 4, 2, "ddim", seed=0, prior=ours, precision="fp32")
    np.testing.assert_allclose(images[..., 0], x[:, 0], atol=1e-4)


def test_shipped_prior_draws_heads() -> None:
    x = torch.cat(generate(4, 6, 4, precision="fp32"))
    middle, corner = x[..., 20:40, 20:40].mean(), x[..., :6, :6].mean()
    assert middle > 0.15 > 0.1 > corner
    assert x.std() > 0.1


def test_grid_shows_the_images(tmp_path: Path) -> None:
    x = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    pictures.save_grid(tmp_path / "grid.png", x)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 14 + 2)  # 3 columns of 12 pixels, 2 between
    fourth = sheet[12:20:2, 2:14:2]
    np.testing.assert_array_equal(fourth, (255 * x[3, 0]).round().byte())
    assert (sheet[12:, 30:] == 128).all(), "no sixth image"


def test_film_ends_with_the_images(prior: Prior, tmp_path: Path) -> None:
    settings = {"num_inference_steps": 20, "scheduler": "ddpm", "precision": "fp32"}
    frames = pictures.record(prior, 42, 3, **settings)
    x = images(prior, n=3, **settings)
    assert frames.shape == (pictures.MOMENTS, 3, 1, 64, 64)
    assert (frames[-1] - x).abs().max() < 1e-5
    change = (frames - x).square().mean((1, 2, 3, 4))
    assert change[0] > change[len(change) // 2] > change[-1]
    assert len(pictures.record(prior, 42, 1, 3)) == 4, "each step once, and the image"
    pictures.save_film(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == len(frames) and film.info["loop"] == 0
    pictures.save_film(tmp_path / "film.png", frames)
    strip = np.asarray(Image.open(tmp_path / "film.png"))
    assert strip.shape == (3 * 130 + 2, len(frames) * 130 + 2)
    np.testing.assert_array_equal(strip[2:130:2, -130:-2:2], (255 * x[0, 0]).round().byte())
    for name in ("film.mp4", "film"):
        with pytest.raises(BadInput, match=r"expected \.gif or \.png"):
            pictures.save_film(tmp_path / name, frames)


def test_sample_draws_and_compares(prior_folder: Path, tmp_path: Path) -> None:
    options = ["sample", "--out", tmp_path / "s", "--num-samples", 3, "--steps", 2, "--json"]
    options += ["--prior", prior_folder, "--revision", "v1", "--temperature", 1.5]
    options += ["--grid", tmp_path / "grid.png", "--film", tmp_path / "film.gif"]
    options += ["--test-set", ROOT / "test_set.npy"]
    with pytest.warns(UserWarning) as notes:
        done = CliRunner().invoke(app, list(map(str, options)), catch_exceptions=False)
    found = json.loads(done.stdout)["found"]
    x, y = np.load(tmp_path / "s/images.npy"), np.load(ROOT / "test_set.npy")
    seen = (y != 0).any(0)
    assert found["std_ratio"] == pytest.approx(x[:, seen].std() / y[:, seen].std(), rel=1e-3)
    assert found["share_above"] == pytest.approx((y[:, seen] > x.max()).mean(), abs=1e-4)
    assert Image.open(tmp_path / "grid.png").size == Image.open(tmp_path / "film.gif").size
    texts = [str(note.message) for note in notes if note.category is UserWarning]
    assert len(texts) == 2 and "revision v1 does nothing" in texts[0] and "above 1" in texts[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--grid", "x.gif"], "x.gif: is an unknown kind"),
        (["--film", "x.mp4"], "x.mp4: is an unknown kind"),
        (["--prior", "course", "--film", "x.gif"], "does not show its steps"),
        (["--test-set", "absent.npy"], "absent.npy"),
    ],
)
def test_unusable_options_are_refused_first(tmp_path: Path, options: list[str], text: str) -> None:
    with pytest.raises(BadInput, match=re.escape(text)):
        CliRunner().invoke(
            app, ["sample", "--out", str(tmp_path / "s"), *options], catch_exceptions=False
        )
    assert not (tmp_path / "s").exists()


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
    with pytest.raises(BadInput, match="num_inference_steps 10, not 20"):
        course.generate(5, 20, 2, "ddim", 1.0, seed=0, out=tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(5, 64, 64),
        torch.ones(3, 1, 64, 64),
        2 * torch.arange(5.0)[:, None, None, None].expand(5, 1, 64, 64) - 1,
        torch.full((5, 1, 64, 64), torch.nan),
    ],
)
def test_courses_model_is_checked(value: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(value))
    with pytest.raises(BadInput, match="ese_invldm: returned"):
        course.generate(5, 10, 2)


def test_missing_course_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ese_invldm", None)
    with pytest.raises(BadInput, match="not installed"):
        course.generate(5)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scheduler": "dpm"}, "'dpm', expected ddim or ddpm, as the course's"),
        ({"num_inference_steps": 9}, "expected 10 to 50, as"),
        ({"num_inference_steps": 51}, "expected 10 to 50, as"),
        ({"temperature": 1.01}, "expected 0 to 1, as"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
@pytest.mark.filterwarnings("ignore:temperature")
def test_settings_that_the_courses_model_does_not_take(
    monkeypatch: pytest.MonkeyPatch, settings: dict, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(torch.rand(5, 1, 64, 64)))
    with pytest.raises(BadInput, match=text):
        course.generate(**{"num_samples": 5, **settings})


COURSE = """
import torch

def generate(num_samples, num_inference_steps, batch_size, scheduler, temperature, seed=42):
    generator = torch.Generator().manual_seed(seed)
    x = 0.62 * torch.rand(num_samples, 1, 64, 64, generator=generator) - 0.02
    return list((temperature * x).double().requires_grad_().split(batch_size))
"""


def test_courses_package_through_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "ese_invldm").mkdir()
    (tmp_path / "ese_invldm/__init__.py").write_text(COURSE)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))

    command = [sys.executable, "-m", "nogaps", "sample", "--prior", "course"]
    command += ["--out", tmp_path / "s", "--num-samples", "5", "--batch-size", "2"]
    command += ["--test-set", ROOT / "test_set.npy", "--grid", tmp_path / "grid.png"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    generator = torch.Generator().manual_seed(42)
    raw = 0.62 * torch.rand(5, 1, 64, 64, generator=generator) - 0.02
    np.testing.assert_array_equal(load_images(tmp_path / "s/images.npy"), raw.clamp(0, 1))
    y = np.load(ROOT / "test_set.npy")
    seen = y[:, (y != 0).any(0)]
    assert f"samples: in [-0.020, 0.600], mean {raw.clamp(0, 1).mean():.3f}" in done.stdout
    ratio = raw.clamp(0, 1)[:, (y != 0).any(0)].std() / seen.std()
    assert f"the samples' is {ratio:.2f} times that" in done.stdout
    assert f"{(seen > float(raw.max())).mean():.2%} of the observed" in done.stdout
    assert Image.open(tmp_path / "grid.png").size == (3 * 130 + 2, 2 * 130 + 2)
