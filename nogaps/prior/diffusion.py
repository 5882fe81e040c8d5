"""Second stage of the prior: a diffusion model on the latents of the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, LDMPipeline, UNet2DModel

from nogaps.augmentation import warp
from nogaps.prior.autoencoder import BATCH, encode
from nogaps.prior.frames import load_training, to_size
from nogaps.prior.loading import STAGES, WEIGHTS, FirstStage, load_part
from nogaps.prior.training import Schedule, fit, step_generator
from nogaps.runtime import processes
from nogaps.runtime.batches import make_npy
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.device import autocast, autocast_dtype, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic_folder, load_json, load_npy, sha256

TRAINING_STEPS = 1000  # noise levels of the forward process
# the forward process (cosine: arXiv 2102.09672, section 3.2), and what is predicted
FORWARD = DDPMScheduler(
    num_train_timesteps=TRAINING_STEPS,
    beta_schedule="squaredcos_cap_v2",
    prediction_type="v_prediction",
    clip_sample=False,
    timestep_spacing="trailing",
)


def build_denoiser(
    latent_channels: int,
    latent_size: int | tuple[int, int],
    widths: Sequence[int] = (96, 192),
    dropout: float = 0.1,
) -> UNet2DModel:
    """Build a U-Net with sinusoidal time embedding and attention in its middle only.

    Latents (N,latent_channels,H,W) of size H×W = latent_size, one number if H is W, and integer
    times (N,) in [0, 1000) give the prediction. Source: DDPM (arXiv 2006.11239), appendix B, in
    diffusers' form.

    Args:
        widths: Channels of each level.
        dropout: Share of the features that are dropped in training.
    """
    n = len(widths)
    if not isinstance(latent_size, int) and len(set(latent_size)) == 1:
        latent_size = latent_size[0]  # diffusers' LDMPipeline takes one number only
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


def diffusion_loss(
    model: UNet2DModel, z: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return the mean squared error of v (arXiv 2202.00512, appendix D) at uniform times.

    z: Latents (N,C,H,W) of unit variance. Noise and times are drawn on the CPU.
    """
    noise = torch.randn(z.shape, generator=generator).to(z.device)
    # one time per stratum of the batch: less variance than independent draws
    share = (torch.arange(len(z)) + torch.rand(len(z), generator=generator)) / len(z)
    t = (share * TRAINING_STEPS).long().to(z.device)
    predicted = model(FORWARD.add_noise(z, noise, t), t).sample.float()
    return {"loss": F.mse_loss(predicted, FORWARD.get_velocity(z, noise, t))}


def _training_latents(
    stage: FirstStage, frames: torch.Tensor, copies: int, seed: int, folder: Path
) -> tuple[tuple[int, ...], Callable[[], torch.Tensor]]:
    """Shape of the scaled latents of frames (N,1,2H,2W) and of `copies` warped copies of each.

    And a function that returns them, at its first call made or read from `folder`.
    """
    n, scale = len(frames), stage.config.scaling_factor
    shape = (n * (1 + copies), *encode(stage, to_size(frames[:1])).shape[1:])

    @lru_cache(maxsize=1)
    def images(k: int) -> torch.Tensor:
        # samples do not show the warps: these lie around the identity, and no head is mirrored
        return warp(frames, step_generator(seed, k - 1)) if k else to_size(frames)

    def make(start: int, stop: int) -> np.ndarray:
        passes = range(start // n, (stop - 1) // n + 1)
        parts = [images(k)[max(0, start - k * n) : stop - k * n] for k in passes]
        return (encode(stage, torch.cat(parts)) * scale).numpy()

    @cache
    def latents() -> torch.Tensor:
        key = fingerprint(frames, *stage.state_dict().values())
        path = folder / f"latents-{key}-{copies}-{seed}.npy"
        make_npy(path, shape, BATCH, make, "encoding")
        return torch.from_numpy(load_npy(path))

    return shape, latents


def _begin_from(unet: UNet2DModel, folder: Path) -> None:
    """Copy the weights of the prior in `folder`. Raises BadInput if it is of another kind."""
    kind = load_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type")
    if kind != FORWARD.config.prediction_type:
        raise BadInput(f"predicts {kind}", FORWARD.config.prediction_type, path=folder)
    try:
        unet.load_state_dict(load_part(folder / "unet", UNet2DModel).state_dict())
    except RuntimeError as error:
        problem = "is of another size than the denoiser to train"
        raise BadInput(problem, path=folder / "unet") from error


def save_prior(folder: Path, stage: FirstStage, unet: UNet2DModel, forward: dict) -> None:
    """Write a prior with its weights rounded to fp16, half the size.

    With an `AutoencoderKL` the folder is a diffusers `LDMPipeline`; only nogaps can load other
    first stages. `forward` is the config of the forward process.
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
    dropout: float = 0.1,
    start: str | Path | None = None,
) -> None:
    """Train a denoiser on frame files; write the folder `out/pipeline` (see `save_prior`).

    Args:
        frames, out, schedule: See `train_autoencoder`, which has written `out/vqvae`.
        copies: Warped copies of each frame.
        widths, dropout: See `build_denoiser`.
        start: Folder of a prior whose denoiser is trained further, on its first stage.

    Raises:
        BadInput: A file or an option cannot be used, or `out` holds a run with other settings.
    """
    out = Path(out)
    train, val = load_training(frames)
    folder = out if start is None else Path(start)
    stage = load_part(folder / "vqvae", *STAGES).to(pick_device())
    shape, latents = _training_latents(stage, train, copies, schedule.seed, out / "diffusion")
    z_val = encode(stage, val).to(stage.device) * stage.config.scaling_factor
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)  # diffusers initialises from the global generator
        unet = build_denoiser(shape[1], shape[2:], widths, dropout)
    if start is not None:
        _begin_from(unet, folder)

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        return latents()[torch.randint(shape[0], (n,), generator=generator)]

    @torch.no_grad()
    def validate(model: UNet2DModel) -> dict[str, float]:
        """Take the loss over four passes, with the same noise at every call."""
        generator = torch.Generator().manual_seed(0)
        with autocast(z_val.device, autocast_dtype(z_val.device)):
            losses = [diffusion_loss(model, z_val, generator)["loss"] for _ in range(4)]
        return {"loss": float(torch.stack(losses).mean())}

    config = {"stage": "diffusion", "files": [Path(f).name for f in frames], "latents": shape[0]}
    parts = () if start is None else ("vqvae", "unet")
    config |= {"start": [sha256(folder / part / WEIGHTS) for part in parts]}
    config |= {**FORWARD.config, **unet.config}
    unet = fit(unet, draw, diffusion_loss, validate, out / "diffusion", schedule, config)
    if processes.is_main():
        save_prior(out / "pipeline", stage, unet, FORWARD.config)
        for path in (out / "diffusion").glob("latents-*.npy"):  # large, and of no more use
            path.unlink()
    processes.wait_for_everyone()
