"""Load a trained imputer: weights and the config that rebuilds it, from one safetensors file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from nogaps.Assessment import Imputer
from nogaps.checkpoint import load_tensors
from nogaps.files import BadInput

WEIGHTS = "imputer.safetensors"
SHIPPED = Path(str(files("nogaps"))) / "weights" / "imputer"


def load_imputer(model: str | Path | None = None, device: torch.device | None = None) -> Imputer:
    """Imputer of a run folder or .safetensors file; None is the one shipped with this package.

    device: where it computes, and where its images must be; None is the CPU.

    Raises BadInput if the file is missing, damaged, or its weights do not fit its config.
    """
    path = SHIPPED if model is None else Path(model)
    path = path / WEIGHTS if path.is_dir() else path
    tensors, config = load_tensors(path)
    try:
        size = 2 * config["lag"] + 1
        arguments = (config["widths"], config["bottleneck"], config["bottleneck_dropout"])
        imputer = Imputer(torch.zeros(size, size), *arguments)
        imputer.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise BadInput(f"{path}: its weights and its config do not fit an imputer") from error
    return imputer.eval().requires_grad_(False).to(device or torch.device("cpu"))
