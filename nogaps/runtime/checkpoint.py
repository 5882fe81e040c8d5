"""Weights and training states in files without pickle, from which a run resumes exactly.

A network is built from a config that a stranger may have written: it is never larger than its file.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch.nn.modules import module as hooks
from torch.optim.swa_utils import AveragedModel

from nogaps.runtime.device import autocast_dtype
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, flush_to_disk, open_regular
from nogaps.runtime.progress import progress

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_TENSOR = "__tensor__"
SPARE = 1 << 20  # numbers that a network may hold besides those of its file
RECIPE = "Muon, 0.004"  # how the notebook trains: states of another recipe are not continued
TENSOR = 1000  # numbers that one more tensor, however small, counts as
Network = TypeVar("Network", bound=torch.nn.Module)


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
    with atomic(path) as temporary:
        # not save_file: it writes under a temporary name of its own, which a kill leaves behind
        temporary.write_bytes(_serialized(tensors, meta))


def _serialized(tensors: dict[str, torch.Tensor], meta: dict) -> bytes:
    # clone: safetensors refuses tensors that share memory
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    return save(tensors, metadata={"json": json.dumps(meta)})


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
    """Write a nested training state; the one that was there is kept as `*.previous`.

    Raises:
        BadInput: It cannot be written; what was there is then still there.
    """
    path, tensors = Path(path), dict[str, torch.Tensor]()
    meta = _flatten(state, "state", tensors)
    with atomic(path) as temporary:
        temporary.write_bytes(_serialized(tensors, meta))
        flush_to_disk(temporary)  # a disk may turn out to be full only now
        if path.exists():
            path.replace(path.with_suffix(".previous"))


def load_state(path: str | Path) -> dict | None:
    """Read the newest whole state: `path`, else its `*.previous`, else None.

    It warns of every damaged file that it meets.
    """
    for file in (Path(path), Path(path).with_suffix(".previous")):
        if file.exists():
            try:
                tensors, meta = load_tensors(file)
                return _restore({"dict": meta["dict"]}, tensors)
            except (BadInput, AttributeError, KeyError, TypeError, ValueError):
                warnings.warn(f"{file}: damaged, so it is not continued from", stacklevel=2)
    return None


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
        if state is not None and state.get("settings") == settings:
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
    options: DataclassInstance,
) -> list:
    """Return what must be equal for a saved training to be resumed.

    That is the notebook's `Options`, the network's `config` and layers, the clean images x and the
    mask, and the device that trains, on which the mask lies.
    """
    machine = [mask.device.type, str(autocast_dtype(mask.device))]
    layers = hashlib.sha256(repr(imputer).encode()).hexdigest()[:16]
    return [RECIPE, *astuple(options), imputer.config, layers, fingerprint(x, mask), *machine]


def save_model(path: str | Path, model: torch.nn.Module, config: dict) -> None:
    """Write a model's weights with the `config` that rebuilds it, in one safetensors file."""
    save_tensors(path, model.state_dict(), config)


def build(
    path: str | Path, weights: Mapping[str, torch.Tensor], make: Callable[[], Network]
) -> Network:
    """Build a network with these weights, first without memory, to see that it holds them.

    Args:
        path: The file that errors name.
        weights: The network's state dict.
        make: Makes the network from its configuration.

    Raises:
        BadInput: The configuration makes no network, a larger one than the weights are for, or one
            of other names and shapes; or the weights are not finite.
    """
    try:
        with torch.device("meta"), _bounded(weights):
            expected = {name: value.shape for name, value in make().state_dict().items()}
        if expected != {name: value.shape for name, value in weights.items()}:
            raise ValueError("names or shapes differ")
        if not all(value.isfinite().all() for value in weights.values()):
            raise ValueError("NaN or infinite weights")
        with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
            network = make()
        network.load_state_dict(weights)
        return network
    except Exception as error:  # a hostile config makes constructors raise nearly anything
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        problem = f"its weights and its config do not fit ({reason})"
        raise BadInput(problem, "those of one network", path=path) from error


@contextmanager
def _bounded(weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Raise ValueError for modules made within that take more memory than `weights` does."""
    left, thread = SPARE + sum(w.numel() + TENSOR for w in weights.values()), get_ident()

    def spend(_: torch.nn.Module, name: str, value: torch.Tensor | None) -> None:
        nonlocal left
        if value is not None and get_ident() == thread:
            left -= value.numel() + TENSOR
            if left < 0:
                raise ValueError(f"the config asks for more than the file holds, at {name}")

    handles = [
        hooks.register_module_parameter_registration_hook(spend),
        hooks.register_module_buffer_registration_hook(spend),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
