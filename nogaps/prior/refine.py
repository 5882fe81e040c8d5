"""Third stage of the prior: its decoder learns to draw sampled latents as sharply as real images.

What diffusion samples differs a little from what the encoder makes of real images: fine detail is
weaker, and a decoder trained on real latents alone draws it soft. Here a critic of small patches
compares the decoded samples with real images, while the reconstruction loss holds the decoder to
the encoder's latents. Sources: VQGAN (arXiv 2012.09841), section 3.1, for the patch critic and the
adaptive weight; latent diffusion (arXiv 2112.10752), appendix G.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.func import functional_call

from nogaps.augmentation import warp
from nogaps.prior.autoencoder import (
    BATCH,
    compare_images,
    reconstruct,
    reconstruction_loss,
    train_autoencoder,
)
from nogaps.prior.diffusion import save_prior, train_diffusion
from nogaps.prior.frames import load_training
from nogaps.prior.loading import Prior, load_prior
from nogaps.prior.sampling import Process, image_generators, latent_shape, sample_latents
from nogaps.prior.training import Schedule, fit, make_accelerator
from nogaps.runtime import processes
from nogaps.runtime.batches import make_npy
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_npy

NOISE = 0.05  # deviation added to real latents, in units of the latents' own
WEIGHT = 3.0  # length of the critic's gradient at the decoder's last layer, in reconstruction's
SHARPNESS = 0.25  # of `warp` for the real images: as sharp as the frames, hardly sharper


class Critic(nn.Sequential):
    """Patch critic: (N,1,H,W) in [-1,1] to (N,1,H/4,W/4), high for real; each sees 26 pixels."""

    def __init__(self, width: int = 48) -> None:
        def block(a: int, b: int, kernel: int, stride: int) -> list[nn.Module]:
            conv = nn.Conv2d(a, b, kernel, stride, padding=1)
            return [conv, nn.GroupNorm(8, b), nn.LeakyReLU(0.2)]

        super().__init__(
            nn.Conv2d(1, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            *block(width, width, 4, 2),
            *block(width, 2 * width, 4, 2),
            *block(2 * width, 2 * width, 3, 1),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )


class Pair(nn.Module):
    """First stage and critic as one module, to be trained, averaged and saved together.

    Only the decoder's half of the first stage learns.
    """

    def __init__(self, stage: AutoencoderKL) -> None:
        super().__init__()
        self.stage, self.critic = stage.requires_grad_(False), Critic()
        self.stage.decoder.requires_grad_(True)
        self.stage.post_quant_conv.requires_grad_(True)


def adversarial_loss(
    pair: Pair, x: torch.Tensor, generator: torch.Generator, bank: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the losses of decoder and critic on real images and on sampled latents.

    Both players' gradients come from one backward pass: the critic's weights are constants in the
    decoder's loss, the decoded images in the critic's.

    Args:
        x: Real images (N,1,H,W) in [0,1].
        bank: Unscaled sampled latents (M,C,h,w).
    """
    stage, critic = pair.stage, pair.critic
    pick = torch.randint(len(bank), (len(x),), generator=generator)
    with torch.no_grad():
        z = stage.encode(2 * x - 1).latent_dist.mean.float()
    deviation = NOISE / stage.config.scaling_factor
    z = z + deviation * torch.randn(z.shape, generator=generator).to(z.device)
    decoded = stage.decode(torch.cat([z, bank[pick].to(z.device)])).sample.float()
    x_hat, fake = decoded.chunk(2)
    reconstruction = reconstruction_loss(x_hat / 2 + 0.5, x)
    fixed = {name: value.detach() for name, value in critic.named_parameters()}
    fooling = -functional_call(critic, fixed, (fake,)).float().mean()
    real_votes, fake_votes = critic(2 * x - 1).float(), critic(fake.detach()).float()
    hinge = (1 - real_votes).relu().mean() + (1 + fake_votes).relu().mean()
    # a critic that cannot tell the two apart (hinge loss 2) has nothing to teach yet
    skill = (4 * (2 - hinge.detach())).clamp(0, 1)
    last = stage.decoder.conv_out.weight
    lengths = [
        torch.autograd.grad(part, last, retain_graph=True)[0].norm()
        for part in (reconstruction, fooling)
    ]
    balance = (lengths[0] / (lengths[1] + 1e-6)).clamp(max=1e3).detach()
    share = WEIGHT * skill * balance  # arXiv 2012.09841, equation 7
    return {
        "loss": reconstruction + share * fooling + hinge,
        "reconstruction": reconstruction,
        "critic": hinge,
        "real_votes": real_votes.mean(),
        "fake_votes": fake_votes.mean(),
    }


