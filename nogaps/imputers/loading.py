"""Load a trained imputer: weights and the config that rebuilds it, from one safetensors file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from nogaps.Assessment import Ensemble, Imputer
from nogaps.imputers.fused import fuse
from nogaps.runtime.checkpoint import fingerprint, load_tensors
from nogaps.runtime.files import BadInput, load_json
from nogaps.runtime.hub import locate
from nogaps.runtime.networks import build
from nogaps.standin import course_mask

WEIGHTS = "imputer.safetensors"
CONFIG = "config.json"  # beside weights from the Hub: what their own config says
CALIBRATION = "uncertainty.json"  # beside the weights
FILES = (WEIGHTS, CONFIG, CALIBRATION)  # of an imputer on the Hub
SHIPPED = Path(__file__).parents[1] / "weights" / "imputer"
QUALITIES = ("fast", "best")


@dataclass(frozen=True)
class TrainedOn:
    """What networks were trained for: image size (H,W), and `fingerprint` of the mask (H,W)."""

    size: tuple[int, int]
    mask: str


def trained_on(mask: torch.Tensor) -> dict:
    """What the config of networks says about the mask (1,1,H,W) they were trained for."""
    return {"trained_on": {"size": [*mask.shape[2:]], "mask": fingerprint(mask[0, 0])}}


def weights_file(model: str | Path | None = None, revision: str | None = None) -> Path:
    """The .safetensors of a run folder, of itself, or of the Hub id `owner/name`, fetched then.

    None is the imputer shipped with this package; revision: of a Hub id. Raises BadInput, one line,
    if the Hub cannot be reached or has no such imputer.
    """
    path = locate(SHIPPED if model is None else model, FILES, revision)
    file = path / WEIGHTS if os.path.isdir(path) else path
    if str(path) != str(model) and not os.path.exists(file):
        raise BadInput(f"{model}: has no {WEIGHTS}, expected the repository of an imputer")
    return file


def load_imputer(
    model: str | Path | None = None,
    device: torch.device | None = None,
    quality: str = "best",
    revision: str | None = None,
) -> Imputer | Ensemble:
    """Imputer of a run folder, .safetensors file or Hub id; None is the one shipped here.

    device: where it computes, and where its images must be; None is the CPU. quality: "best" is
    the mean of all networks that were trained, "fast" the first of them alone. revision: a branch,
    tag or commit of a Hub id.

    Raises BadInput if the file is missing, damaged, or its weights do not fit its config.
    """
    if quality not in QUALITIES:
        raise BadInput(f"quality {quality!r}: expected one of {', '.join(QUALITIES)}")
    path = weights_file(model, revision)
    tensors, config = load_tensors(path)
    if (beside := path.parent / CONFIG).exists() and load_json(beside) != config:
        raise BadInput(f"{beside}: differs from the config in {path.name}, expected the same")
    imputer = fuse(Ensemble(_networks(path, tensors, config)))
    imputer = imputer.eval().requires_grad_(False).to(device or torch.device("cpu"))
    chosen = imputer if quality == "best" else imputer.networks[0]
    chosen.trained_on = _trained_on(path, config)
    return chosen


def _trained_on(path: Path, config: dict) -> TrainedOn | None:
    """What the networks were trained for; None if the file does not say it."""
    if "trained_on" not in config and path.parent == SHIPPED:  # the notebook's, for the course
        config = trained_on(torch.from_numpy(course_mask())[None, None])
    if (found := config.get("trained_on")) is None:
        return None
    try:
        height, width = found["size"]
        sound = type(height) is int and type(width) is int and isinstance(found["mask"], str)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise BadInput(f"{path}: its trained_on is no size and mask, expected both")
    return TrainedOn((height, width), found["mask"])


def _networks(path: Path, tensors: dict[str, torch.Tensor], config: dict) -> list[Imputer]:
    configs = config.get("networks") if isinstance(config, dict) else None
    if not isinstance(configs, list) or not configs:
        raise BadInput(f"{path}: describes no networks, expected the config of an imputer")
    networks, used = [], 0
    for k, one in enumerate(configs):
        start = f"networks.{k}."
        part = {n.removeprefix(start): tensors[n] for n in tensors if n.startswith(start)}
        networks.append(build(path, part, lambda one=one: _untrained(one)))
        used += len(part)
    if used < len(tensors):
        raise BadInput(f"{path}: its weights and its config do not fit, expected {used} tensors")
    return networks


def _untrained(config: dict) -> Imputer:
    size = 2 * config["lag"] + 1
    arguments = (config["widths"], config["bottleneck"], config["bottleneck_dropout"])
    return Imputer(torch.zeros(size, size), *arguments)
