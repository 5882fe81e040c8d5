"""Sample synthetic heads: `generate`, one seed per image, resumable on disk."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from tqdm.auto import tqdm

from nogaps.device import autocast, autocast_dtype
from nogaps.files import BadInput, atomic, load_json, load_npy, save_json, save_npy
from nogaps.prior.autoencoder import decode
from nogaps.prior.loading import Prior, load_prior
from nogaps.seeds import numbered_generator

SCHEDULERS = ("ddim", "ddpm", "dpm")
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # and "auto"


def make_scheduler(name: str, config: dict, steps: int) -> tuple[object, float]:
    """Scheduler for `steps` steps and its eta (share of fresh noise per step).

    ddim: arXiv 2010.02502, eta 0, deterministic; ddpm: the same update with eta 1, which is
    ancestral sampling (ibid., section 4.1); dpm: DPM-Solver++ 2M (arXiv 2211.01095).
    """
    config = {**config, "clip_sample": False, "timestep_spacing": "trailing"}
    if name == "dpm":
        scheduler = DPMSolverMultistepScheduler.from_config(config, solver_order=2)
    else:
        scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler, float(name == "ddpm")


def image_generators(seed: int, first: int, n: int) -> list[torch.Generator]:
    """One generator per image, so that image k does not depend on the batch it is made in."""
    return [numbered_generator(seed, k) for k in range(first, first + n)]


@torch.no_grad()
def sample_batch(
    prior: Prior,
    generators: list[torch.Generator],
    num_inference_steps: int = 25,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    precision: str = "auto",
    callback: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Run the reverse process once per generator.

    temperature scales all noise: the start for every scheduler, for ddpm each step's as well.
    callback, if given, gets the latents before each step. Returns (N,1,H,W) float32 in [0,1] on
    the prior's device.
    """
    unet, device = prior.unet, prior.device
    dtype = PRECISIONS[resolve_precision(precision, device)]
    solver, eta = make_scheduler(scheduler, prior.scheduler, num_inference_steps)
    size = unet.config.sample_size
    shape = (unet.config.in_channels, size, size)

    def noise() -> torch.Tensor:
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        return temperature * torch.stack(drawn).to(device)

    z = noise() * solver.init_noise_sigma
    for t in solver.timesteps:
        if callback:
            callback(z)
        with autocast(device, dtype):
            v = unet(z, t).sample.float()
        extra = {"eta": eta, "variance_noise": noise()} if eta else {}
        z = solver.step(v, t, z, **extra).prev_sample
    return decode(prior.vqvae, z / prior.vqvae.config.scaling_factor, dtype)


def resolve_precision(name: str, device: torch.device) -> str:
    """Key of PRECISIONS; "auto" is what `device` computes fast in."""
    if name != "auto":
        return name
    return next(key for key, dtype in PRECISIONS.items() if dtype == autocast_dtype(device))


