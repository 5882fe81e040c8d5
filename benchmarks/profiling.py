"""Where the time of the network's work goes, by kinds of operations, from torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from nogaps import Assessment
from nogaps.interpolation import LinearImputer

LABEL = "part: "
PARTS = {  # by the start of an operation's name, without aten:: and native_
    "batch_norm": "BatchNorm",
    "silu": "SiLU",
    "max_pool": "pooling",
    "maximum": "pooling",
    "cat": "joining skips",
    "copy_": "casts and copies",
    "_to_copy": "casts and copies",
    "to": "casts and copies",
    "clone": "casts and copies",
}


@contextmanager
def _labelled() -> Iterator[None]:
    """Parts that are no single operation carry their names in the profile."""
    places = {
        (Assessment, "augment"): "augmentation",
        (LinearImputer, "fill"): "kriging",
        (torch.nn.utils, "clip_grad_norm_"): "clipping of gradients",
        (torch.optim.AdamW, "step"): "optimiser",
        (torch.optim.swa_utils.AveragedModel, "update_parameters"): "averaging of weights",
    }

    def wrapped(work: Callable, part: str) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            with record_function(LABEL + part):
                return work(*arguments, **options)

        return call

    with ExitStack() as stack:
        for (owner, name), part in places.items():
            patched = wrapped(getattr(owner, name), part)
            stack.enter_context(mock.patch.object(owner, name, patched))
        yield


def part_of(event: torch.autograd.profiler_util.FunctionEvent) -> str:
    """Which part of the work an operation belongs to."""
    at = event
    while at is not None:
        if at.name.startswith(LABEL):
            return at.name.removeprefix(LABEL)
        at = at.cpu_parent
    name = event.name.rpartition("::")[2].removeprefix("native_").removeprefix("mkldnn_")
    if "convolution" in name:
        return _convolution(event.input_shapes)
    return next((part for start, part in PARTS.items() if name.startswith(start)), "the rest")


def _convolution(shapes: list[list[int]]) -> str:
    """Which one it is, told by its weights' shape: the last that has four dimensions."""
    sides = [shape[-1] for shape in shapes if len(shape) == 4]
    kinds = {3: "3×3 convolutions", 2: "transposed convolutions", 1: "1×1 convolution"}
    return kinds.get(sides[-1], "the rest") if sides else "the rest"


def shares(work: Callable[[], object], repetitions: int) -> dict[str, float]:
    """What part of its CPU time `work` spends on what; they add up to 1."""
    work()
    with _labelled(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        for _ in range(repetitions):
            work()
    total: dict[str, float] = {}
    for event in found.events():
        part = part_of(event)
        total[part] = total.get(part, 0.0) + event.self_cpu_time_total
    whole = sum(total.values())
    return {part: time / whole for part, time in sorted(total.items(), key=lambda item: -item[1])}
