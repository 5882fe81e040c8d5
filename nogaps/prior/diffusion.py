"""Second stage of the prior: a diffusion model on the latents of the first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, LDMPipeline, UNet2DModel

from nogaps.device import autocast, autocast_dtype, pick_device
from nogaps.prior.augmentation import warp
from nogaps.prior.autoencoder import encode
from nogaps.prior.heads import load_frames, to_size
from nogaps.prior.loading import load_part
from nogaps.prior.training import Schedule, fit, step_generator

TRAINING_STEPS = 1000  # noise levels of the forward process


def build_denoiser(
    latent_channels: int, latent_size: int, widths: Sequence[int] = (96, 192), dropout: float = 0.1
) -> UNet2DModel:
    """U-Net with sinusoidal time embedding, attention in its middle only.

    Latents (N,latent_channels,latent_size,latent_size) and integer times (N,) in [0, 1000) give
    the velocity v. Source: DDPM (arXiv 2006.11239), appendix B, in diffusers' form.
    """
    n = len(widths)
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(widths),
        down_block_types=("DownBlock2D",) * n,
        up_block_types=("UpBlock2D",) * n,
        layers_per_block=1,
        norm_num_groups=16,
        dropout=dropout,
        attention_head_dim=min(32, widths[-1]),
        add_attention=True,
    )


@cache
def noise_schedule() -> DDPMScheduler:
    """Cosine schedule (arXiv 2102.09672, section 3.2) with v-prediction (arXiv 2202.00512)."""
    return DDPMScheduler(
        num_train_timesteps=TRAINING_STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    )


def diffusion_loss(
    model: UNet2DModel, z: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Mean squared error of the predicted velocity at uniform times; z has unit variance."""
    forward = noise_schedule()
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    # one time per stratum of the batch: less variance than independent draws
    share = (torch.arange(len(z)) + torch.rand(len(z), generator=generator)) / len(z)
    t = (share * TRAINING_STEPS).long().to(z.device)
    target = forward.get_velocity(z, noise, t)
    v = model(forward.add_noise(z, noise, t), t).sample.float()
    return {"loss": (v - target).square().mean()}


@torch.no_grad()
def validation_loss(model: UNet2DModel, z: torch.Tensor) -> dict[str, float]:
    """`diffusion_loss` with the same noise at every call, over four passes of z."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    model.eval()
    with autocast(device, autocast_dtype(device)):
        losses = [diffusion_loss(model, z.to(device), generator)["loss"] for _ in range(4)]
    return {"loss": float(torch.stack(losses).mean())}


def training_latents(
    vqvae: AutoencoderKL, frames: torch.Tensor, copies: int, seed: int
) -> torch.Tensor:
    """Scaled latents of the frames (N,1,128,128) and of `copies` warped copies of each."""
    parts = [encode(vqvae, to_size(frames))]
    for k in range(copies):
        parts.append(encode(vqvae, warp(frames, step_generator(seed, k))))
    return torch.cat(parts) * vqvae.config.scaling_factor


def train_diffusion(
    frames: Sequence[str | Path],
    out: str | Path,
    schedule: Schedule,
    copies: int = 24,
    widths: Sequence[int] = (96, 192),
) -> None:
    """Train on latents of `out/vqvae`; write the diffusers `LDMPipeline` folder `out/pipeline`.

    A frame file given twice counts twice, with warped copies of its own. The folder's weights are
    rounded to fp16, half the size; `loading.load_prior` computes with them in fp32.
    """
    out = Path(out)
    vqvae = load_part(AutoencoderKL, out / "vqvae").to(pick_device())
    train, _ = load_frames(frames)
    val, _ = load_frames(sorted(set(map(str, frames))), "val")
    z = training_latents(vqvae, train, copies, schedule.seed)
    z_val = encode(vqvae, to_size(val)) * vqvae.config.scaling_factor
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)  # diffusers initialises from the global generator
        unet = build_denoiser(z.shape[1], z.shape[2], widths)
    config = {"stage": "diffusion", "files": [Path(f).name for f in frames], "latents": len(z)}
    config |= {**vars(schedule), **dict(unet.config)}
    unet = fit(
        unet,
        lambda n, generator: z[torch.randint(len(z), (n,), generator=generator)],
        diffusion_loss,
        lambda model: validation_loss(model, z_val),
        out / "diffusion",
        schedule,
        {key: repr(value) for key, value in config.items()},
    )
    scheduler = DDIMScheduler.from_config(noise_schedule().config)
    pipeline = LDMPipeline(vqvae.half(), unet.half(), scheduler)
    pipeline.save_pretrained(out / "pipeline", safe_serialization=True)
