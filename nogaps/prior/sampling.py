"""Sample synthetic heads, one seed per image, resumable on disk, and draw them: grid and film."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from skimage.util import montage

from nogaps.prior.autoencoder import decode
from nogaps.prior.loading import SCHEDULERS, Prior, load_prior, make_scheduler
from nogaps.runtime.batches import make_npy
from nogaps.runtime.device import autocast, autocast_dtype
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, load_npy
from nogaps.runtime.progress import progress
from nogaps.runtime.seeds import numbered_generator

IMAGES = "images.npy"  # of a folder of samples
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # and "auto"
GRID_IMAGES, FILM_IMAGES, MOMENTS = 64, 8, 12  # at most, in a grid, in a film, of a film
ZOOM, GAP, BACKGROUND = 2, 2, 128  # screen pixels per pixel, between images, their grey value
FRAME, LAST_FRAME = 250, 2000  # milliseconds


class Process(NamedTuple):
    """How the reverse process runs."""

    num_inference_steps: int = 20
    scheduler: str = "dpm"  # one of SCHEDULERS
    temperature: float = 1.0  # scales all noise: the start, and with ddpm that of each step
    precision: str = "auto"  # or a key of PRECISIONS


def latent_shape(prior: Prior) -> tuple[int, int, int]:
    """Return channels, height and width of what the denoiser works on.

    Raises:
        BadInput: The denoiser's configuration does not tell its size.
    """
    size = prior.unet.config.sample_size
    size = (size, size) if isinstance(size, int) else size
    if size is None or len(size) != 2:
        raise BadInput(f"sample_size {size}", "a number or a pair", path="unet/config.json")
    return prior.unet.config.in_channels, *size


def image_generators(seed: int, first: int, n: int) -> list[torch.Generator]:
    """Return one generator per image, so that image k does not depend on its batch."""
    return [numbered_generator(seed, k) for k in range(first, first + n)]


@torch.no_grad()
def sample_latents(
    prior: Prior,
    generators: list[torch.Generator],
    process: Process,
    callback: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Run the reverse process once per generator.

    Args:
        prior: The generative model.
        generators: One per image.
        process: How it runs.
        callback: Gets the latents before each step, scaled as the denoiser takes them.

    Returns:
        Latents (N,C,h,w) float32 on the prior's device, ready to be decoded.
    """
    unet, device, shape = prior.unet, prior.device, latent_shape(prior)
    dtype = PRECISIONS[resolve_precision(process.precision, device)]
    solver = make_scheduler(process.scheduler, prior.scheduler, process.num_inference_steps)

    def noise() -> torch.Tensor:
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        return process.temperature * torch.stack(drawn).to(device)

    z = noise() * solver.init_noise_sigma
    for t in solver.timesteps:
        if callback:
            callback(z)
        with autocast(device, dtype):
            predicted = unet(z, t).sample.float()
        fresh = noise() if process.scheduler == "ddpm" else None
        z = solver.step(predicted, t, z, variance_noise=fresh).prev_sample
    return z / prior.vqvae.config.scaling_factor


def sample_batch(prior: Prior, generators: list[torch.Generator], process: Process) -> torch.Tensor:
    """Decode `sample_latents`: (N,1,H,W) float32 in [0,1] on the prior's device."""
    z = sample_latents(prior, generators, process)
    return decode(prior.vqvae, z, PRECISIONS[resolve_precision(process.precision, prior.device)])


def resolve_precision(name: str, device: torch.device) -> str:
    """Return a key of PRECISIONS; for "auto" that in which `device` computes fast."""
    if name != "auto":
        return name
    return next(key for key, dtype in PRECISIONS.items() if dtype == autocast_dtype(device))


