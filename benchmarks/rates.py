"""Seconds of an epoch of the notebook's training and of the coursework's recipe, in turns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch.utils.data import TensorDataset

from benchmarks import timing
from benchmarks.published import build
from benchmarks.recipes import COURSEWORK, Batch, PlainRun, Shuffled
from nogaps import Assessment
from nogaps.runtime.checkpoint import ema_of
from nogaps.runtime.device import autocast_dtype, keep_freed_memory
from nogaps.runtime.seeds import numbered_generator

BATCH_SIZE = 32  # the notebook's


class FirstBatches:
    """The first batches of an epoch of another source."""

    def __init__(self, source: Shuffled, steps: int) -> None:
        self.source, self.steps, self.fingerprint = source, steps, source.fingerprint

    def __call__(self, generator: torch.Generator, batch_size: int) -> Iterable[Batch]:
        """So many whole batches."""
        return islice(iter(self.source(generator, batch_size)), self.steps)


def epoch_seconds(
    pairs: TensorDataset,
    mask: torch.Tensor,
    profile: str = "full",
    size: dict | None = None,
    steps: int = 4,
    turns: int = 6,
) -> dict:
    """Seconds of a whole epoch on `pairs`, "ours" and "recipe", from some steps of each in turns.

    profile: of the notebook's network; size: of the coursework's, None is as published. The steps
    are those of the two trainings themselves, augmentation and averaging of weights included.
    """
    keep_freed_memory()
    steps = max(1, min(steps, len(pairs) // BATCH_SIZE))
    device, network = mask.device, build("coursework", size).to(mask.device)
    run = PlainRun(network, COURSEWORK["whole_image_loss"], COURSEWORK["learning_rate"])
    few, small = FirstBatches(Shuffled(pairs), steps), COURSEWORK["batch_size"]
    imputer = Assessment.new_imputer(Assessment.PROFILES[profile], pairs.tensors[1], 0).to(device)
    ema, optimizer = ema_of(imputer), torch.optim.AdamW(imputer.parameters(), weight_decay=1e-3)
    half = autocast_dtype(device) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=half)

    def ours() -> None:
        batches = Assessment.training_batches(pairs, 0, 1, BATCH_SIZE, 0, device)
        Assessment.train_epoch(imputer, ema, optimizer, scaler, islice(batches, steps), mask)

    def recipe() -> None:
        run.epoch(few, mask, small, numbered_generator(0, 0))

    found = timing.interleaved({"ours": ours, "recipe": recipe}, turns)
    epochs = {"ours": len(pairs) / BATCH_SIZE, "recipe": len(pairs) / small}
    spreads = {
        name: timing.spread([seconds / steps * max(1, int(epochs[name])) for seconds in times])
        for name, times in found.items()
    }
    rates = {name: one["median"] for name, one in spreads.items()}
    about = {"threads": torch.get_num_threads(), "precision": timing.precision_name()}
    return {**rates, "spreads": spreads, "steps": steps, **about}
