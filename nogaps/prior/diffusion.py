"""Second stage of the prior: a diffusion model on the latents of the first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, LDMPipeline, UNet2DModel

from nogaps.augmentation import warp
from nogaps.prior.autoencoder import encode
from nogaps.prior.frames.heads import load_frames, load_val, to_size
from nogaps.prior.loading import WEIGHTS, FirstStage, load_part, load_stage
from nogaps.prior.pixel_space import TRANSFORMS, PixelSpace
from nogaps.prior.training import Schedule, fit, step_generator
from nogaps.runtime import processes
from nogaps.runtime.device import autocast, autocast_dtype, pick_device
from nogaps.runtime.files import BadInput, atomic_folder, load_json, sha256

TRAINING_STEPS = 1000  # noise levels of the forward process
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
NOISE = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
SPACES = ("latent", *TRANSFORMS)


def build_denoiser(
    latent_channels: int,
    latent_size: int | tuple[int, int],
    widths: Sequence[int] = (96, 192),
    dropout: float = 0.1,
) -> UNet2DModel:
    """U-Net with sinusoidal time embedding, attention in its middle only.

    Latents (N,latent_channels,H,W) of size H×W = latent_size and integer times (N,) in [0, 1000)
    give what the noise schedule says is predicted. Source: DDPM (arXiv 2006.11239), appendix B, in
    diffusers' form.
    """
    n = len(widths)
    if not isinstance(latent_size, int) and len(set(latent_size)) == 1:
        latent_size = latent_size[0]  # diffusers' LDMPipeline knows no other
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
def noise_schedule(prediction: str = "v", noise: str = "cosine") -> DDPMScheduler:
    """Forward process and what is predicted.

    noise: "cosine" (arXiv 2102.09672, section 3.2) or "linear" (arXiv 2006.11239, section 4);
    prediction: "v" (arXiv 2202.00512, appendix D), "epsilon" or "x0". Raises BadInput otherwise.
    """
    if prediction not in PREDICTIONS or noise not in NOISE:
        raise BadInput(
            f"prediction {prediction!r} with noise {noise!r}: expected one of "
            f"{', '.join(PREDICTIONS)} with one of {', '.join(NOISE)}"
        )
    return DDPMScheduler(
        num_train_timesteps=TRAINING_STEPS,
        beta_schedule=NOISE[noise],
        prediction_type=PREDICTIONS[prediction],
        clip_sample=False,
        # at the last noise level epsilon tells nothing about the image: sampling starts below it
        timestep_spacing="leading" if prediction == "epsilon" else "trailing",
    )


def diffusion_loss(
    model: UNet2DModel,
    z: torch.Tensor,
    generator: torch.Generator,
    forward: DDPMScheduler | None = None,
    smooth_l1: float = 0.0,
) -> dict[str, torch.Tensor]:
    """Error of the prediction at uniform times; z (N,C,H,W) has unit variance.

    The mean squared error, or with smooth_l1 > 0 the smooth L1 loss that is quadratic below it.
    """
    forward = forward or noise_schedule()
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    # one time per stratum of the batch: less variance than independent draws
    share = (torch.arange(len(z)) + torch.rand(len(z), generator=generator)) / len(z)
    t = (share * TRAINING_STEPS).long().to(z.device)
    kind = forward.config.prediction_type
    target = {"epsilon": noise, "sample": z}.get(kind)
    target = forward.get_velocity(z, noise, t) if target is None else target
    found = model(forward.add_noise(z, noise, t), t).sample.float()
    if smooth_l1 > 0:
        return {"loss": F.smooth_l1_loss(found, target, beta=smooth_l1)}
    return {"loss": F.mse_loss(found, target)}


@torch.no_grad()
def validation_loss(model: UNet2DModel, z: torch.Tensor, **options: object) -> dict[str, float]:
    """`diffusion_loss` with the same noise at every call, over four passes of z."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    model.eval()
    with autocast(device, autocast_dtype(device)):
        losses = [
            diffusion_loss(model, z.to(device), generator, **options)["loss"] for _ in range(4)
        ]
    return {"loss": float(torch.stack(losses).mean())}


