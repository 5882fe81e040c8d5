"""Load a prior, a diffusers `LDMPipeline` folder, strictly from safetensors; publish one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL, UNet2DModel
from diffusers.models.modeling_utils import ModelMixin

from nogaps.prior.schedulers import CONFIG, make_scheduler
from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.checkpoint import build, load_tensors
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, sha256
from nogaps.runtime.hub import CARD, load_card, locate, upload

FILES = ("*.json", "*/*.json", "*/*.safetensors")  # of a prior on the Hub
WEIGHTS = "diffusion_pytorch_model.safetensors"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
SHIPPED = Path(__file__).parents[1] / "weights" / "prior"


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


def load_part(folder: str | Path, *kinds: type[ModelMixin]) -> Any:
    """Load one network of a diffusers folder in fp32.

    Args:
        folder: With its config and weights.
        kinds: The classes that it may have.

    Raises:
        BadInput: It is none of these, or config and weights do not fit each other.
    """
    path = Path(folder) / "config.json"
    config, known = load_json(path), {kind.__name__: kind for kind in kinds}
    name = str(config.get("_class_name"))
    if name not in known:
        raise BadInput(f"describes {name!r:.40}", " or ".join(known), path=path)
    tensors, _ = load_tensors(path.with_name(WEIGHTS))
    model = build(path.with_name(WEIGHTS), tensors, lambda: known[name].from_config(config))
    return model.eval().requires_grad_(False)


def load_stage(folder: str | Path) -> FirstStage:
    """Load the first stage of a prior; see `load_part`."""
    return load_part(folder, AutoencoderKL, VQVAE2)


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
    unet = load_part(folder / "unet", UNet2DModel).to(device)
    scheduler = load_json(folder / "scheduler" / CONFIG)
    make_scheduler("ddim", scheduler, 1, folder / "scheduler" / CONFIG)  # refuses impossible ones
    hashes = "".join(sha256(folder / part / WEIGHTS) for part in ("vqvae", "unet"))
    return Prior(vqvae, unet, scheduler, hashlib.sha256(hashes.encode()).hexdigest())


def files_to_push(folder: str | Path | None = None) -> tuple[Path, list[str]]:
    """Return the folder of a prior, None being the shipped one, and the files to upload.

    These are weights, configs, the model card, and the pictures that the card names.

    Raises:
        BadInput: The prior does not load strictly, or has no model card.
    """
    folder = Path(folder or SHIPPED)
    if not folder.is_dir():
        raise BadInput("no such folder", "a prior to publish", path=folder)
    load_prior(folder.resolve(), torch.device("cpu"))
    text, names = load_card(folder / CARD).text, [CARD]
    for path in filter(Path.is_file, folder.rglob("*")):
        name, kind = path.relative_to(folder).as_posix(), path.suffix.lower()
        wanted = kind in (".json", ".safetensors") or (kind in PICTURES and name in text)
        if wanted and not any(part[0] == "." for part in name.split("/")):
            names.append(name)
    return folder, sorted(names)


def push_prior(
    repo_id: str,
    folder: str | Path | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload `files_to_push`; arguments, result and errors are those of `runtime.hub.upload`."""
    message = "Upload a prior of nogaps"
    return upload(repo_id, *files_to_push(folder), message, private, revision)
