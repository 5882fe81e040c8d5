"""The stages of the prior, trained for a few steps at a tiny size."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline

from nogaps.prior import training
from nogaps.prior.autoencoder import build_autoencoder, encode, reconstruct, train_autoencoder
from nogaps.prior.diffusion import train_diffusion
from nogaps.prior.frames import load_frames, to_size
from nogaps.prior.loading import Prior, load_part, load_prior
from nogaps.prior.refine import (
    Pair,
    adversarial_loss,
    latent_bank,
    refine_decoder,
    train_prior,
)
from nogaps.prior.sampling import generate
from nogaps.prior.training import Schedule
from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.checkpoint import load_state
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import save_json, sha256


def small(steps: int, **options: object) -> Schedule:
    return Schedule(steps, 4, 2e-3, validate_every=2, **options)


@pytest.fixture(scope="module", autouse=True)
def no_curves_and_no_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "time", SimpleNamespace(monotonic=lambda: 0.0))
        patch.setattr(training, "SAVE", -1.0)  # after every step
        patch.setattr(training, "save_curves", lambda *_: None)  # slow, and tested elsewhere
        yield


def stages(kind: str, frames: Path, out: Path) -> list[Callable[[], object]]:
    """All stages of a first stage's kind; a longer run would change nothing that is tested here."""
    shape: dict = {"widths": (8, 8, 8), "latent_channels": 4}
    if kind == "vqvae2":
        shape = dict(latent_channels=6, top_channels=2, width=8, inner_width=4, num_codes=16)
    calls = [
        lambda: train_autoencoder([frames], out, small(4), kind, **shape),
        lambda: train_diffusion([frames], out, small(4), copies=1, widths=(16, 32)),
        lambda: refine_decoder([frames], out, small(4), samples=4),
    ]
    return calls if kind == "kl" else calls[:2]


