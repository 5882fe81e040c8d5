"""First stage of the prior: a small KL autoencoder (diffusers `AutoencoderKL`), and training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from nogaps.augmentation import warp
from nogaps.metrics import gradient_energy, ssim_map
from nogaps.prior.frames import load_training, to_size
from nogaps.prior.loading import FirstStage
from nogaps.prior.training import Schedule, fit
from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime import processes
from nogaps.runtime.device import autocast, autocast_dtype
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic_folder

KL_WEIGHT = 1e-4
BATCH = 64  # images that are encoded or decoded at a time


def build_autoencoder(
    widths: Sequence[int] = (32, 64, 128), latent_channels: int = 16
) -> AutoencoderKL:
    """Build a one-channel `AutoencoderKL` without attention.

    (N,1,H,W) becomes (N,latent_channels,H/f,W/f), f = 2 ** (len(widths) - 1); widths are the
    channels of each level. Source: latent diffusion models (arXiv 2112.10752), section 3.1, without
    its adversarial and LPIPS terms.
    """
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def reconstruction_loss(x_hat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return L1 + L1 of the differences to the right and lower neighbours + 4 MSE, a fp32 scalar.

    The gradient term keeps edges: soft training images cost the imputer more than noisy ones.
    """
    error = x_hat.float() - x
    across, down = error.diff(dim=-1), error.diff(dim=-2)
    return error.abs().mean() + across.abs().mean() + down.abs().mean() + 4 * (error**2).mean()


def autoencoder_loss(
    model: AutoencoderKL, x: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return the losses of x (N,1,H,W) in [0,1], reconstructed through a latent sample."""
    posterior = model.encode(2 * x - 1).latent_dist
    mean, std = posterior.mean.float(), posterior.std.float()
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    x_hat = model.decode(mean + std * noise).sample.float() / 2 + 0.5
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).mean()
    reconstruction = reconstruction_loss(x_hat, x)
    return {"loss": reconstruction + KL_WEIGHT * kl, "reconstruction": reconstruction, "kl": kl}


def vqvae_loss(
    model: VQVAE2, x: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return the losses of x (N,1,H,W) in [0,1], as fp32 scalars.

    The weighted "commitment" is the mean squared distance of encoder outputs to their codes, summed
    over the levels. The perplexities count the codes in use, 1 to num_codes.
    """
    x_hat, bottom, top = model(2 * x - 1, generator)
    reconstruction = reconstruction_loss(x_hat.float() / 2 + 0.5, x)
    commitment = bottom.distance + top.distance
    return {
        "loss": reconstruction + model.config.commitment_weight * commitment,
        "reconstruction": reconstruction,
        "commitment": commitment,
        "perplexity_bottom": bottom.perplexity,
        "perplexity_top": top.perplexity,
    }


@torch.no_grad()
def encode(stage: FirstStage, x: torch.Tensor) -> torch.Tensor:
    """Return the posterior means of x (N,1,H,W) in [0,1], fp32, on the CPU, not scaled."""
    device = next(stage.parameters()).device
    with autocast(device, autocast_dtype(device)):
        parts = [
            stage.encode(2 * batch.to(device) - 1).latent_dist.mean.float().cpu()
            for batch in x.split(BATCH)
        ]
    return torch.cat(parts)


@torch.no_grad()
def decode(stage: FirstStage, z: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return images (N,1,H,W) float32 in [0,1] of unscaled latents, on the latents' device."""
    with autocast(z.device, dtype):
        x = stage.decode(z).sample
    return (x.float() / 2 + 0.5).clamp(0, 1)


def reconstruct(stage: FirstStage, x: torch.Tensor) -> torch.Tensor:
    """Encode and decode x (N,1,H,W) in [0,1]; return images of its shape on the CPU.

    Raises:
        BadInput: The stage cannot halve images of this size often enough.
    """
    device = next(stage.parameters()).device
    z, dtype = encode(stage, x), autocast_dtype(device)
    x_hat = torch.cat([decode(stage, b.to(device), dtype).cpu() for b in z.split(BATCH)])
    if x_hat.shape != x.shape:
        before, after = ("×".join(map(str, images.shape[2:])) for images in (x, x_hat))
        raise BadInput(f"images of {before}: the first stage turns them into {after}")
    return x_hat


def compare_images(x_hat: torch.Tensor, x: torch.Tensor) -> dict[str, float]:
    """Return loss, mean PSNR in dB (data range 1), SSIM and ratio of gradient energies."""
    psnr = -10 * torch.log10(((x_hat - x) ** 2).mean((1, 2, 3)))
    return {
        "reconstruction": float(reconstruction_loss(x_hat, x)),
        "psnr": float(psnr.mean()),
        "ssim": float(ssim_map(x_hat, x).mean()),
        "gradient_energy": gradient_energy(x_hat) / gradient_energy(x),
    }


KINDS = {"kl": (build_autoencoder, autoencoder_loss), "vqvae2": (VQVAE2, vqvae_loss)}


def train_autoencoder(
    frames: Sequence[str | Path],
    out: str | Path,
    schedule: Schedule,
    kind: str = "kl",
    **shape: object,
) -> None:
    """Train a first stage on frame files; write the folder `out/vqvae`.

    The latent scale, 1/std over the whole training set, is stored in the folder's config.

    Args:
        frames: Files of `prior prepare`; one given twice counts twice.
        out: Folder of the prior.
        schedule: How long and how fast.
        kind: "kl" or "vqvae2".
        **shape: Arguments of `build_autoencoder` or `VQVAE2`.

    Raises:
        BadInput: A file or the kind cannot be used, or `out` holds a run with other settings.
    """
    if kind not in KINDS:
        raise BadInput(f"stage {kind!r} is unknown", "kl or vqvae2")
    train, val = load_training(frames)
    make, loss = KINDS[kind]
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)  # diffusers initialises from the global generator
        model = make(**shape)

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        return warp(train[torch.randint(len(train), (n,), generator=generator)], generator)

    def validate(model: FirstStage) -> dict[str, float]:
        return compare_images(reconstruct(model, val), val)

    config = {"stage": "autoencoder", "files": [Path(f).name for f in frames]}
    config |= {"images": len(train), **model.config}
    model = fit(model, draw, loss, validate, Path(out) / "autoencoder", schedule, config)
    z = encode(model, to_size(train))
    model.register_to_config(scaling_factor=float(1 / z.std()))
    if processes.is_main():
        with atomic_folder(Path(out) / "vqvae") as folder:
            model.save_pretrained(folder, safe_serialization=True)
    processes.wait_for_everyone()
