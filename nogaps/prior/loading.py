"""Load a prior: a diffusers `LDMPipeline` folder, read strictly from safetensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DModel
from diffusers.configuration_utils import ConfigMixin

from nogaps.checkpoint import load_tensors
from nogaps.device import pick_device
from nogaps.files import BadInput, load_json, sha256

WEIGHTS = "diffusion_pytorch_model.safetensors"
SHIPPED = Path(str(files("nogaps"))) / "weights" / "prior"
Part = TypeVar("Part", AutoencoderKL, UNet2DModel)


@dataclass(frozen=True)
class Prior:
    """A latent diffusion model: decoder, denoiser, noise schedule, and the hash of its weights."""

    vqvae: AutoencoderKL
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
    if config.get("_class_name") != kind.__name__:
        raise BadInput(
            f"{folder}/config.json: describes a {config.get('_class_name')}, "
            f"expected {kind.__name__}"
        )
    model: ConfigMixin = kind.from_config(config)
    tensors, _ = load_tensors(folder / WEIGHTS)
    try:
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise BadInput(f"{folder}/{WEIGHTS}: does not fit its config.json") from error
    return model.eval().requires_grad_(False)


def locate(prior: str | Path, revision: str | None = None) -> Path:
    """Folder of a prior: the path itself, or a download of the Hub id `owner/name`."""
    folder = Path(prior)
    if folder.exists() or str(prior).count("/") != 1 or str(prior).startswith((".", "/")):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        patterns = ["*.json", "*/*.json", "*/*.safetensors"]
        return Path(snapshot_download(str(prior), revision=revision, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise BadInput(f"{prior}: no such folder, and the Hub did not supply it") from error


def load_prior(
    prior: str | Path | None = None,
    device: torch.device | None = None,
    revision: str | None = None,
) -> Prior:
    """Load a diffusers folder or Hub id; None is the prior shipped with this package.

    Raises BadInput if a file is missing, damaged or does not fit its config.
    """
    folder = locate(SHIPPED if prior is None else prior, revision)
    device = device or pick_device()
    vqvae = load_part(AutoencoderKL, folder / "vqvae").to(device)
    unet = load_part(UNet2DModel, folder / "unet").to(device)
    scheduler = load_json(folder / "scheduler" / "scheduler_config.json")
    hashes = "".join(sha256(folder / part / WEIGHTS) for part in ("vqvae", "unet"))
    return Prior(vqvae, unet, scheduler, hashlib.sha256(hashes.encode()).hexdigest())
