"""Training state in safetensors files: no pickle, the previous state kept, exact resume."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nogaps.files import BadInput, atomic

_TENSOR = "__tensor__"


def _flatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Copy of a nested structure in which each tensor is replaced by a reference to `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        # pairs, because JSON would turn the optimiser's integer keys into strings
        return {"dict": [[k, _flatten(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flatten(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    return value


def _restore(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if "list" in value:
        return [_restore(v, tensors) for v in value["list"]]
    return {k: _restore(v, tensors) for k, v in value["dict"]}


def save_tensors(path: str | Path, tensors: dict[str, torch.Tensor], meta: dict) -> None:
    """Write tensors and a JSON-able `meta` to one safetensors file, atomically."""
    # clone: safetensors refuses tensors that share memory
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"json": json.dumps(meta)})


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `save_tensors` wrote. Raises BadInput if missing or damaged."""
    try:
        with safe_open(str(path), "pt") as file:
            meta = json.loads((file.metadata() or {}).get("json", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, meta  # noqa: SIM118
    except FileNotFoundError as error:
        raise BadInput(f"{path}: not found") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{path}: is not a readable safetensors file") from error


def save_state(path: str | Path, state: dict) -> None:
    """Write a nested training state; the state that was there is kept as `*.previous`."""
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    meta = _flatten(state, "state", tensors)
    if path.exists():
        # a second name for the same file: at no moment is there none
        with atomic(path.with_suffix(".previous")) as spare:
            spare.unlink()
            try:
                os.link(path, spare)
            except OSError:  # Google Drive and exFAT have no hard links
                shutil.copyfile(path, spare)
    save_tensors(path, tensors, meta)


def load_state(path: str | Path) -> dict | None:
    """Read the newest whole state: `path`, else its `*.previous`, else None."""
    path = Path(path)
    for candidate in (path, path.with_suffix(".previous")):
        if not candidate.exists():
            continue
        try:
            tensors, meta = load_tensors(candidate)
            return _restore(meta, tensors)
        except (BadInput, KeyError):
            warnings.warn(f"{candidate}: damaged, the state before it is used", stacklevel=2)
    return None


def fingerprint(*tensors: torch.Tensor) -> str:
    """16 hex digits that change with any value of the tensors: a run is not continued on others."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tensor.shape, tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(path: str | Path, model: torch.nn.Module, config: dict) -> None:
    """Write a model's weights with the `config` that rebuilds it, in one safetensors file."""
    save_tensors(path, model.state_dict(), config)