def refine_decoder(
    frames: Sequence[str | Path], out: str | Path, schedule: Schedule, samples: int = 1024
) -> None:
    """Train the decoder of `out/pipeline` on what its denoiser samples; write `out/refined`.

    Encoder, denoiser and latents stay as they are.

    Args:
        frames, out, schedule: See `train_autoencoder`.
        samples: Sampled latents to learn from.

    Raises:
        BadInput: The prior's first stage has no trained decoder, or a file cannot be used.
    """
    out = Path(out)
    make_accelerator()  # which sets up the processes, before they wait for each other
    prior = load_prior(out / "pipeline")
    if not isinstance(prior.vqvae, AutoencoderKL):
        raise BadInput("has no AutoencoderKL to refine", path=out / "pipeline")
    bank = latent_bank(prior, out / "refine", samples, schedule.seed)
    train, val = load_training(frames)
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)  # the critic's initial weights
        pair = Pair(prior.vqvae)

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(train), (n,), generator=generator)
        return warp(train[pick], generator, sharpness=SHARPNESS)

    def validate(pair: Pair) -> dict[str, float]:
        return compare_images(reconstruct(pair.stage, val), val)

    config = {"stage": "refine", "files": [Path(f).name for f in frames]}
    config |= {"samples": samples, "prior": prior.weights_sha256}
    loss = partial(adversarial_loss, bank=bank)
    pair = fit(pair, draw, loss, validate, out / "refine", schedule, config)
    if processes.is_main():
        save_prior(out / "refined", pair.stage, prior.unet, prior.scheduler)
    processes.wait_for_everyone()


def latent_bank(prior: Prior, folder: Path, samples: int, seed: int) -> torch.Tensor:
    """Sample unscaled latents (N,C,h,w), or read those of an earlier call from `folder`."""

    def sample(start: int, stop: int) -> np.ndarray:
        generators = image_generators(seed, start, stop - start)
        return sample_latents(prior, generators, Process()).cpu().numpy()

    path = folder / f"latents-{prior.weights_sha256[:16]}-{samples}-{seed}.npy"
    shape = (samples, *latent_shape(prior))
    make_npy(path, shape, BATCH, sample, "sampling")
    return torch.from_numpy(load_npy(path))


def train_prior(
    frames: Sequence[str | Path],
    out: str | Path,
    autoencoder: Schedule,
    diffusion: Schedule,
    refinement: Schedule,
    stage: str = "kl",
    **options: object,
) -> Path:
    """Train all stages of a prior; the same call continues an interrupted run.

    Args:
        frames, out: See `train_autoencoder`.
        autoencoder, diffusion: Schedules of the first two stages.
        refinement: Schedule of the third stage, for a "kl" first stage; 0 steps: none.
        stage: "kl" or "vqvae2".
        **options: Further arguments of `train_diffusion`.

    Returns:
        The folder with the finished prior, `out/refined` or `out/pipeline`.

    Raises:
        BadInput: A file or an option cannot be used, or `out` holds a run with other settings.
    """
    out = Path(out)
    train_autoencoder(frames, out, autoencoder, stage)
    train_diffusion(frames, out, diffusion, **options)
    if not refinement.steps or stage != "kl":
        return out / "pipeline"
    refine_decoder(frames, out, refinement)
    return out / "refined"
