"""Sampling: one seed per image, any batch size, resume, manifests, what users are told."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import ROOT
from diffusers import DiffusionPipeline
from PIL import Image
from pixel_space import PixelSpace
from typer.testing import CliRunner

from nogaps.commands.main import app
from nogaps.prior import sampling
from nogaps.prior.loading import SCHEDULERS, SHIPPED, Prior, load_prior
from nogaps.prior.sampling import (
    Process,
    generate,
    image_generators,
    record,
    sample_to,
    save_film,
    save_grid,
)
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_json, save_json, sha256


def images(prior: Prior, n: int = 6, batch_size: int = 4, **settings: object) -> torch.Tensor:
    settings = {"num_inference_steps": 3, "precision": "fp32", **settings}
    return torch.cat(generate(n, batch_size=batch_size, prior=prior, **settings))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_image_k_depends_on_seed_and_temperature_but_on_no_batch(
    prior: Prior, scheduler: str
) -> None:
    """That a second call gives the same bits: tests/commands/test_reproducibility.py."""
    x = images(prior, n=32, batch_size=16, scheduler=scheduler)
    assert x.shape == (32, 1, 64, 64) and x.dtype == torch.float32
    assert x.min() >= 0 and x.max() <= 1
    for n, batch_size in ((32, 32), (6, 1), (5, 2)):
        other = images(prior, n, batch_size, scheduler=scheduler)
        assert len(other) == n and (x[:n] - other).abs().max() <= 1e-5
    for change in ({"seed": 43}, {"temperature": 0.5}):
        assert (x[:2] - images(prior, 2, scheduler=scheduler, **change)).abs().max() > 1e-3
    assert (x[0] - x[1]).abs().max() > 1e-3, "two images of one run are the same"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_diversity_grows_with_temperature(prior: Prior, scheduler: str) -> None:
    """Also where each step adds noise of its own."""
    stage = PixelSpace(factor=2, scaling_factor=5.0)  # an untrained decoder normalises
    linear = dataclasses.replace(prior, vqvae=stage)

    def diversity(temperature: float) -> float:
        how = {"scheduler": scheduler, "temperature": temperature, "num_inference_steps": 10}
        x = images(linear, n=8, **how).flatten(1)
        return float(torch.pdist(x).mean()) / x.shape[1] ** 0.5

    low, middle, high = map(diversity, (0.5, 0.8, 1.0))
    assert 0.01 < low < 0.95 * middle and middle < 0.95 * high


def test_choices_without_effect_or_out_of_range_are_named(prior: Prior) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        images(prior, n=2)
    with pytest.warns(UserWarning, match="temperature 0"):
        x = images(prior, n=2, temperature=0.0)
    assert torch.equal(x[0], x[1])
    with pytest.warns(UserWarning, match="more noise than in training"):
        images(prior, n=1, temperature=1.2)


def test_a_folder_is_of_its_settings(prior: Prior, tmp_path: Path) -> None:
    """That an interrupted call goes on: tests/commands/test_resumable.py."""

    def refused(text: str, folder: Path, steps: int = 2) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(BadInput, match=text):
            sample_to(folder, 7, steps, 2, prior=prior)
        assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    path = sample_to(tmp_path / "a", 7, 2, 2, prior=prior)
    manifest = path.parent / "manifest.json"
    assert sorted(path.parent.iterdir()) == [path, manifest]
    assert load_images(path).shape == (7, 1, 64, 64)
    assert load_json(manifest)["weights_sha256"] == prior.weights_sha256
    refused("num_inference_steps 2, not 3", path.parent, 3)
    text = manifest.read_text()
    manifest.write_text(text[:40])
    refused("is not JSON.*use another folder", path.parent)
    manifest.unlink()
    refused("no manifest.json", path.parent)
    manifest.write_text(text)
    np.save(path, np.load(path)[:3])
    refused("has shape", path.parent)
    partial = tmp_path / "b" / ".images.npy.partial"
    partial.mkdir(parents=True)
    save_json(partial / "manifest.json", {**json.loads(text), "seed": 7})
    refused("seed 7, not 42", partial.parent)


def test_killed_before_the_images_were_moved(prior: Prior, tmp_path: Path) -> None:
    straight = sample_to(tmp_path / "a", 4, 2, 2, prior=prior)
    settings = (tmp_path / "a/manifest.json").read_bytes()
    left = tmp_path / "b" / ".images.npy.partial"
    left.mkdir(parents=True)
    for path in (left, left.parent):
        (path / "manifest.json").write_bytes(settings)
    assert sha256(sample_to(tmp_path / "b", 4, 2, 2, prior=prior)) == sha256(straight)
    left.mkdir()  # killed while it was being removed
    (left / "manifest.json").write_bytes(settings)
    sample_to(tmp_path / "b", 4, 2, 2, prior=prior)
    assert not left.exists()


def test_precision_follows_the_device(prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, name in ((None, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        monkeypatch.setattr(sampling, "autocast_dtype", lambda device, dtype=dtype: dtype)
        assert sampling.resolve_precision("auto", prior.device) == name
        assert sampling.PRECISIONS[name] == dtype


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", 0),
        ("num_inference_steps", 0),
        ("num_inference_steps", 1001),
        ("batch_size", 0),
        ("scheduler", "euler"),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("precision", "int8"),
        ("prediction_type", "flow"),
        ("beta_schedule", "square"),
    ],
)
def test_impossible_settings_are_refused(
    prior: Prior, tmp_path: Path, name: str, value: object
) -> None:
    settings: dict = {"num_samples": 1, "num_inference_steps": 1}
    if name in ("prediction_type", "beta_schedule"):
        prior = dataclasses.replace(prior, scheduler=prior.scheduler | {name: value})
    else:
        settings[name] = value
    for out in (None, tmp_path / "out"):
        with pytest.raises(BadInput, match=f"{name}.*{value}|{value}"):
            generate(**settings, prior=prior, out=out)
    assert not (tmp_path / "out").exists()


def test_shipped_prior_draws_heads_in_diffusers_alone_as_well() -> None:
    pipeline = DiffusionPipeline.from_pretrained(SHIPPED, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    ours = load_prior()
    assert sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file()) < 20e6
    options = {"batch_size": 4, "num_inference_steps": 5, "output_type": "np"}
    images = pipeline(generator=image_generators(0, 0, 4), **options).images
    (x,) = generate(4, 5, 4, "ddim", seed=0, prior=ours, precision="fp32")
    np.testing.assert_allclose(images[..., 0], x[:, 0], atol=1e-4)
    middle, corner = x[..., 20:40, 20:40].mean(), x[..., :6, :6].mean()
    assert middle > 0.15 > 0.1 > corner and x.std() > 0.1


def sample(folder: Path, *options: object) -> Result:
    words = ["sample", "--out", folder / "s", *options]
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def test_sample_draws_and_compares(prior_folder: Path, tmp_path: Path) -> None:
    grid, film, test_set = tmp_path / "grid.png", tmp_path / "film.gif", ROOT / "test_set.npy"
    options = ["--num-samples", 3, "--steps", 2, "--prior", prior_folder, "--revision", "v1"]
    options += ["--temperature", 1.5, "--grid", grid, "--film", film, "--test-set", test_set]
    with pytest.warns(UserWarning) as notes:
        done = sample(tmp_path, *options, "--json")
    values = json.loads(done.stdout)["found"]
    x, y = np.load(tmp_path / "s/images.npy"), np.load(test_set)
    seen = (y != 0).any(0)
    assert values["std_ratio"] == pytest.approx(x[:, seen].std() / y[:, seen].std(), rel=1e-3)
    assert values["share_above"] == pytest.approx((y[:, seen] > x.max()).mean(), abs=1e-4)
    assert Image.open(grid).size == Image.open(film).size
    texts = [str(note.message) for note in notes if note.category is UserWarning]
    assert len(texts) == 2 and "revision v1 does nothing" in texts[0] and "above 1" in texts[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--grid", "x.gif"], "x.gif: is an unknown kind"),
        (["--film", "x.mp4"], "x.mp4: is an unknown kind of picture, expected .gif"),
        (["--prior", "course", "--film", "x.gif"], "does not show its steps"),
        (["--test-set", "absent.npy"], "absent.npy"),
    ],
)
def test_unusable_options_are_refused_first(tmp_path: Path, options: list[str], text: str) -> None:
    with pytest.raises(BadInput, match=re.escape(text)):
        sample(tmp_path, *options)
    assert not (tmp_path / "s").exists()


def test_grid_shows_the_images(tmp_path: Path) -> None:
    x = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    save_grid(tmp_path / "grid.png", x)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 14 + 2)  # 3 columns of 12 pixels, 2 between
    fourth = sheet[12:20:2, 2:14:2]
    np.testing.assert_array_equal(fourth, (255 * x[3, 0]).round().byte())
    assert (sheet[12:, 30:] == 128).all(), "no sixth image"


def test_film_ends_with_the_images(prior: Prior, tmp_path: Path) -> None:
    process = Process(20, "ddpm", precision="fp32")
    frames = record(prior, 42, 3, process)
    (x,) = generate(3, 20, 3, "ddpm", prior=prior, precision="fp32")
    assert frames.shape == (sampling.MOMENTS, 3, 1, 64, 64)
    assert (frames[-1] - x).abs().max() < 1e-5
    change = (frames - x).square().mean((1, 2, 3, 4))
    assert change[0] > change[len(change) // 2] > change[-1]
    shape = record(prior, 42, 9, Process(3)).shape
    assert shape[:2] == (4, sampling.FILM_IMAGES), "each step once, and the images; no more of them"
    save_film(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == len(frames) and film.info["loop"] == 0
