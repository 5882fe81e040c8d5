"""Commands that train the generative model, stage by stage or all stages. Heavy imports inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from nogaps.commands.options import SAVED, Json, Seed, command, say

Frames = Annotated[
    list[Path], Option(help="Frame file of `prior prepare`; repeat it for several files.")
]
Out = Annotated[Path, Option(help="Folder for the model, its log and its checkpoints.")]
Stage = Annotated[str, Option(help="First stage: kl (AutoencoderKL) or vqvae2.")]
Copies = Annotated[int, Option(help="Warped copies of each frame.")]
Start = Annotated[
    str | None,
    Option(help="Train this prior further (folder, Hub id, 'shipped'), on its first stage."),
]
Dropout = Annotated[float, Option(min=0, max=0.9, help="Share of the denoiser's features dropped.")]
Steps = Annotated[int, Option(help="Optimiser steps.")]
Batch = Annotated[int, Option(help="Images per step and process.")]
Rate = Annotated[float, Option(help="Peak learning rate; its cosine falls to zero.")]
AE_STEPS, DIFFUSION_STEPS, REFINE_STEPS = 4400, 4400, 800


@command(SAVED, shared=True)
def train_autoencoder(
    frames: Frames,
    out: Out,
    stage: Stage = "kl",
    steps: Steps = AE_STEPS,
    batch_size: Batch = 16,
    learning_rate: Rate = 1e-3,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the first stage; the same command continues an interrupted run.

    Example: nogaps prior train-autoencoder --frames runs/frames/heads.npz --out runs/prior
    """
    from nogaps.prior.autoencoder import train_autoencoder
    from nogaps.prior.training import Schedule

    train_autoencoder(frames, out, Schedule(steps, batch_size, learning_rate, seed=seed), stage)
    say({"vqvae": out / "vqvae"}, as_json, f"{out / 'vqvae'}: written")


@command(SAVED, shared=True)
def train_diffusion(
    frames: Frames,
    out: Out,
    steps: Steps = DIFFUSION_STEPS,
    batch_size: Batch = 64,
    learning_rate: Rate = 1e-3,
    copies: Copies = 24,
    dropout: Dropout = 0.1,
    start: Start = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the second stage on latents of OUT/vqvae; leaves a diffusers folder in OUT/pipeline.

    Example: nogaps prior train-diffusion --frames runs/frames/heads.npz --out runs/prior
    """
    from nogaps.prior.diffusion import train_diffusion
    from nogaps.prior.loading import FILES, SHIPPED
    from nogaps.prior.training import Schedule
    from nogaps.runtime.hub import locate

    schedule = Schedule(steps, batch_size, learning_rate, seed=seed)
    first = SHIPPED if start == "shipped" else start and locate(start, FILES)
    train_diffusion(frames, out, schedule, copies, dropout=dropout, start=first)
    say({"pipeline": out / "pipeline"}, as_json, f"{out / 'pipeline'}: written")


@command(SAVED, shared=True)
def refine(
    frames: Frames,
    out: Out,
    steps: Steps = REFINE_STEPS,
    batch_size: Batch = 16,
    learning_rate: Rate = 4e-4,
    samples: Annotated[int, Option(help="Sampled latents to learn from.")] = 1024,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Sharpen the decoder of OUT/pipeline on sampled latents; leaves OUT/refined.

    Example: nogaps prior refine --frames runs/frames/heads.npz --out runs/prior
    """
    from nogaps.prior.refine import refine_decoder
    from nogaps.prior.training import Schedule

    schedule = Schedule(steps, batch_size, learning_rate, ema_decay=0.995, seed=seed)
    refine_decoder(frames, out, schedule, samples)
    say({"pipeline": out / "refined"}, as_json, f"{out / 'refined'}: written")


@command(SAVED, shared=True)
def train(
    frames: Frames,
    out: Out,
    stage: Stage = "kl",
    copies: Copies = 24,
    dropout: Dropout = 0.1,
    autoencoder_steps: Steps = AE_STEPS,
    diffusion_steps: Steps = DIFFUSION_STEPS,
    refine_steps: Annotated[int, Option(help="Optimiser steps; 0: no refinement.")] = REFINE_STEPS,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train all stages: autoencoder, diffusion, refinement; leaves a folder that diffusers loads.

    The same command continues an interrupted run.

    Example: nogaps prior train --frames runs/frames/heads.npz --out runs/prior
    """
    from nogaps.prior.refine import train_prior
    from nogaps.prior.training import Schedule

    schedules = (
        Schedule(autoencoder_steps, 16, seed=seed),
        Schedule(diffusion_steps, 64, seed=seed),
        Schedule(refine_steps, 16, 4e-4, ema_decay=0.995, seed=seed),
    )
    result = train_prior(frames, out, *schedules, stage, copies=copies, dropout=dropout)
    say({"pipeline": result}, as_json, f"{result}: written")
