"""Load a trained imputer: weights and the config that rebuilds it, from one safetensors file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import torch

from nogaps.Assessment import Ensemble, Imputer
from nogaps.building import build
from nogaps.checkpoint import load_tensors
from nogaps.files import BadInput

WEIGHTS = "imputer.safetensors"
SHIPPED = Path(str(files("nogaps"))) / "weights" / "imputer"


QUALITIES = ("fast", "best")


def load_imputer(
    model: str | Path | None = None, device: torch.device | None = None, quality: str = "best"
) -> Imputer | Ensemble:
    """Imputer of a run folder or .safetensors file; None is the one shipped with this package.

    device: where it computes, and where its images must be; None is the CPU. quality: "best" is
    the mean of all networks that were trained, "fast" the first of them alone.

    Raises BadInput if the file is missing, damaged, or its weights do not fit its config.
    """
    if quality not in QUALITIES:
        raise BadInput(f"quality {quality!r}: expected one of {', '.join(QUALITIES)}")
    path = SHIPPED if model is None else Path(model)
    path = path / WEIGHTS if os.path.isdir(path) else path
    tensors, config = load_tensors(path)
    imputer = Ensemble(_networks(path, tensors, config))
    imputer = imputer.eval().requires_grad_(False).to(device or torch.device("cpu"))
    return imputer if quality == "best" else imputer.networks[0]


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
