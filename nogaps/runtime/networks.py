"""Networks from configs that a stranger may have written: never larger than their weights file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import TypeVar

import torch
from torch.nn.modules import module as hooks

from nogaps.runtime.errors import BadInput

SPARE = 1 << 20  # numbers that a network may hold besides those of its file
SPARE_TENSORS = 1000  # as many tensors
Network = TypeVar("Network", bound=torch.nn.Module)


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
    """Raise ValueError for modules made within that take more numbers than `weights` holds."""
    numbers = sum(w.numel() for w in weights.values()) + SPARE
    tensors, thread = len(weights) + SPARE_TENSORS, get_ident()

    def spend(_: torch.nn.Module, name: str, value: torch.Tensor | None) -> None:
        nonlocal numbers, tensors
        if value is not None and get_ident() == thread:
            numbers, tensors = numbers - value.numel(), tensors - 1
            if min(numbers, tensors) < 0:
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