def check_settings(
    num_samples: int,
    num_inference_steps: int,
    batch_size: int,
    scheduler: str,
    temperature: float,
    precision: str,
) -> None:
    """Raise BadInput for settings that cannot be sampled."""
    for name, value in (
        ("num_samples", num_samples),
        ("num_inference_steps", num_inference_steps),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise BadInput(f"{name} {value}: expected at least 1")
    if num_inference_steps > 1000:
        raise BadInput(f"num_inference_steps {num_inference_steps}: expected at most 1000")
    if not 0 <= temperature <= 2:
        raise BadInput(f"temperature {temperature}: expected 0 to 2")
    if scheduler not in SCHEDULERS:
        raise BadInput(f"scheduler {scheduler!r}: expected one of {', '.join(SCHEDULERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise BadInput(f"precision {precision!r}: expected auto, {', '.join(PRECISIONS)}")
    if temperature == 0 and num_samples > 1:
        warnings.warn("temperature 0 leaves no noise: all images are the same", stacklevel=3)


def generate(
    num_samples: int = 2048,
    num_inference_steps: int = 25,
    batch_size: int = 64,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    prior: Prior | None = None,
    precision: str = "auto",
    out: str | Path | None = None,
) -> list[torch.Tensor]:
    """Sample synthetic heads; the arguments are those of the course's own `generate`.

    Returns a list of batches (B,1,64,64) float32 in [0,1] on the model's device. Image k depends
    on `seed` and k only. With a folder `out` the images are saved there by `sample_to` and read
    back. Raises BadInput for impossible settings.
    """
    prior = prior or load_prior()
    if out is not None:
        settings = (num_samples, num_inference_steps, batch_size, scheduler, temperature, seed)
        path = sample_to(out, *settings, prior=prior, precision=precision)
        return list(torch.from_numpy(load_npy(path)).to(prior.device).split(batch_size))
    check_settings(num_samples, num_inference_steps, batch_size, scheduler, temperature, precision)
    starts = range(0, num_samples, batch_size)
    starts = tqdm(starts, desc="sampling", mininterval=1, disable=len(starts) == 1)
    return [
        sample_batch(
            prior,
            image_generators(seed, first, min(batch_size, num_samples - first)),
            num_inference_steps,
            scheduler,
            temperature,
            precision,
        )
        for first in starts
    ]


def sample_to(
    out: str | Path,
    num_samples: int = 2048,
    num_inference_steps: int = 25,
    batch_size: int = 64,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    prior: Prior | None = None,
    precision: str = "auto",
) -> Path:
    """`generate` to disk, batch by batch: `out/images.npy` and `out/manifest.json`.

    An interrupted call is continued by the same call, to the same bits. A finished folder with the
    same manifest is left as it is. Raises BadInput if `out` holds images of other settings.
    """
    check_settings(num_samples, num_inference_steps, batch_size, scheduler, temperature, precision)
    out, prior = Path(out), prior or load_prior()
    precision = resolve_precision(precision, prior.device)
    manifest = {
        "num_samples": num_samples,
        "num_inference_steps": num_inference_steps,
        "batch_size": batch_size,
        "scheduler": scheduler,
        "temperature": temperature,
        "seed": seed,
        "precision": precision,
        "device": prior.device.type,
        "weights_sha256": prior.weights_sha256,
    }
    if _matches(out, manifest):
        return out / "images.npy"
    partial = out / ".partial"
    if not _matches(partial, manifest, finished=False):
        save_json(partial / "manifest.json", manifest)
    for first in tqdm(range(0, num_samples, batch_size), desc="sampling", mininterval=1):
        path = partial / f"{first:08d}.npy"
        if path.exists():
            continue
        n = min(batch_size, num_samples - first)
        x = sample_batch(
            prior,
            image_generators(seed, first, n),
            num_inference_steps,
            scheduler,
            temperature,
            precision,
        )
        save_npy(path, x.cpu().numpy())
    _join(partial, out / "images.npy", num_samples)
    save_json(out / "manifest.json", manifest)
    shutil.rmtree(partial)
    return out / "images.npy"


def _matches(folder: Path, manifest: dict, finished: bool = True) -> bool:
    """Whether `folder` holds this very work; BadInput if it holds another."""
    path = folder / "manifest.json"
    if not path.exists():
        return False
    found = load_json(path)
    different = [key for key in manifest if found.get(key) != manifest[key]]
    if different:
        pairs = (f"{key} {found.get(key)!r}, not {manifest[key]!r}" for key in different)
        raise BadInput(f"{path}: made with {'; '.join(pairs)}: use another folder or remove it")
    return not finished or (folder / "images.npy").exists()


def _join(partial: Path, path: Path, n: int) -> None:
    """Concatenate the batches of `partial` in constant memory."""
    parts = sorted(partial.glob("[0-9]*.npy"))  # not what a killed process left half-written
    shape = (n, *load_npy(parts[0], mmap=True).shape[1:])
    with atomic(path) as temporary:
        whole = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        first = 0
        for part in parts:
            images = load_npy(part)
            whole[first : first + len(images)] = images
            first += len(images)
        whole.flush()
        del whole
