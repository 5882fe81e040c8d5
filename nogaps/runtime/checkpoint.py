"""Training state: averaged weights, and files without pickle from which a run resumes exactly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch.optim.swa_utils import AveragedModel

from nogaps.runtime.device import autocast_dtype
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, open_regular
from nogaps.runtime.progress import progress

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
    """Write tensors and a `meta` that JSON can hold to one safetensors file, atomically."""
    # clone: safetensors refuses tensors that share memory
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with atomic(path) as temporary:
        # not save_file: it writes under a temporary name of its own, which a kill leaves behind
        temporary.write_bytes(save(tensors, metadata={"json": json.dumps(meta)}))


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `save_tensors` wrote.

    Raises:
        BadInput: The file is missing or damaged.
    """
    open_regular(path).close()  # a pipe would wait for ever
    try:
        with safe_open(str(path), "pt") as file:
            meta = json.loads((file.metadata() or {}).get("json", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # hostile headers make safetensors and json raise nearly anything
        raise BadInput("is damaged", "a readable safetensors file", path=path) from error
    if not isinstance(meta, dict):
        raise BadInput(f"has metadata of type {type(meta).__name__}", "an object", path=path)
    return tensors, meta


def save_state(path: str | Path, state: dict) -> None:
    """Write a nested training state; the one that was there, if whole, is kept as `*.previous`.

    Raises:
        BadInput: It cannot be written; what was there is then still there.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    meta = _flatten(state, "state", tensors)
    if path.exists() and _is_whole(path):
        # a second name for the same file: at no moment is there none
        with atomic(path.with_suffix(".previous")) as spare:
            spare.unlink()
            try:
                os.link(path, spare)
            except OSError:  # Google Drive and exFAT have no hard links
                shutil.copyfile(path, spare)
    save_tensors(path, tensors, meta | {"crc32": _crc32(meta["dict"], tensors)})


def load_state(path: str | Path) -> dict | None:
    """Read the newest whole state: `path`, else its `*.previous`, else None.

    It warns of every damaged file that it meets.
    """
    path = Path(path)
    present = [file for file in (path, path.with_suffix(".previous")) if file.exists()]
    for file in present:
        try:
            return _read_state(file)
        except BadInput:
            last = file == present[-1]
            then = "no state before it is left" if last else "the state before it is used"
            warnings.warn(f"{file}: damaged, {then}", stacklevel=2)
    return None


def _read_state(path: Path) -> dict:
    """One state. Raises BadInput if it is damaged."""
    tensors, meta = load_tensors(path)
    try:
        entries, checksum = meta["dict"], meta.get("crc32")
        if checksum in (None, _crc32(entries, tensors)):  # None: written before there was one
            return _restore({"dict": entries}, tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput("is not a training state", path=path) from error
    raise BadInput("holds values that do not fit its checksum", path=path)


def _is_whole(path: Path) -> bool:
    """Whether a state can be read: a damaged one must not take the place of the one before it."""
    try:
        _read_state(path)
    except BadInput:
        return False
    return True


def _crc32(entries: list, tensors: dict[str, torch.Tensor]) -> int:
    """Checksum of a flattened state: a flipped bit would silently change the run."""
    checksum = zlib.crc32(json.dumps(entries).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8)
        checksum = zlib.crc32(values.numpy(), checksum)
    return checksum


def fingerprint(*tensors: torch.Tensor) -> str:
    """Return 16 hex digits that change with any value of the tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tensor.shape, tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Epochs:
    """Runs training epochs and saves the state after each; an interrupted run resumes to the bit.

    Args:
        path: File of the state, written after every epoch.
        settings: What must be equal for a saved run to be resumed.
        parts: Objects with `state_dict` and `load_state_dict`, by name.

    Attributes:
        history: Numbers of each epoch that is done, by name.
        seconds: How long each of them took, in whatever run.
    """

    def __init__(self, path: str | Path, settings: list, parts: dict[str, Any]) -> None:
        self.path, self.settings, self.parts = path, settings, parts
        self.history: dict[str, list[float]] = {}
        self.seconds: list[float] = []
        state = load_state(path)
        if state is not None and state["settings"] == settings:
            self.history, self.seconds = state["history"], state["seconds"]
            for name, part in parts.items():
                part.load_state_dict(state[name])

    def remaining(self, epochs: int, seed: int, device: torch.device) -> Iterator[int]:
        """Yield the epochs that are left; within each, the global generator has its own seed.

        Dropout draws from the global generator, which is put back after each epoch.
        """
        done = len(self.seconds)
        bar = progress(range(done, epochs), "training", initial=done, total=epochs)
        for epoch in bar:
            began = time.monotonic()
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed * 100_000 + epoch)
                yield epoch
            last = {name: f"{values[-1]:.5f}" for name, values in self.history.items()}
            bar.set_postfix(last, refresh=False)
            self.seconds.append(time.monotonic() - began)
            state = {name: part.state_dict() for name, part in self.parts.items()}
            own = {"history": self.history, "seconds": self.seconds, "settings": self.settings}
            save_state(self.path, state | own)

    def note(self, **values: float) -> None:
        """Add the numbers of the epoch that is under way to the history."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)


def run_settings(
    imputer: torch.nn.Module,
    x: torch.Tensor,
    mask: torch.Tensor,
    epochs: int,
    seed: int,
    batch_size: int = 32,
    sharpness: float = 0.0,
) -> list:
    """Return what must be equal for a saved training to be resumed.

    Args:
        imputer: The network, of which the layers count as well; it has a `config`.
        x: Clean training images.
        mask: True = observed, on the device that trains.
        epochs: Total number of epochs.
        seed: Seed of the training.
        batch_size: As in the notebook's `train`.
        sharpness: As in the notebook's `train`.
    """
    device = mask.device
    machine = [device.type, str(autocast_dtype(device))]
    data = fingerprint(x, mask)
    layers = hashlib.sha256(repr(imputer).encode()).hexdigest()[:16]
    return [epochs, seed, batch_size, sharpness, imputer.config, layers, data, *machine]


def save_model(path: str | Path, model: torch.nn.Module, config: dict) -> None:
    """Write a model's weights with the `config` that rebuilds it, in one safetensors file."""
    save_tensors(path, model.state_dict(), config)


def ema_of(model: torch.nn.Module, decay: float = 0.999) -> AveragedModel:
    """Return an average of `model` in fp32, floating-point buffers included.

    BatchNorm's running statistics are averaged with the weights, so that they fit each other.
    After n updates the decay is min(decay, (1+n)/(10+n)), so that the random initial weights are
    forgotten early. Call `.update_parameters(model)` after each optimiser step; the averaged
    network is `.module`.
    """

    @torch.no_grad()
    def update(averages: list, currents: list, count: torch.Tensor | int) -> None:
        if averages[0].is_floating_point():
            n = int(count)
            torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + n) / (10 + n)))
        else:  # BatchNorm counts its batches in an integer
            torch._foreach_copy_(averages, currents)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