@pytest.fixture(scope="module")
def frames(frames_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame file for training images of 16×16: quick, and no other work."""
    path = tmp_path_factory.mktemp("small") / "frames.npz"
    with np.load(frames_file, allow_pickle=False) as archive:
        np.savez(path, **{**archive, "images": archive["images"][:, ::4, ::4]})
    return path


@pytest.fixture(scope="module")
def trained(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior of each kind."""
    out = tmp_path_factory.mktemp("run")
    for kind in ("kl", "vqvae2"):
        for stage in stages(kind, frames, out / kind):
            stage()
    return out


@pytest.fixture(scope="module")
def kl(trained: Path) -> Path:
    return trained / "kl"


def weights(prior: Prior) -> dict[str, torch.Tensor]:
    """Those of both networks, by their names after "vqvae." and "unet."."""
    return torch.nn.ModuleDict({"vqvae": prior.vqvae, "unet": prior.unet}).state_dict()


def contents(folder: Path) -> dict[str, str]:
    """Hashes of every file: weights, latents, configs, logs and states."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): sha256(path) for path in files}


@pytest.mark.parametrize("kind", ["kl", "vqvae2"])
def test_interrupted_stages_continue_to_the_same_bits(
    trained: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    step = training._train_step

    def interrupted(number: int, *rest: object) -> dict:
        if number == 3:
            raise KeyboardInterrupt
        return step(number, *rest)

    for stage in stages(kind, frames, tmp_path):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(training, "_train_step", interrupted)
            stage()
        stage()
    assert contents(tmp_path) == contents(trained / kind)


@pytest.mark.parametrize(
    ("kind", "model", "columns"),
    [("kl", AutoencoderKL, {"kl"}), ("vqvae2", VQVAE2, {"commitment", "perplexity_top"})],
)
def test_they_leave_a_prior_that_samples(
    trained: Path, kind: str, model: type, columns: set[str]
) -> None:
    prior = load_prior(trained / kind / "pipeline")
    (x,) = generate(2, 2, 2, prior=prior)
    assert isinstance(prior.vqvae, model)
    assert x.shape == (2, 1, 16, 16) and torch.isfinite(x).all()
    for stage, scored in (("autoencoder", {"val_psnr", "val_ssim"}), ("diffusion", {"val_loss"})):
        with open(trained / kind / stage / "log.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["2", "4"]
        names = scored | (columns if stage == "autoencoder" else {"loss"})
        assert all(np.isfinite(float(row[name])) for row in rows for name in names)


def test_latent_scale_is_that_of_the_training_set(kl: Path, frames: Path) -> None:
    vqvae, x = load_part(kl / "vqvae", AutoencoderKL), to_size(load_frames(frames)[0])
    std = (encode(vqvae, x) * vqvae.config.scaling_factor).std()
    assert float(std) == pytest.approx(1, abs=0.02)
    x_hat = reconstruct(vqvae, torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert x_hat.shape == (3, 1, 64, 64) and x_hat.min() >= 0 and x_hat.max() <= 1


def test_refinement_changes_the_decoder_only(kl: Path) -> None:
    before, after = (weights(load_prior(kl / name)) for name in ("pipeline", "refined"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed} == {"decoder", "post_quant_conv"}
    pipeline = DiffusionPipeline.from_pretrained(kl / "refined", local_files_only=True)
    assert isinstance(pipeline.vqvae, AutoencoderKL)


def test_a_prior_is_trained_further(kl: Path, frames: Path, tmp_path: Path) -> None:
    short = Schedule(1, 4, 1e-6, validate_every=1, ema_decay=0)
    train_diffusion([frames], tmp_path, short, 0, (16, 32), start=kl / "refined")
    before, after = weights(load_prior(kl / "refined")), weights(load_prior(tmp_path / "pipeline"))
    for name, value in before.items():
        # one step of a millionth cannot lead far from where it began
        most = 0 if name.startswith("vqvae") else 1e-3
        assert (value - after[name]).abs().max() <= most, name
    other = shutil.copytree(kl / "refined", tmp_path / "other")
    save_json(other / "scheduler/scheduler_config.json", {"prediction_type": "epsilon"})
    for message, out, widths, start in (
        (r"other settings .*start", tmp_path, (16, 32), kl / "pipeline"),
        ("of another size", tmp_path / "b", (32, 32), kl / "refined"),
        ("predicts epsilon", tmp_path / "c", (16, 32), other),
    ):
        with pytest.raises(BadInput, match=message):
            train_diffusion([frames], out, short, 0, widths, start=start)


def test_what_cannot_be_trained_is_one_line(trained: Path, frames: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="AutoencoderKL to refine"):
        refine_decoder([frames], trained / "vqvae2", small(1), samples=4)
    with pytest.raises(BadInput, match="vae3"):
        train_autoencoder([frames], tmp_path, small(4), "vae3")


def test_one_call_trains_everything(frames: Path, tmp_path: Path) -> None:
    def train(**options: object) -> Path:
        schedules = [Schedule(n, 2, validate_every=1) for n in (1, 1, 0)]
        options |= {"copies": 1, "widths": (16, 32)}
        return train_prior([frames], tmp_path, *schedules, **options)

    before = load_prior(train())
    assert before.unet.config.in_channels == 16
    # the order of sets differs from process to process: no run may be taken for another's
    for stage in ("autoencoder", "diffusion"):
        settings = load_state(tmp_path / stage / "state.safetensors")["config"]
        assert not [key for key, value in settings.items() if key[0] == "_" or value[0] == "{"]
    assert train() == tmp_path / "pipeline"
    again = load_prior(tmp_path / "pipeline")
    assert again.weights_sha256 == before.weights_sha256, "the same call changed a finished one"
    with pytest.raises(BadInput, match="other settings"):
        train(dropout=0.2)


def test_each_player_gets_its_own_gradient() -> None:
    """The critic is not taught to like the decoder's images, nor the decoder to feed the hinge."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = Pair(build_autoencoder((8, 8, 8), 4))
        x, bank = torch.rand(2, 1, 32, 32), torch.randn(4, 4, 8, 8)
    losses = adversarial_loss(pair, x, torch.Generator().manual_seed(0), bank)
    critic = list(pair.critic.parameters())
    expected = torch.autograd.grad(losses["critic"], critic, retain_graph=True)
    losses["loss"].backward()
    for parameter, gradient in zip(critic, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert pair.stage.decoder.conv_out.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in pair.stage.encoder.parameters())


def test_sampled_latents_are_those_of_their_seed(prior_folder: Path, tmp_path: Path) -> None:
    """A run that is killed before its first checkpoint leaves latents, and no other record."""
    prior = load_prior(prior_folder)
    banks = [latent_bank(prior, tmp_path, 2, seed) for seed in (0, 1, 0)]
    assert not torch.equal(banks[0], banks[1]) and torch.equal(banks[0], banks[2])
    assert len(latent_bank(prior, tmp_path, 3, 0)) == 3