def check_settings(num_samples: int, batch_size: int, process: Process) -> None:
    """Raise BadInput for settings that cannot be sampled; warn where one of them does nothing."""
    num_inference_steps, scheduler, temperature, precision = process
    for name, value, low, high in (
        ("num_samples", num_samples, 1, math.inf),
        ("batch_size", batch_size, 1, math.inf),
        ("num_inference_steps", num_inference_steps, 1, 1000),
        ("temperature", temperature, 0, 2),
    ):
        if not low <= value <= high:
            limits = f"{low} to {high}" if high < math.inf else f"at least {low}"
            raise BadInput(f"{name} {value}", limits)
    if scheduler not in SCHEDULERS:
        raise BadInput(f"scheduler {scheduler!r}", f"one of {', '.join(SCHEDULERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise BadInput(f"precision {precision!r}", f"auto, {', '.join(PRECISIONS)}")
    if temperature == 0 and num_samples > 1:
        text = "temperature 0 leaves no noise: all images are the same, whatever the seed"
        warnings.warn(text, stacklevel=3)
    if temperature > 1:
        text = f"temperature {temperature}: above 1 the model meets more noise than in training"
        warnings.warn(text, stacklevel=3)


def generate(
    num_samples: int = 2048,
    num_inference_steps: int = 20,
    batch_size: int = 64,
    scheduler: str = "dpm",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    prior: Prior | None = None,
    precision: str = "auto",
    out: str | Path | None = None,
) -> list[torch.Tensor]:
    """Sample synthetic heads; the first arguments are those of the course's own `generate`.

    Args:
        num_samples: How many images.
        num_inference_steps: Steps of the reverse process, 1 to 1000.
        batch_size: Images at a time.
        scheduler: "ddim", "ddpm" or "dpm".
        temperature: Scale of the noise, 0 to 2.
        seed: Image k depends on `seed` and k only.
        prior: The generative model; else the shipped one.
        precision: "auto", "fp32", "bf16" or "fp16".
        out: A folder to which `sample_to` saves the images; they are read back from there.

    Returns:
        A list of batches (B,1,64,64) float32 in [0,1] on the model's device.

    Raises:
        BadInput: The settings are impossible.
    """
    prior = prior or load_prior()
    if out is not None:
        settings = (num_samples, num_inference_steps, batch_size, scheduler, temperature, seed)
        path = sample_to(out, *settings, prior=prior, precision=precision)
        return list(torch.from_numpy(load_npy(path)).to(prior.device).split(batch_size))
    process = Process(num_inference_steps, scheduler, temperature, precision)
    check_settings(num_samples, batch_size, process)
    starts = range(0, num_samples, batch_size)
    return [
        sample_batch(prior, image_generators(seed, k, min(batch_size, num_samples - k)), process)
        for k in progress(starts, "sampling", disable=len(starts) == 1)
    ]


def sample_to(
    out: str | Path,
    num_samples: int = 2048,
    num_inference_steps: int = 20,
    batch_size: int = 64,
    scheduler: str = "dpm",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    prior: Prior | None = None,
    precision: str = "auto",
) -> Path:
    """Write what `generate` samples to `out/images.npy`, and its settings to `out/manifest.json`.

    An interrupted call is continued by the same call, to the same bits. A finished folder of the
    same settings is left as it is. Several processes (see `processes`) that all call this share
    the batches.

    Returns:
        The path of the images, (N,1,H,W) float32 in [0,1].

    Raises:
        BadInput: `out` holds images of other settings, or of unknown ones, or another run is
            sampling into it.
    """
    process = Process(num_inference_steps, scheduler, temperature, precision)
    check_settings(num_samples, batch_size, process)
    prior = prior or load_prior()
    process = process._replace(precision=resolve_precision(precision, prior.device))
    # settings that cannot be sampled are refused before any file is written
    make_scheduler(scheduler, prior.scheduler, num_inference_steps)
    manifest = {"num_samples": num_samples, "batch_size": batch_size, "seed": seed}
    manifest |= {**process._asdict(), "device": prior.device.type}
    manifest |= {"weights_sha256": prior.weights_sha256}

    def make(start: int, stop: int) -> np.ndarray:
        generators = image_generators(seed, start, stop - start)
        return sample_batch(prior, generators, process).cpu().numpy()

    z = torch.zeros(1, *latent_shape(prior), device=prior.device)
    shape = (num_samples, *decode(prior.vqvae, z, None).shape[1:])
    path = Path(out) / IMAGES
    make_npy(path, shape, batch_size, make, "sampling", manifest)
    return path


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
    return Image.fromarray(montage(grey, fill=BACKGROUND, grid_shape=shape, padding_width=GAP))


def save_grid(path: str | Path, x: torch.Tensor) -> None:
    """Write the first images of x (N,1,H,W) in [0,1] as one .png."""
    with atomic(path) as temporary:
        tile(x[:GRID_IMAGES]).save(temporary)


def record(prior: Prior, seed: int, n: int, process: Process) -> torch.Tensor:
    """Sample the first n images of `generate`, at most FILM_IMAGES, and keep how they form.

    Returns:
        (T,n,1,H,W) in [0,1], T at most MOMENTS: decoded latents at evenly spaced steps, from pure
        noise to the finished images.
    """
    moments = np.linspace(0, process.num_inference_steps, MOMENTS).round()
    scale, kept, steps = prior.vqvae.config.scaling_factor, [], count()

    def keep(z: torch.Tensor) -> None:
        if next(steps) in moments:
            kept.append(z / scale)

    generators = image_generators(seed, 0, min(n, FILM_IMAGES))
    kept.append(sample_latents(prior, generators, process, keep))
    dtype = PRECISIONS[resolve_precision(process.precision, prior.device)]
    return torch.stack([decode(prior.vqvae, z, dtype).cpu() for z in kept])


def save_film(path: str | Path, frames: torch.Tensor) -> None:
    """Write frames (T,N,1,H,W) in [0,1] as a .gif that repeats."""
    first, *rest = map(tile, frames)
    times = [FRAME] * len(rest) + [LAST_FRAME]
    with atomic(path) as temporary:
        first.save(temporary, save_all=True, append_images=rest, duration=times, loop=0)
