"""Pictures of samples with Pillow alone: a grid, and a film of the reverse process."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nogaps.prior.autoencoder import decode
from nogaps.prior.loading import Prior
from nogaps.prior.sampling import (
    PRECISIONS,
    Process,
    image_generators,
    resolve_precision,
    sample_batch,
)
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic

GRID_IMAGES, FILM_IMAGES, MOMENTS = 64, 8, 12  # at most, in a grid, in a film, of a film
ZOOM, GAP = 2, 2  # screen pixels per pixel and between images
BACKGROUND = 128  # grey value
FRAME, LAST_FRAME = 250, 2000  # milliseconds


def check_names(grid: str | Path | None, film: str | Path | None) -> None:
    """Raise BadInput for a kind of file that cannot be drawn; None is no file."""
    for path, kinds in ((grid, (".png",)), (film, (".gif", ".png"))):
        if path is not None and Path(path).suffix.lower() not in kinds:
            raise BadInput("is an unknown kind of picture", " or ".join(kinds), path=path)


def tile(x: torch.Tensor, columns: int) -> Image.Image:
    """Lay images out row by row on a grey sheet of 8 bits, each pixel enlarged.

    Args:
        x: Images (N,1,H,W) in [0,1].
        columns: Images of a row.
    """
    grey = (255 * x[:, 0].cpu()).round().clamp(0, 255).byte().numpy()
    grey = grey.repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    n, height, width = grey.shape
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, height + GAP, width + GAP), BACKGROUND, np.uint8)
    cells[:n, :height, :width] = grey
    sheet = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    sheet = sheet.reshape(rows * (height + GAP), columns * (width + GAP))
    return Image.fromarray(np.pad(sheet, ((GAP, 0), (GAP, 0)), constant_values=BACKGROUND))


def save_grid(path: str | Path, x: torch.Tensor) -> None:
    """Write the first images of x (N,1,H,W) in [0,1] as one .png.

    Raises:
        BadInput: `path` has another ending, or cannot be written.
    """
    check_names(path, None)
    x = x[:GRID_IMAGES]
    with atomic(path) as temporary:
        tile(x, math.ceil(math.sqrt(len(x)))).save(temporary)


def record(prior: Prior, seed: int, n: int, process: Process) -> torch.Tensor:
    """Sample the first n images of `generate`, and keep how they form.

    Returns:
        (T,n,1,H,W) in [0,1], T at most MOMENTS: decoded latents at evenly spaced steps, from pure
        noise to the finished images.
    """
    moments = np.linspace(0, process.num_inference_steps, MOMENTS).round()
    dtype = PRECISIONS[resolve_precision(process.precision, prior.device)]
    scale, frames, steps = prior.vqvae.config.scaling_factor, [], count()

    def keep(z: torch.Tensor) -> None:
        if next(steps) in moments:
            frames.append(decode(prior.vqvae, z / scale, dtype).cpu())

    x = sample_batch(prior, image_generators(seed, 0, n), process, callback=keep)
    return torch.stack([*frames, x.cpu()])


def save_film(path: str | Path, frames: torch.Tensor) -> None:
    """Write frames (T,N,1,H,W) in [0,1]: a .gif that repeats, or a .png with a row per image.

    Raises:
        BadInput: `path` has another ending, or cannot be written.
    """
    check_names(None, path)
    with atomic(path) as temporary:
        if Path(path).suffix.lower() == ".png":
            tile(frames.transpose(0, 1).flatten(0, 1), len(frames)).save(temporary)
            return
        first, *rest = (tile(x, math.ceil(math.sqrt(len(x)))) for x in frames)
        times = [FRAME] * len(rest) + [LAST_FRAME]
        first.save(temporary, save_all=True, append_images=rest, duration=times, loop=0)
