"""Sample synthetic heads: `generate`, one seed per image, resumable on disk."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from nogaps.prior.autoencoder import decode
from nogaps.prior.loading import Prior, load_prior
from nogaps.prior.schedulers import SCHEDULERS, make_scheduler
from nogaps.runtime import manifests, processes
from nogaps.runtime.device import autocast, autocast_dtype
from nogaps.runtime.files import BadInput, load_npy, save_json, save_npy
from nogaps.runtime.locks import folder_lock
from nogaps.runtime.pieces import make_pieces
from nogaps.runtime.progress import progress
from nogaps.runtime.seeds import numbered_generator

PROCESS = ("num_inference_steps", "scheduler", "temperature", "precision")  # of `sample_batch`
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # and "auto"


def latent_shape(prior: Prior) -> tuple[int, int, int]:
    """Channels, height and width of what the denoiser works on. Raises BadInput if unknown."""
    size = prior.unet.config.sample_size
    size = (size, size) if isinstance(size, int) else size
    if size is None or len(size) != 2:
        raise BadInput(f"unet/config.json: sample_size {size}, expected a number or a pair")
    return prior.unet.config.in_channels, *size


def image_generators(seed: int, first: int, n: int) -> list[torch.Generator]:
    """One generator per image, so that image k does not depend on the batch it is made in."""
    return [numbered_generator(seed, k) for k in range(first, first + n)]


@torch.no_grad()
def sample_latents(
    prior: Prior,
    generators: list[torch.Generator],
    num_inference_steps: int = 20,
    scheduler: str = "dpm",
    temperature: float = 1.0,
    precision: str = "auto",
    callback: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Run the reverse process once per generator.

    temperature scales all noise: the start for every scheduler, for ddpm each step's as well.
    callback, if given, gets the latents before each step. Returns latents (N,C,h,w) fp32, ready to
    be decoded, on the prior's device.
    """
    unet, device, shape = prior.unet, prior.device, latent_shape(prior)
    dtype = PRECISIONS[resolve_precision(precision, device)]
    solver = make_scheduler(scheduler, prior.scheduler, num_inference_steps)

    def noise() -> torch.Tensor:
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        return temperature * torch.stack(drawn).to(device)

    z = noise() * solver.init_noise_sigma
    for t in solver.timesteps:
        if callback:
            callback(z)
        with autocast(device, dtype):
            predicted = unet(z, t).sample.float()
        fresh = noise() if scheduler == "ddpm" else None
        z = solver.step(predicted, t, z, variance_noise=fresh).prev_sample
    return z / prior.vqvae.config.scaling_factor


def sample_batch(
    prior: Prior,
    generators: list[torch.Generator],
    num_inference_steps: int = 20,
    scheduler: str = "dpm",
    temperature: float = 1.0,
    precision: str = "auto",
    callback: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """`sample_latents`, decoded: (N,1,H,W) float32 in [0,1] on the prior's device."""
    settings = (num_inference_steps, scheduler, temperature, precision, callback)
    z = sample_latents(prior, generators, *settings)
    return decode(prior.vqvae, z, PRECISIONS[resolve_precision(precision, prior.device)])


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
    """Raise BadInput for settings that cannot be sampled, warn where one of them does nothing."""
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
    _warn_of(num_samples, num_inference_steps, scheduler, temperature)


def _warn_of(num_samples: int, steps: int, scheduler: str, temperature: float) -> None:
    """Warn of choices without effect, and of those that leave what the model was trained for."""
    if temperature == 0 and num_samples > 1:
        text = "temperature 0 leaves no noise: all images are the same, whatever the seed"
        warnings.warn(text, stacklevel=4)
    if temperature > 1:
        text = f"temperature {temperature}: above 1 the model meets more noise than in training"
        warnings.warn(text, stacklevel=4)
    if scheduler != "ddim" and steps == 1:
        warnings.warn(f"{scheduler} with 1 step does what ddim does", stacklevel=4)


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
    starts = progress(starts, "sampling", disable=len(starts) == 1)
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
    num_inference_steps: int = 20,
    batch_size: int = 64,
    scheduler: str = "dpm",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    prior: Prior | None = None,
    precision: str = "auto",
) -> Path:
    """`generate` to disk, batch by batch: `out/images.npy` and `out/manifest.json`.

    An interrupted call is continued by the same call, to the same bits. A finished folder with the
    same manifest is left as it is. Several processes (see `processes`) that all call this share the
    batches. Raises BadInput if `out` holds images of other settings, or of unknown ones, or if
    another run is sampling into it.
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
    with ExitStack() as stack:
        if processes.by_leader(lambda: _begin(out, prior, manifest, stack)):
            _sample_batches(out, prior, manifest)
    return out / manifests.IMAGES


def _begin(out: Path, prior: Prior, manifest: dict, stack: ExitStack) -> bool:
    """Whether there is anything to sample; `out` is then locked until `stack` is closed."""
    partial = out / manifests.PARTIAL
    if not manifests.is_finished(out, manifest):  # what cannot be is refused before any file
        make_scheduler(manifest["scheduler"], prior.scheduler, manifest["num_inference_steps"])
    elif not partial.exists():
        return False
    stack.enter_context(folder_lock(out))
    if manifests.is_finished(out, manifest):  # another run may have finished it just now
        shutil.rmtree(partial, ignore_errors=True)
        return False
    manifests.open_partial(partial, manifest)
    return True


def _sample_batches(out: Path, prior: Prior, manifest: dict) -> None:
    """Sample the batches that are not in `out/.partial` yet, and join all of them."""
    partial, process = out / manifests.PARTIAL, [manifest[key] for key in PROCESS]
    n, size, leader = manifest["num_samples"], manifest["batch_size"], processes.is_leader()
    manifests.await_manifest(partial, manifest)
    firsts = range(0, n, size)
    paths = [partial / f"{first:08d}.npy" for first in firsts]
    with progress(desc="sampling", total=len(paths), disable=not leader) as bar:

        def make(k: int) -> None:
            generators = image_generators(manifest["seed"], firsts[k], min(size, n - firsts[k]))
            save_npy(paths[k], sample_batch(prior, generators, *process).cpu().numpy())
            bar.update()

        make_pieces(paths, manifests.has_batch, make, lambda _: bar.update())
    if leader:
        # the manifest first: images without one are of unknown settings
        save_json(out / manifests.MANIFEST, manifest)
        manifests.join_batches(partial, out / manifests.IMAGES, n)
    processes.meet()
    if leader:
        shutil.rmtree(partial, ignore_errors=True)
