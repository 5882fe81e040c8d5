"""A prior, a diffusers `LDMPipeline` folder: its networks, its noise levels, what is published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.models.modeling_utils import ModelMixin

from nogaps.prior.vqvae import VQVAE2
from nogaps.runtime.checkpoint import build, load_tensors
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, parsing, sha256
from nogaps.runtime.hub import CARD, load_card, locate

FILES = ("*.json", "*/*.json", "*/*.safetensors")  # of a prior on the Hub
WEIGHTS = "diffusion_pytorch_model.safetensors"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
SHIPPED = Path(__file__).parents[1] / "weights" / "prior"
# called alike: encode(x in [-1,1]).latent_dist.mean, decode(z).sample, config.scaling_factor
FirstStage = AutoencoderKL | VQVAE2
STAGES = (AutoencoderKL, VQVAE2)
SOLVERS = {"ddim": (1, "dpmsolver++"), "ddpm": (1, "sde-dpmsolver++"), "dpm": (2, "dpmsolver++")}
SCHEDULERS = tuple(SOLVERS)
CONFIG = "scheduler_config.json"
LEVELS = 10_000  # of noise, at most
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FORWARD_PROCESS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
LAMBDA_RANGE = 4.5  # of log(alpha/sigma): beyond it the image is all noise, or has none left
LAMBDA_MIN = -5.1  # least log(alpha/sigma) for epsilon: a cosine schedule ends far below


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
    vqvae = load_part(folder / "vqvae", *STAGES).to(device)
    unet = load_part(folder / "unet", UNet2DModel).to(device)
    scheduler = load_json(folder / "scheduler" / CONFIG)
    make_scheduler("ddim", scheduler, 1, folder / "scheduler" / CONFIG)  # refuses impossible ones
    hashes = "".join(sha256(folder / part / WEIGHTS) for part in ("vqvae", "unet"))
    return Prior(vqvae, unet, scheduler, hashlib.sha256(hashes.encode()).hexdigest())


def make_scheduler(
    name: str, config: dict, steps: int, path: str | Path = CONFIG
) -> DPMSolverMultistepScheduler:
    """Return a scheduler for `steps` steps, from the noisiest level down to the image.

    ddim: arXiv 2010.02502, eta 0, deterministic; ddpm: the same with eta 1, which is ancestral
    sampling (ibid., section 4.1); dpm: DPM-Solver++ 2M (arXiv 2211.01095). The first two are its
    first order without and with fresh noise (arXiv 2206.00927, section 4.1).

    Args:
        name: One of SCHEDULERS.
        config: Of a diffusers scheduler; its forward process and prediction type count.
        steps: At most the number of noise levels.
        path: Of the config, for the message.

    Raises:
        BadInput: The config describes nothing that can be sampled, or there are too many steps.
    """
    order, algorithm = SOLVERS[name]
    forward = {key: config[key] for key in FORWARD_PROCESS if key in config}
    if forward.get("prediction_type", "epsilon") not in PREDICTIONS:
        problem = f"has prediction_type {forward['prediction_type']!r}"
        raise BadInput(problem, f"one of {', '.join(PREDICTIONS)}", path=path)
    with parsing(path, f"up to {LEVELS} noise levels"):
        levels = forward.get("num_train_timesteps", 1000)
        if type(levels) is not int or not 0 < levels <= LEVELS:
            raise ValueError(f"num_train_timesteps {levels!r:.20}")
        scheduler = DPMSolverMultistepScheduler(
            **forward, solver_order=order, algorithm_type=algorithm, final_sigmas_type="zero"
        )
        if len(scheduler.lambda_t) != levels or not scheduler.lambda_t.isfinite().all():
            raise ValueError("impossible betas")
    scheduler.set_timesteps(timesteps=_timesteps(scheduler, steps))
    return scheduler


def _timesteps(scheduler: DPMSolverMultistepScheduler, steps: int) -> np.ndarray:
    """`steps` falling noise levels; the last step then leads to the image.

    First order: evenly spaced in time, as diffusers' "trailing" means it. Second order: the
    noisiest, then evenly spaced in log(alpha/sigma), in which the solver expands (arXiv
    2211.01095, section 4): 20 of these come nearer to 200 than 50 that are even in time.
    """
    amount, levels = scheduler.lambda_t.double().numpy(), scheduler.config.num_train_timesteps
    if scheduler.config.prediction_type == "epsilon":
        # x0 gets epsilon's error divided by alpha there
        levels = int((amount >= LAMBDA_MIN).sum())
    if steps > levels:
        raise BadInput(f"num_inference_steps {steps}: the prior has {levels} noise levels")
    if scheduler.config.solver_order == 1 or steps == 1:
        # not diffusers' own: its stride is rounded, which for some numbers of steps adds a level -1
        return np.linspace(levels, 0, steps, endpoint=False).round().astype(np.int64) - 1
    high, low = min(LAMBDA_RANGE, amount[0]), max(-LAMBDA_RANGE, amount[levels - 1])
    at = np.abs(amount[:levels, None] - np.linspace(high, low, steps - 1)).argmin(0)
    # no level twice, however many are asked for
    order = np.arange(steps)
    free = np.maximum.accumulate(np.append(at, levels - 1) - order).clip(0, levels - steps)
    return (free + order)[::-1].copy()


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
