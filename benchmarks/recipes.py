"""Published recipes, trained as they were published: Adam, MSE, nothing else. Time is logged.

`train_plain` trains any network that has `config`, `predict(y, mask)` and `network(y, mask)`;
`CourseworkNet` is the network of the coursework's reference recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

from nogaps.Assessment import UNet
from nogaps.imputers.refinement import pad_to_multiple
from nogaps.runtime.checkpoint import fingerprint, load_state, save_state
from nogaps.runtime.device import autocast, autocast_dtype
from nogaps.runtime.errors import BadInput
from nogaps.runtime.seeds import numbered_generator

Batch = tuple[torch.Tensor, ...]  # (y, x), or (y, x, mask) where every image has its own
Row = dict[str, float | None]
COURSEWORK = {"learning_rate": 1e-3, "batch_size": 10, "whole_image_loss": True}


class Source(Protocol):
    """Batches of one epoch on demand, the same for the same generator; `fingerprint` of the data.

    y and x (N,C,H,W) float32 in [0,1], mask bool (N,1,H,W), True = observed.
    """

    fingerprint: str

    def __call__(self, generator: torch.Generator, batch_size: int) -> Iterable[Batch]:
        """Return the batches of one epoch."""


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
        """Map y (N,1,H,W) in [0,1] to x_hat (N,1,H,W), clipped to [0,1] unless training.

        The mask is not looked at: the recipe keeps no observed pixel.
        """
        x_hat = self.predict(y, mask)
        return x_hat if self.training else x_hat.clamp(0, 1)

    def predict(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map y to x_hat as `forward` does, never clipped."""
        height, width = y.shape[-2:]
        h = pad_to_multiple(y, 2 ** len(self.config["widths"]))
        with autocast(h.device, autocast_dtype(h.device)):
            h = self.unet(h.contiguous(memory_format=torch.channels_last))
        return h.float()[..., :height, :width]


class Shuffled:
    """Source of a TensorDataset, shuffled anew each epoch.

    A last batch that is not whole is left out: BatchNorm needs several images.
    """

    def __init__(self, pairs: TensorDataset) -> None:
        self.pairs, self.fingerprint = pairs, fingerprint(*pairs.tensors)

    def __call__(self, generator: torch.Generator, batch_size: int) -> Iterable[Batch]:
        """Return the whole batches of one epoch."""
        whole = len(self.pairs) >= batch_size
        return DataLoader(
            self.pairs, batch_size, shuffle=True, generator=generator, drop_last=whole
        )


def train_plain(
    network: nn.Module,
    pairs: TensorDataset | Source,
    mask: torch.Tensor | None,
    epochs: int,
    *,
    checkpoint: Path,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
    seconds_limit: float | None = None,
    whole_image_loss: bool = True,
    score: Callable[[nn.Module], float] | None = None,
    identity: object = None,
) -> list[Row]:
    """Train a newly built network in place, on its own device, and leave it in eval mode.

    Args:
        network: Has `config`, `predict` and `forward` as `CourseworkNet`.
        pairs: (y, x), or (y, x, mask) and then `mask` is None.
        mask: bool (1,1,H,W), True = observed.
        epochs: Passes over the data.
        checkpoint: The state is saved there after every epoch. A second call with the same data,
            settings and identity continues, on a CPU to the same bits; any other starts anew.
        learning_rate, batch_size, seed: Of Adam, of a step, of order and dropout.
        seconds_limit: No epoch begins after so many seconds of training.
        whole_image_loss: MSE of `predict` over all pixels; else of `forward` over the hole.
        score: Called after each epoch, its time not counted; identity: of what it looks at.

    Returns:
        A row per epoch: "seconds" of training so far, "epoch" from 1, "loss", "score".

    Raises:
        BadInput: The checkpoint holds more epochs than asked for.
    """
    source = pairs if callable(pairs) else Shuffled(pairs)
    device = next(network.parameters()).device
    mask = None if mask is None else mask.to(device)
    run = PlainRun(network, whole_image_loss, learning_rate)
    settings = [network.config, source.fingerprint, *run.settings, batch_size, seed]
    settings += [None if mask is None else fingerprint(mask), identity]
    log = run.resume(checkpoint, settings)
    if len(log) > epochs:
        raise BadInput(f"holds {len(log)} epochs", f"at most {epochs}", path=checkpoint)
    limit = float("inf") if seconds_limit is None else seconds_limit
    with tqdm(initial=len(log), total=epochs, desc="training", mininterval=5) as bar:
        while len(log) < epochs and not (log and log[-1]["seconds"] >= limit):
            start = time.perf_counter()
            loss = run.epoch(source, mask, batch_size, numbered_generator(seed, len(log)))
            seconds = time.perf_counter() - start + (log[-1]["seconds"] if log else 0.0)
            value = None if score is None else score(network.eval())
            log.append({"seconds": seconds, "epoch": len(log) + 1, "loss": loss, "score": value})
            run.save(checkpoint, settings, log)
            bar.update()
            bar.set_postfix(loss=f"{loss:.5f}", score=value)
    network.eval()
    return log


