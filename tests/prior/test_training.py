"""Choices of the prior's training: spaces, predictions, early stopping, refinement, processes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from diffusers import AutoencoderKL, DiffusionPipeline
from PIL import Image

from nogaps.prior.autoencoder import encode, reconstruct, train_autoencoder
from nogaps.prior.diffusion import PREDICTIONS, diffusion_loss, noise_schedule, train_diffusion
from nogaps.prior.loading import load_prior, load_stage
from nogaps.prior.pixel_space import TRANSFORMS, PixelSpace, block_basis
from nogaps.prior.refine import Pair, adversarial_loss, refine_decoder
from nogaps.prior.sampling import generate
from nogaps.prior.training import Schedule, fit
from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.files import BadInput, sha256


def small(steps: int, **options: object) -> Schedule:
    return Schedule(steps, 4, 2e-3, validate_every=2, checkpoint_every=2, **options)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_pixel_spaces_lose_nothing(transform: str, factor: int) -> None:
    x = torch.rand(3, 1, 32, 16, generator=torch.Generator().manual_seed(0))
    space = PixelSpace(transform, factor)
    space.measure(2 * x - 1)
    z = encode(space, x)
    assert z.shape == (3, factor**2, 32 // factor, 16 // factor)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(factor**2))
    torch.testing.assert_close(reconstruct(space, x), x, atol=1e-6, rtol=0)
    basis = block_basis(transform, factor).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(factor**2))


def test_haar_separates_scales_and_unshuffle_does_not() -> None:
    flat = torch.full((1, 1, 8, 8), 0.7)
    haar = PixelSpace("haar", 4).encode(flat).latent_dist.mean
    assert haar[:, 1:].abs().max() < 1e-6 and haar[:, 0].min() > 2
    expected = torch.nn.functional.pixel_unshuffle(flat, 4)
    torch.testing.assert_close(PixelSpace("unshuffle", 4).encode(flat).latent_dist.mean, expected)


@pytest.mark.parametrize("factor", [3, 0])
def test_impossible_blocks_are_refused(factor: int) -> None:
    with pytest.raises(ValueError, match="power of 2"):
        block_basis("haar", factor)


@pytest.mark.parametrize("noise", ["cosine", "linear"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_denoiser_that_knows_the_answer_has_no_loss(prediction: str, noise: str) -> None:
    """Each prediction type against its definition: z = α x0 + σ ε, v = α ε - σ x0."""
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


@pytest.mark.parametrize("choice", [{"prediction": "w"}, {"noise": "square"}, {"space": "fourier"}])
def test_unknown_choices_are_named(frames_file: Path, tmp_path: Path, choice: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(choice.values()))):
        train_diffusion([frames_file], tmp_path, small(2), **choice)


@pytest.mark.parametrize(
    ("space", "prediction", "noise", "smooth_l1"),
    [("haar", "x0", "linear", 0.1), ("unshuffle", "epsilon", "cosine", 0.0)],
)
def test_diffusion_on_pixels(
    frames_file: Path, tmp_path: Path, space: str, prediction: str, noise: str, smooth_l1: float
) -> None:
    options = {"prediction": prediction, "noise": noise, "smooth_l1": smooth_l1}
    train_diffusion([frames_file], tmp_path, small(2), 1, (16, 32), space, **options)
    prior = load_prior(tmp_path / "pipeline")
    assert isinstance(prior.vqvae, PixelSpace)
    assert prior.scheduler["prediction_type"] == PREDICTIONS[prediction]
    x = torch.cat(generate(2, 4, 2, prior=prior))
    assert x.shape == (2, 1, 64, 64) and torch.isfinite(x).all() and x.std() > 0.01


def test_both_kinds_of_first_stage(frames_file: Path, tmp_path: Path) -> None:
    shape = {"latent_channels": 6, "top_channels": 2, "width": 8, "inner_width": 4, "num_codes": 16}
    stage = train_autoencoder([frames_file], tmp_path, small(4), "vqvae2", **shape)
    loaded = load_stage(tmp_path / "vqvae")
    assert isinstance(loaded, VQVAE2)
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(reconstruct(loaded, x), reconstruct(stage, x))
    train_diffusion([frames_file], tmp_path, small(2), 1, (16, 32))
    prior = load_prior(tmp_path / "pipeline")
    assert torch.cat(generate(2, 2, 2, prior=prior)).shape == (2, 1, 64, 64)
    with open(tmp_path / "autoencoder" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert {"reconstruction", "codebook", "commitment", "perplexity_top", "val_ssim"} <= set(
        rows[0]
    )
    with Image.open(tmp_path / "autoencoder" / "log.png") as picture:
        assert min(picture.size) > 300
    with pytest.raises(BadInput, match="vae3"):
        train_autoencoder([frames_file], tmp_path, small(4), "vae3")


def line_fit(schedule: Schedule, run_dir: Path, worse_after: int) -> tuple[torch.nn.Module, list]:
    """Fit y = w x with a validation loss that turns at step `worse_after`."""
    model, seen = torch.nn.Linear(1, 1, bias=False), []
    torch.nn.init.zeros_(model.weight)

    def validate(averaged: torch.nn.Module) -> dict[str, float]:
        seen.append(float(averaged.weight.detach()))
        with open(run_dir / "calls", "a") as file:
            file.write("x")
        calls = len((run_dir / "calls").read_text())
        return {"loss": abs(calls - worse_after) + 0.5}

    def loss(model: torch.nn.Module, x: torch.Tensor, _: torch.Generator) -> dict:
        return {"loss": (model(x) - 3 * x).square().mean()}

    run_dir.mkdir(exist_ok=True)
    draw = lambda n, generator: torch.rand(n, 1, generator=generator)  # noqa: E731
    return fit(model, draw, loss, validate, run_dir, schedule, {}), seen


def test_early_stopping_returns_the_best_weights(tmp_path: Path) -> None:
    schedule = Schedule(40, 4, 0.1, validate_every=1, checkpoint_every=1, patience=3)
    model, seen = line_fit(schedule, tmp_path / "a", 4)
    assert len(seen) == 7, "three validations without progress after the best, the fourth"
    assert float(model.weight.detach()) == seen[3]
    again, more = line_fit(schedule, tmp_path / "a", 4)
    assert not more and float(again.weight.detach()) == seen[3], "a stopped run was trained further"
    full, all_seen = line_fit(Schedule(9, 4, 0.1, validate_every=1), tmp_path / "b", 4)
    assert len(all_seen) == 9 and float(full.weight.detach()) == all_seen[-1]


@pytest.fixture(scope="module")
def refined(frames_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("refined")
    train_autoencoder([frames_file], out, small(2), widths=(8, 8, 8), latent_channels=4)
    train_diffusion([frames_file], out, small(2), 1, (16, 32))
    refine_decoder([frames_file], out, small(3), samples=4)
    return out


def test_refinement_changes_the_decoder_only(refined: Path) -> None:
    before, after = (load_prior(refined / name) for name in ("pipeline", "refined"))
    changed = {
        name.split(".")[0]
        for name, value in before.vqvae.state_dict().items()
        if not torch.equal(value, after.vqvae.state_dict()[name])
    }
    assert changed == {"decoder", "post_quant_conv"}
    for name, value in before.unet.state_dict().items():
        assert torch.equal(value, after.unet.state_dict()[name]), name
    x = DiffusionPipeline.from_pretrained(refined / "refined", local_files_only=True)
    assert isinstance(x.vqvae, AutoencoderKL)


def test_a_prior_is_trained_further(refined: Path, frames_file: Path, tmp_path: Path) -> None:
    short = Schedule(1, 4, 1e-6, validate_every=1, ema_decay=0)
    train_diffusion([frames_file], tmp_path, short, 0, (16, 32), start=refined / "refined")
    before, after = load_prior(refined / "refined"), load_prior(tmp_path / "pipeline")
    for name, value in before.vqvae.state_dict().items():
        assert torch.equal(value, after.vqvae.state_dict()[name]), name
    moved = [
        float((value - after.unet.state_dict()[name]).abs().max())
        for name, value in before.unet.state_dict().items()
    ]
    assert max(moved) < 1e-3, "one step of a millionth cannot lead far from where it began"
    with pytest.raises(BadInput, match=r"other settings .*start"):
        train_diffusion([frames_file], tmp_path, short, 0, (16, 32), start=refined / "pipeline")
    with pytest.raises(BadInput, match="of another size"):
        train_diffusion(
            [frames_file], tmp_path / "b", short, 0, (32, 32), start=refined / "refined"
        )
    with pytest.raises(BadInput, match="predicts v_prediction"):
        options = {"prediction": "x0", "start": refined / "refined"}
        train_diffusion([frames_file], tmp_path / "c", short, 0, (16, 32), **options)


def test_each_player_gets_its_own_gradient() -> None:
    """The critic is not taught to like the decoder's images, nor the decoder to feed the hinge."""
    from nogaps.prior.autoencoder import build_autoencoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = Pair(build_autoencoder((8, 8, 8), 4))
        x, bank = torch.rand(2, 1, 32, 32), torch.randn(4, 4, 8, 8)
    parts = adversarial_loss(pair, x, torch.Generator().manual_seed(0), bank, 0.1, 0.5)
    critic = [p for p in pair.critic.parameters()]
    expected = torch.autograd.grad(parts["critic"], critic, retain_graph=True)
    parts["loss"].backward()
    for parameter, gradient in zip(critic, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert pair.stage.decoder.conv_out.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in pair.stage.encoder.parameters())


