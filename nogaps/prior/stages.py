"""All stages of the prior in one call: autoencoder, diffusion, refinement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nogaps.prior.autoencoder import train_autoencoder
from nogaps.prior.diffusion import train_diffusion
from nogaps.prior.refine import refine_decoder
from nogaps.prior.training import Schedule


def train_prior(
    frames: Sequence[str | Path],
    out: str | Path,
    autoencoder: Schedule,
    diffusion: Schedule,
    refinement: Schedule,
    stage: str = "kl",
    kl_weight: float = 1e-4,
    latent_channels: int | None = None,
    **options: object,
) -> Path:
    """Train all stages of a prior; the same call continues an interrupted run.

    Args:
        frames: Files of `prior prepare`; one given twice counts twice.
        out: Folder of the prior.
        autoencoder: Schedule of the first stage.
        diffusion: Schedule of the second stage.
        refinement: Schedule of the third stage, for a "kl" first stage; 0 steps: none.
        stage: "kl" or "vqvae2".
        kl_weight: Of the KL term, for "kl".
        latent_channels: Channels of the latents; else 16 for "kl", 12 for "vqvae2".
        **options: Further arguments of `train_diffusion`.

    Returns:
        The folder with the finished prior, `out/refined` or `out/pipeline`.

    Raises:
        BadInput: A file or an option cannot be used, or `out` holds a run with other settings.
    """
    out = Path(out)
    shape = {"latent_channels": latent_channels} if latent_channels else {}
    train_autoencoder(frames, out, autoencoder, stage, kl_weight, **shape)
    train_diffusion(frames, out, diffusion, **options)
    if not refinement.steps or stage != "kl":
        return out / "pipeline"
    refine_decoder(frames, out, refinement)
    return out / "refined"
