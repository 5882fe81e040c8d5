"""Load a prior: a diffusers `LDMPipeline` folder, read strictly from safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DModel
from diffusers.models.modeling_utils import ModelMixin

from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.checkpoint import build, load_tensors
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, sha256
from nogaps.runtime.hub import locate

FILES = ("*.json", "*/*.json", "*/*.safetensors")  # of a prior on the Hub
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHIPPED = Path(__file__).parents[1] / "weights" / "prior"
STAGES = {kind.__name__: kind for kind in (AutoencoderKL, VQVAE2)}  # first stages
LEVELS = 10_000  # of noise, at most
Part = TypeVar("Part", bound=ModelMixin)


class FirstStage(Protocol):
    """Turns images into latents and back, called like diffusers' `AutoencoderKL`.

    encode(x in [-1,1]).latent_dist.mean, decode(z).sample, config.scaling_factor.
    """

    config: Any
    parameters: Callable[[], Iterator[torch.nn.Parameter]]
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
    """Load one network of a diffusers folder in fp32.

    Raises:
        BadInput: Config and weights do not fit each other, or the class.
    """
    folder = Path(folder)
    config = load_json(folder / "config.json")
    if (name := config.get("_class_name")) != kind.__name__:
        raise BadInput(f"describes {name!r:.40}", kind.__name__, path=folder / "config.json")
    tensors, _ = load_tensors(folder / WEIGHTS)
    model = build(folder / WEIGHTS, tensors, lambda: kind.from_config(config))
    return model.eval().requires_grad_(False)


def load_stage(folder: str | Path) -> FirstStage:
    """Load the first stage of a folder in fp32, whichever of STAGES its config names.

    Raises:
        BadInput: It is none of these, or config and weights do not fit each other.
    """
    path = Path(folder) / "config.json"
    name = load_json(path).get("_class_name")
    if not isinstance(name, str) or name not in STAGES:
        raise BadInput(f"describes {name!r:.40}", f"one of {', '.join(STAGES)}", path=path)
    return load_part(STAGES[name], folder)


def _load_schedule(path: Path) -> dict:
    """Config of a diffusers scheduler. Raises BadInput if its noise levels are impossible."""
    config = load_json(path)
    levels, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    values = [config.get(name, 0.01) for name in ("beta_start", "beta_end")]
    values += betas if isinstance(betas, list) else []
    names = [config.get(name, "") for name in ("beta_schedule", "prediction_type")]
    valid = type(levels) is int and 0 < levels <= LEVELS
    valid &= betas is None or (isinstance(betas, list) and len(betas) == levels)
    valid &= all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values)
    if not valid or not all(isinstance(name, str) for name in names):
        raise BadInput("describes no noise levels", f"up to {LEVELS} from 0 to 1", path=path)
    return config


def load_prior(
    prior: str | Path | None = None,
    device: torch.device | None = None,
    revision: str | None = None,
) -> Prior:
    """Load a prior for sampling.

    Args:
        prior: Diffusers folder or Hub id; else the prior shipped with this package.
        device: Where to compute; else the GPU if there is one.
        revision: Branch, tag or commit on the Hub.

    Raises:
        BadInput: A file is missing, damaged or does not fit its config.
    """
    folder = locate(SHIPPED if prior is None else prior, FILES, revision)
    device = device or pick_device()
    vqvae = load_stage(folder / "vqvae").to(device)
    unet = load_part(UNet2DModel, folder / "unet").to(device)
    scheduler = _load_schedule(folder / "scheduler" / "scheduler_config.json")
    hashes = "".join(sha256(folder / part / WEIGHTS) for part in ("vqvae", "unet"))
    return Prior(vqvae, unet, scheduler, hashlib.sha256(hashes.encode()).hexdigest())
