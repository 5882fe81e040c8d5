"""Load a prior: a diffusers `LDMPipeline` folder, read strictly from safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from diffusers import UNet2DModel
from diffusers.models.modeling_utils import ModelMixin

from nogaps.runtime.checkpoint import load_tensors
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, load_json, sha256
from nogaps.runtime.hub import locate
from nogaps.runtime.networks import build

FILES = ("*.json", "*/*.json", "*/*.safetensors")  # of a prior on the Hub
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHIPPED = Path(__file__).parents[1] / "weights" / "prior"
STAGES = {
    "AutoencoderKL": "diffusers",
    "PixelSpace": "nogaps.prior.pixel_space",
    "VQVAE2": "nogaps.prior.vqvae",
}  # first stages by class name, and the module that defines each
LEVELS = 10_000  # of noise, at most
Part = TypeVar("Part", bound=ModelMixin)


class FirstStage(Protocol):
    """What turns images into latents and back, called like diffusers' `AutoencoderKL`.

    encode(x in [-1,1]).latent_dist.mean, decode(z).sample, config.scaling_factor.
    """

    config: Any
    encode: Callable[[torch.Tensor], Any]
    decode: Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Prior:
    """A diffusion model: first stage, denoiser, noise schedule, and the hash of its weights."""

    vqvae: FirstStage
    unet: UNet2DModel
    scheduler: dict
    weights_sha256: str

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.unet.parameters()).device


def load_part(kind: type[Part], folder: str | Path) -> Part:
    """One network of a diffusers folder in fp32. Raises BadInput unless config and weights fit."""
    folder = Path(folder)
    config = load_json(folder / "config.json")
    if (name := config.get("_class_name")) != kind.__name__:
        raise BadInput(f"{folder}/config.json: describes {name!r:.40}, expected {kind.__name__}")
    tensors, _ = load_tensors(folder / WEIGHTS)
    model = build(folder / WEIGHTS, tensors, lambda: kind.from_config(config))
    return model.eval().requires_grad_(False)


def load_stage(folder: str | Path) -> FirstStage:
    """The first stage of a folder, whichever of STAGES its config names, in fp32."""
    name = load_json(Path(folder) / "config.json").get("_class_name")
    if not isinstance(name, str) or name not in STAGES:
        raise BadInput(f"{folder}/config.json: a {name!r:.40}, expected one of {', '.join(STAGES)}")
    return load_part(getattr(import_module(STAGES[name]), name), folder)


def load_schedule(path: str | Path) -> dict:
    """Config of a diffusers scheduler. Raises BadInput if its noise levels cannot be."""
    config = load_json(path)
    levels, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    numbers = [config.get(name, 0.01) for name in ("beta_start", "beta_end")]
    numbers += betas if isinstance(betas, list) else []
    sound = type(levels) is int and 0 < levels <= LEVELS
    sound &= betas is None or (isinstance(betas, list) and len(betas) == levels)
    sound &= all(isinstance(n, (int, float)) and 0 <= n <= 1 for n in numbers)
    sound &= all(isinstance(config.get(n, ""), str) for n in ("beta_schedule", "prediction_type"))
    if not sound:
        raise BadInput(f"{path}: describes no noise levels, expected up to {LEVELS} from 0 to 1")
    return config


def load_prior(
    prior: str | Path | None = None,
    device: torch.device | None = None,
    revision: str | None = None,
) -> Prior:
    """Load a diffusers folder or Hub id; None is the prior shipped with this package.

    Raises BadInput if a file is missing, damaged or does not fit its config.
    """
    folder = locate(SHIPPED if prior is None else prior, FILES, revision)
    device = device or pick_device()
    vqvae = load_stage(folder / "vqvae").to(device)
    unet = load_part(UNet2DModel, folder / "unet").to(device)
    scheduler = load_schedule(folder / "scheduler" / "scheduler_config.json")
    hashes = "".join(sha256(folder / part / WEIGHTS) for part in ("vqvae", "unet"))
    return Prior(vqvae, unet, scheduler, hashlib.sha256(hashes.encode()).hexdigest())