class PlainRun:
    """A network with its optimiser: one epoch at a time, saved and loaded together."""

    def __init__(self, network: nn.Module, whole_image_loss: bool, learning_rate: float) -> None:
        self.network, self.whole = network, whole_image_loss
        self.device = next(network.parameters()).device
        dtype = autocast_dtype(self.device)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.parts = {"network": network, "optimizer": self.optimizer, "scaler": self.scaler}
        kind = type(network).__name__
        self.settings = [kind, whole_image_loss, learning_rate, self.device.type, str(dtype)]

    def resume(self, checkpoint: Path, settings: list) -> list[Row]:
        """Load a state of the same settings and return its log, empty if there is none."""
        state = load_state(checkpoint)
        if state is None or state["settings"] != settings:
            return []
        for key, part in self.parts.items():
            part.load_state_dict(state[key])
        return state["log"]

    def save(self, checkpoint: Path, settings: list, log: list[Row]) -> None:
        """Write everything that the next epoch needs."""
        state = {key: part.state_dict() for key, part in self.parts.items()}
        save_state(checkpoint, state | {"settings": settings, "log": log})

    def epoch(
        self,
        source: Source,
        mask: torch.Tensor | None,
        batch_size: int,
        generator: torch.Generator,
    ) -> float:
        """Make one pass over the data and return the mean loss."""
        self.network.train()
        total, count = torch.zeros((), device=self.device), 0
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
            for batch in source(generator, batch_size):
                y, x, *own = (part.to(self.device) for part in batch)
                loss = self._loss(y, x, own[0] if own else mask)
                self.optimizer.zero_grad(set_to_none=True)
                self.scaler.scale(loss).backward()
                self.scaler.step(self.optimizer)
                self.scaler.update()
                total, count = total + loss.detach() * len(x), count + len(x)
        return float(total / count)

    def _loss(self, y: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.whole:
            return ((self.network.predict(y, mask) - x) ** 2).mean()
        hole = (~mask).expand_as(x)
        return ((self.network(y, mask) - x) ** 2 * hole).sum() / hole.sum().clamp(min=1)


@torch.no_grad()
def whole_image_mse(network: nn.Module, pairs: TensorDataset, mask: torch.Tensor) -> float:
    """Return the MSE of `predict` over all pixels of pairs (y, x): the coursework's figure."""
    device = next(network.parameters()).device
    mask, total, count = mask.to(device), 0.0, 0
    for batch in zip(*(part.split(128) for part in pairs.tensors), strict=True):
        y, x = (part.to(device) for part in batch)
        total += float(((network.eval().predict(y, mask) - x) ** 2).sum())
        count += x.numel()
    return total / count