def test_one_command_trains_everything(
    nogaps: Callable, frames_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    call = ["prior", "train", "--frames", frames_file, "--out", tmp_path, "--copies", 1]
    call += ["--latent-channels", 4, "--autoencoder-steps", 1, "--diffusion-steps", 1]
    done = nogaps(*call, "--refine-steps", 0, "--ema-decay", 0.9)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pipeline" / "model_index.json").exists()
    # the order of sets differs from process to process: no run may be taken for another's
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    before = sha256(tmp_path / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert nogaps(*call, "--refine-steps", 0, "--ema-decay", 0.9).returncode == 0
    after = sha256(tmp_path / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert before == after, "a finished training was changed by the same command"


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from nogaps.prior.training import Schedule, fit, make_accelerator
accelerator = make_accelerator()
assert accelerator.num_processes == 2
model = torch.nn.Linear(3, 1)
torch.nn.init.zeros_(model.weight); torch.nn.init.zeros_(model.bias)
def draw(n, generator):
    return torch.full((n, 3), 1.0 + accelerator.process_index)
def loss(model, x, generator):
    return {"loss": model(x).sum() / len(x)}
out = Path(sys.argv[1])
schedule = Schedule(1, 2, 1.0, warmup=0, weight_decay=0, ema_decay=0)
fit(model, draw, loss, lambda m: {"loss": 0.0}, out, schedule, {})
torch.save(model.weight.grad, out / f"grad{accelerator.process_index}.pt")
"""


def test_two_processes_share_their_gradients(tmp_path: Path) -> None:
    """The gradient of w.x is x: with batches of ones and of twos both processes must see 1.5."""
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launch, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    grads = [torch.load(tmp_path / f"grad{k}.pt", weights_only=True) for k in (0, 1)]
    # clipped to length 1 after averaging: (1.5, 1.5, 1.5, bias 1) / sqrt(7.75)
    expected = torch.full((1, 3), 1.5 / 7.75**0.5)
    for grad in grads:
        torch.testing.assert_close(grad, expected, atol=2e-3, rtol=0)
