"""What each choice made for speed brings: the same work with it, and with what it replaced.

    python -m benchmarks.changes            (about 3 minutes on two cores)

Filling of 96 images with `--quality fast`, and one training step of the notebook. Every row changes
one thing of the first; all are taken in turns, each once more right before it is timed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer
from torch import nn

from benchmarks import check_profile, limit, run, timing
from benchmarks.timing import machine, table
from nogaps import Assessment, standin
from nogaps.filling.files import CPU_BATCH
from nogaps.imputers.fused import FusedBlock, PairwiseMax
from nogaps.imputers.loading import load_imputer
from nogaps.runtime.device import keep_freed_memory, limit_allocator
from nogaps.runtime.files import save_json

RESULTS = timing.RESULTS / "changes.json"
SHIPPED = "as it is"
WORK = ("filling", "training step")
BLOCK = 17_000_000  # bytes of the largest block that a training step frees
GIVE_BACK = {  # what glibc settles to by itself after such a block
    "MALLOC_TRIM_THRESHOLD_": 2 * BLOCK,
    "MALLOC_MMAP_THRESHOLD_": BLOCK,
    "MALLOC_MMAP_MAX_": 2**16,
}


@dataclass(frozen=True)
class Change:
    """One choice undone: in the network, or in what surrounds its work."""

    name: str
    network: Callable[[nn.Module], object] = lambda network: None
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    batch: int = CPU_BATCH


def layer_by_layer(network: nn.Module) -> None:
    """Convolution, BatchNorm and SiLU as operations of their own, in place."""
    for module in network.modules():
        if isinstance(module, FusedBlock):
            module.forward = partial(nn.Sequential.forward, module)


def torch_pooling(network: nn.Module) -> None:
    """PyTorch's own max-pooling, in place."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, PairwiseMax):
                setattr(module, name, nn.MaxPool2d(2))


def by_channel(network: nn.Module) -> None:
    """Features and weights stored channel by channel (NCHW), as PyTorch does by default."""
    network.unet.to(memory_format=torch.contiguous_format)
    network.unet.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


@contextlib.contextmanager
def memory_given_back() -> Iterator[None]:
    """Freed memory goes back to the system."""
    limit_allocator(GIVE_BACK)
    try:
        yield
    finally:
        keep_freed_memory()


@contextlib.contextmanager
def optimiser(**options: bool) -> Iterator[None]:
    """AdamW with other options of its implementation."""
    with mock.patch.object(torch.optim, "AdamW", partial(torch.optim.AdamW, **options)):
        yield


SINGLE = partial(timing.precision, "fp32")
CHANGES = {
    "filling": (
        Change(SHIPPED),
        Change("convolution, BatchNorm and SiLU one by one", layer_by_layer),
        Change("PyTorch's max-pooling", torch_pooling),
        Change("features stored channel by channel", by_channel),
        Change("batches of 128 instead of 32", batch=128),
        Change("convolutions in fp32", around=SINGLE),
    ),
    "training step": (
        Change(SHIPPED),
        Change("features stored channel by channel", by_channel),
        Change("convolutions in fp32", around=SINGLE),
        Change("freed memory given back to the system", around=memory_given_back),
        Change("AdamW weight by weight", around=partial(optimiser, foreach=False)),
        Change("AdamW as one operation", around=partial(optimiser, fused=True)),
    ),
}


def undone(change: Change, work: timing.Work) -> timing.Work:
    """Work inside what a change puts around it."""

    def once() -> object:
        with change.around():
            return work()

    return once


def filling(change: Change, count: int) -> timing.Work:
    """Filling of so many images by the shipped network, with a change."""
    imputer = copy.deepcopy(load_imputer(quality="fast"))
    change.network(imputer)
    mask = torch.from_numpy(standin.course_mask())[None, None]
    y = torch.from_numpy(standin.corrupted_images())[:count]
    return undone(change, partial(Assessment.fill, imputer, y, mask, change.batch))


def training(change: Change, batch: int, profile: str) -> timing.Work:
    """A training step on so many images, with a change."""
    keep_freed_memory()  # as `nogaps train` does
    clean = torch.from_numpy(standin.clean_images())
    mask = torch.from_numpy(standin.course_mask())[None, None]
    imputer = Assessment.new_imputer(Assessment.PROFILES[profile], clean, 0)
    change.network(imputer)
    with change.around():
        step = limit.training_step(imputer, clean[:batch], mask)
    return undone(change, step)


def measure(name: str, profile: str, threads: int, repetitions: int) -> dict[str, timing.Spread]:
    """Images per second of one kind of work under every change."""
    count, batch = (4, 4) if profile == "smoke" else (96, limit.TRAIN_BATCH)
    make, images = {
        "filling": (partial(filling, count=count), count),
        "training step": (partial(training, batch=batch, profile=profile), batch),
    }[name]
    with timing.threads(threads):
        work = {change.name: make(change) for change in CHANGES[name]}
        seconds = timing.interleaved(work, repetitions, warm=True)
    return {key: timing.rate(s, images) for key, s in seconds.items()}


def as_markdown(found: dict) -> str:
    """Images per second, and in how much less time the work is done as it is."""
    parts = []
    for work in WORK:
        runs = [one[work] for one in found["runs"]]
        heads = [f"images/s, {one['threads']} thread(s)" for one in found["runs"]]
        rows = []
        for name in runs[0]:
            cells = []
            for one in runs:
                times = one[SHIPPED]["median"] / one[name]["median"]
                ratio = "" if name == SHIPPED else f" (as it is: {times:.2f} times)"
                cells.append(timing.said(one[name]) + ratio)
            rows.append([name, *cells])
        parts.append(table([work, *heads], rows))
    return "\n\n".join(parts)


def main(
    profile: Annotated[str, typer.Option(help="full, or smoke: small networks.")] = "full",
    repetitions: Annotated[int, typer.Option(min=1, help="Turns.")] = 12,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print the tables and write them as JSON."""
    check_profile(profile)
    small, where = profile == "smoke", machine()
    runs: list[dict] = [{"threads": threads} for threads in timing.thread_counts(small)]
    for work in WORK:  # filling first: from training on, freed memory is kept
        for one in runs:
            one[work] = measure(work, profile, one["threads"], 1 if small else repetitions)
    found = {"machine": where, "runs": runs}
    save_json(out, found)
    print(as_markdown(found))


if __name__ == "__main__":
    run(main)
