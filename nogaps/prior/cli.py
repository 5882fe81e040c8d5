"""`nogaps prior …`: prepare frames and train the generative model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Prepare head frames and train the generative model.")

Frames = Annotated[
    list[Path], typer.Option(help="Frame file of `prior prepare`; repeat it for several files.")
]
Out = Annotated[Path, typer.Option(help="Folder for the model, its log and its checkpoints.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def say(result: dict, as_json: bool, text: str) -> None:
    """Print a command's result for people, or for machines."""
    typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)


@app.command()
def prepare(
    source: Annotated[Path, typer.Option(help="Folder of PNG or JPG slices.")],
    index: Annotated[Path, typer.Option(help="CSV with the landmarks of each slice.")],
    out: Annotated[Path, typer.Option(help="The .npz file of frames to write.")],
    as_json: Json = False,
) -> None:
    """Frame raw head slices like the test set.

    Example: nogaps prior prepare --source heads/raw --index nogaps/data/heads.csv
    --out runs/frames/heads.npz
    """
    from nogaps.prior.heads import prepare as run

    counts = run(source, index, out)
    text = ", ".join(f"{n} {split}" for split, n in counts.items())
    say({"frames": out, "counts": counts}, as_json, f"{out}: {text}")


@app.command()
def train_autoencoder(
    frames: Frames,
    out: Out,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 3400,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine schedule.")] = 1e-3,
    latent_channels: Annotated[int, typer.Option(help="Channels at a quarter of the size.")] = 12,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the first stage; the same command continues an interrupted run.

    Example: nogaps prior train-autoencoder --frames runs/frames/heads.npz --out runs/prior
    """
    from nogaps.prior.autoencoder import train_autoencoder as run
    from nogaps.prior.training import Schedule

    schedule = Schedule(steps, batch_size, learning_rate, seed=seed)
    run(frames, out, schedule, latent_channels=latent_channels)
    say({"vqvae": out / "vqvae"}, as_json, f"{out / 'vqvae'}: written")


@app.command()
def train_diffusion(
    frames: Frames,
    out: Out,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 5000,
    batch_size: Annotated[int, typer.Option(help="Latents per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine schedule.")] = 1e-3,
    copies: Annotated[int, typer.Option(help="Warped copies of each frame.")] = 24,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the second stage on latents of OUT/vqvae; leaves a diffusers folder in OUT/pipeline.

    Example: nogaps prior train-diffusion --frames runs/frames/heads.npz --out runs/prior
    """
    from nogaps.prior.diffusion import train_diffusion as run
    from nogaps.prior.training import Schedule

    schedule = Schedule(steps, batch_size, learning_rate, seed=seed)
    run(frames, out, schedule, copies=copies)
    say({"pipeline": out / "pipeline"}, as_json, f"{out / 'pipeline'}: written")