def training_latents(
    stage: FirstStage, frames: torch.Tensor, copies: int, seed: int
) -> torch.Tensor:
    """Scaled latents of the frames (N,1,2H,2W) and of `copies` warped copies of each.

    The augmentation does not leak: its maps lie around the identity, every image also stands in
    the set as it is, and no head is mirrored.
    """
    parts = [encode(stage, to_size(frames))]
    for k in range(copies):
        parts.append(encode(stage, warp(frames, step_generator(seed, k))))
    return torch.cat(parts) * stage.config.scaling_factor


def first_stage(space: str, folder: Path, frames: torch.Tensor) -> FirstStage:
    """The trained stage in `folder`, or one that needs no training, measured on the frames."""
    if space not in SPACES:
        raise BadInput(f"space {space!r}: expected one of {', '.join(SPACES)}")
    if space == "latent":
        return load_stage(folder)
    stage = PixelSpace(space)
    stage.measure(2 * to_size(frames) - 1)
    return stage


def begin_from(unet: UNet2DModel, folder: Path, forward: DDPMScheduler) -> None:
    """Copy the weights of the prior in `folder`. Raises BadInput if it is of another kind."""
    kind = load_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type")
    if kind != forward.config.prediction_type:
        raise BadInput(f"{folder}: predicts {kind}, expected {forward.config.prediction_type}")
    try:
        unet.load_state_dict(load_part(UNet2DModel, folder / "unet").state_dict())
    except RuntimeError as error:
        raise BadInput(f"{folder}/unet: of another size than the denoiser to train") from error


def save_prior(folder: Path, stage: FirstStage, unet: UNet2DModel, forward: dict) -> None:
    """Write a prior with its weights rounded to fp16, half the size; forward: scheduler config.

    With an `AutoencoderKL` the folder is a diffusers `LDMPipeline`; other first stages are known
    to nogaps only.
    """
    scheduler = DDIMScheduler.from_config(forward)
    stage, unet = stage.half(), unet.half()
    with atomic_folder(folder) as new:
        if isinstance(stage, AutoencoderKL):
            LDMPipeline(stage, unet, scheduler).save_pretrained(new, safe_serialization=True)
            return
        for name, part in (("vqvae", stage), ("unet", unet), ("scheduler", scheduler)):
            part.save_pretrained(new / name)


def train_diffusion(
    frames: Sequence[str | Path],
    out: str | Path,
    schedule: Schedule,
    copies: int = 24,
    widths: Sequence[int] = (96, 192),
    space: str = "latent",
    prediction: str = "v",
    noise: str = "cosine",
    smooth_l1: float = 0.0,
    dropout: float = 0.1,
    start: str | Path | None = None,
) -> None:
    """Train on latents of `out/vqvae`, or in a pixel `space`; write the folder `out/pipeline`.

    start: a prior, whose first stage is taken instead and whose denoiser is trained further.

    A frame file given twice counts twice, with warped copies of its own. See `save_prior`;
    `loading.load_prior` computes with the fp16 weights in fp32.
    """
    out, forward = Path(out), noise_schedule(prediction, noise)
    train, _ = load_frames(frames)
    folder = out if start is None else Path(start)
    stage = first_stage(space, folder / "vqvae", train).to(pick_device())
    z = training_latents(stage, train, copies, schedule.seed)
    z_val = encode(stage, load_val(frames)) * stage.config.scaling_factor
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)  # diffusers initialises from the global generator
        unet = build_denoiser(z.shape[1], tuple(z.shape[2:]), widths, dropout)
    if start is not None:
        begin_from(unet, folder, forward)
    config = {"stage": "diffusion", "files": [Path(f).name for f in frames], "latents": len(z)}
    parts = () if start is None else ("vqvae", "unet")
    config |= {"start": [sha256(folder / part / WEIGHTS) for part in parts]}
    config |= {"space": space, "smooth_l1": smooth_l1, **dict(forward.config)}
    config |= dict(unet.config)
    options = {"forward": forward, "smooth_l1": smooth_l1}
    unet = fit(
        unet,
        lambda n, generator: z[torch.randint(len(z), (n,), generator=generator)],
        partial(diffusion_loss, **options),
        partial(validation_loss, z=z_val, **options),
        out / "diffusion",
        schedule,
        config,
    )
    processes.by_leader(lambda: save_prior(out / "pipeline", stage, unet, forward.config))
