"""Published recipes, trained as they were published: Adam, MSE over whole images, nothing else.

`train_plain` trains any network that has `config` and `predict(y, mask)`; `CourseworkNet` is the
network of the coursework's reference recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nogaps.Assessment import UNet
from nogaps.imputers.refinement import pad_to_multiple
from nogaps.runtime.checkpoint import Epochs, fingerprint
from nogaps.runtime.device import autocast, autocast_dtype
from nogaps.runtime.seeds import numbered_generator

Batches = Iterable[tuple[torch.Tensor, ...]]  # (y, x), or (y, x, mask) where each has its own
Row = dict[str, float]
COURSEWORK = {"learning_rate": 1e-3, "batch_size": 10}
SMOKE = {"widths": (8, 16), "bottleneck": 16}


class CourseworkNet(nn.Module):
    """The network of the coursework's reference recipe: image in, image out, 21.6 million weights.

    A U-Net (arXiv 1505.04597) on the corrupted image alone: no mask channel, and observed pixels
    are predicted like all others. Trained with `train_plain(..., **COURSEWORK)` for 150 epochs.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        bottleneck: int = 1024,
        dropout: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = {"widths": list(widths), "bottleneck": bottleneck, "dropout": dropout}
        with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
            torch.manual_seed(seed)
            self.unet = UNet(1, tuple(widths), bottleneck, dropout)
        self.unet.to(memory_format=torch.channels_last)

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map y (N,1,H,W) in [0,1] to x_hat (N,1,H,W) in [0,1]; no observed pixel is kept."""
        return self.predict(y, mask).clamp(0, 1)

    def predict(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map y to x_hat as `forward` does, not clipped; the mask is not looked at."""
        height, width = y.shape[-2:]
        h = pad_to_multiple(y, 2 ** len(self.config["widths"]))
        with autocast(h.device, autocast_dtype(h.device)):
            h = self.unet(h.contiguous(memory_format=torch.channels_last))
        return h.float()[..., :height, :width]


def plain_parts(network: nn.Module, learning_rate: float) -> dict[str, Any]:
    """Return the network, its optimiser and its loss scaler: what a checkpoint holds."""
    device = next(network.parameters()).device
    half = autocast_dtype(device) == torch.float16
    return {
        "network": network,
        "optimizer": torch.optim.Adam(network.parameters(), lr=learning_rate),
        "scaler": torch.amp.GradScaler(device.type, enabled=half),
    }


def shuffled(pairs: TensorDataset, batch_size: int, generator: torch.Generator) -> DataLoader:
    """Return the whole batches of one epoch; a smaller last one does not suit BatchNorm."""
    whole = len(pairs) >= batch_size
    return DataLoader(pairs, batch_size, shuffle=True, generator=generator, drop_last=whole)


def plain_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Batches,
    mask: torch.Tensor | None,
) -> float:
    """Make one pass over the batches and return the mean loss.

    mask: bool (1,1,H,W), True = observed, on the network's device; None if the batches have masks.
    """
    network.train()
    device = next(network.parameters()).device
    total, count = torch.zeros((), device=device), 0
    for batch in batches:
        y, x, *own = (part.to(device) for part in batch)
        loss = ((network.predict(y, own[0] if own else mask) - x) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total, count = total + loss.detach() * len(x), count + len(x)
    return float(total / count)


def train_plain(
    network: nn.Module,
    pairs: TensorDataset,
    mask: torch.Tensor | None,
    epochs: int,
    *,
    checkpoint: Path,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
    seconds_limit: float = float("inf"),
    score: Callable[[nn.Module], float] | None = None,
) -> list[Row]:
    """Train a newly built network in place, on its own device, and leave it in eval mode.

    Args:
        network: Has `config` and `predict` as `CourseworkNet`.
        pairs: (y, x), or (y, x, mask) and then `mask` is None.
        mask: bool (1,1,H,W), True = observed.
        epochs: Passes over the data.
        checkpoint: The state is saved there after every epoch. A second call with the same data
            and settings continues, on a CPU to the same bits; any other starts anew.
        learning_rate, batch_size, seed: Of Adam, of a step, of order and dropout.
        seconds_limit: No epoch begins after so many seconds of training.
        score: Called after each epoch; its time is not counted.

    Returns:
        A row per epoch: "epoch" from 1, "seconds" of training so far, "loss", "score" if any.
    """
    device = next(network.parameters()).device
    masks = [] if mask is None else [mask.to(device)]
    settings = [type(network).__name__, network.config, fingerprint(*pairs.tensors, *masks)]
    settings += [learning_rate, batch_size, seed, device.type, str(autocast_dtype(device))]
    parts = plain_parts(network, learning_rate)
    run = Epochs(checkpoint, settings, parts)
    for epoch in run.remaining(epochs, seed, device):
        spent = run.history.get("seconds", [])
        if spent and sum(spent) >= seconds_limit:
            break
        start = time.perf_counter()
        batches = shuffled(pairs, batch_size, numbered_generator(seed, epoch))
        loss = plain_epoch(*parts.values(), batches, masks[0] if masks else None)
        run.note(seconds=time.perf_counter() - start, loss=loss)
        if score is not None:
            run.note(score=score(network.eval()))
    network.eval()
    return rows_of(run.history | {"seconds": list(accumulate(run.history["seconds"]))})


def rows_of(history: dict[str, list[float]]) -> list[Row]:
    """Return a row per epoch of a history, with its number from 1."""
    rows = zip(*history.values(), strict=True)
    return [{"epoch": k, **dict(zip(history, row, strict=True))} for k, row in enumerate(rows, 1)]
