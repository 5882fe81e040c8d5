"""Pictures of samples: a grid, and a film of the reverse process."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.util import montage

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
    for path, kind in ((grid, ".png"), (film, ".gif")):
        if path is not None and Path(path).suffix.lower() != kind:
            raise BadInput("is an unknown kind of picture", kind, path=path)


def tile(x: torch.Tensor) -> Image.Image:
    """Lay images out row by row on a grey sheet of 8 bits, each pixel enlarged.

    Args:
        x: Images (N,1,H,W) in [0,1], N at least 1.
    """
    grey = (255 * x[:, 0].cpu()).round().clamp(0, 255).byte().numpy()
    grey = grey.repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    columns = math.ceil(math.sqrt(len(grey)))
    shape = math.ceil(len(grey) / columns), columns
    options = {"fill": BACKGROUND, "grid_shape": shape, "padding_width": GAP}
    return Image.fromarray(montage(grey, **options))


def save_grid(path: str | Path, x: torch.Tensor) -> None:
    """Write the first images of x (N,1,H,W) in [0,1] as one .png.

    Raises:
        BadInput: `path` has another ending, or cannot be written.
    """
    check_names(path, None)
    with atomic(path) as temporary:
        tile(x[:GRID_IMAGES]).save(temporary)


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
    """Write frames (T,N,1,H,W) in [0,1] as a .gif that repeats.

    Raises:
        BadInput: `path` has another ending, or cannot be written.
    """
    check_names(None, path)
    first, *rest = map(tile, frames)
    times = [FRAME] * len(rest) + [LAST_FRAME]
    with atomic(path) as temporary:
        first.save(temporary, save_all=True, append_images=rest, duration=times, loop=0)
