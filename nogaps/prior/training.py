"""The training loop of the prior's stages: Accelerate, averaged weights, log, exact resume."""

from __future__ import annotations

import csv
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from nogaps.figures import save_curves
from nogaps.runtime.checkpoint import ema_of, load_state, save_state
from nogaps.runtime.device import autocast_dtype, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic
from nogaps.runtime.processes import TIMEOUT, folder_lock
from nogaps.runtime.progress import progress
from nogaps.runtime.seeds import numbered_generator

Draw = Callable[[int, torch.Generator], torch.Tensor]  # a batch of so many images or latents
Loss = Callable[[torch.nn.Module, torch.Tensor, torch.Generator], dict[str, torch.Tensor]]
Validate = Callable[[torch.nn.Module], dict[str, float]]
SAVE, STATE = 240.0, "state.safetensors"  # seconds between two states; their file


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int = 2000
    batch_size: int = 32  # of each process
    learning_rate: float = 1e-3
    warmup: float = 0.03  # share of the steps with a rising learning rate
    weight_decay: float = 1e-2
    ema_decay: float = 0.999
    validate_every: int = 200
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate at a step: linear warm-up, then a cosine to zero."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        share = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def make_accelerator() -> Accelerator:
    """Return Accelerate with the precision in which this device is fast."""
    device = pick_device()
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(autocast_dtype(device), "no")
    patient = [InitProcessGroupKwargs(timeout=TIMEOUT)]
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision, kwargs_handlers=patient)


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """Return the generator of one training step, which depends on nothing else."""
    return numbered_generator(seed * 1024 + process, step)


class Objective(torch.nn.Module):
    """A model with its loss in one forward call, so that several processes share gradients."""

    def __init__(self, model: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return named fp32 scalars of a batch."""
        return self.loss(self.model, batch, generator)


class Run:
    """The state of a training, which lies in `folder/state.safetensors` as well."""

    def __init__(self, folder: Path, settings: dict[str, str], parts: dict) -> None:
        self.folder = folder
        self.settings = settings  # that two calls must have in common for one to continue the other
        self.parts = parts  # objects with `state_dict` and `load_state_dict`, by name
        self.step = 0
        self.log: list[dict] = []  # one row per validation
        self.totals: Counter[str] = Counter()  # of the losses since the last row

    def load(self) -> None:
        """Continue a saved run. Raises BadInput if it has other settings than this one."""
        state = load_state(self.folder / STATE)
        if state is None:
            return
        saved = state["config"]
        # a run may be continued with more or fewer steps in all
        keys = (saved.keys() | self.settings.keys()) - {"steps"}
        different = sorted(key for key in keys if saved.get(key) != self.settings.get(key))
        if different:
            problem = f"holds a run with other settings ({', '.join(different)})"
            raise BadInput(problem, "another --out", path=self.folder)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.totals.update(state["totals"])
        self.step, self.log = state["step"], state["log"]

    def save(self) -> None:
        """Write the state."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"config": self.settings, "step": self.step}
        state |= {"log": self.log, "totals": dict(self.totals)}
        save_state(self.folder / STATE, state)

    def add_row(self, seconds: float, scores: dict[str, float]) -> None:
        """Write log.csv and log.png with one more row: mean losses since the last, and scores."""
        n = self.totals.pop("n")
        losses = {name: total / n for name, total in self.totals.items()}
        scores = {f"val_{name}": value for name, value in scores.items()}
        self.log.append({"step": self.step, "seconds": round(seconds, 1), **losses, **scores})
        self.totals.clear()
        with atomic(self.folder / "log.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, [*self.log[-1]])
            writer.writeheader()
            writer.writerows(self.log)
        curves = {name: [row[name] for row in self.log] for name in (*losses, *scores)}
        steps = [row["step"] for row in self.log]
        save_curves(self.folder / "log.png", curves, steps, self.folder.name)


def fit(
    model: torch.nn.Module,
    draw: Draw,
    loss: Loss,
    validate: Validate,
    run_dir: str | Path,
    schedule: Schedule,
    config: dict,
) -> torch.nn.Module:
    """Train a model; a second call with the same schedule and config continues to the same bits.

    The learning rate follows the new schedule where that has another number of steps. Under
    `accelerate launch` every process draws batches of its own; process 0 validates and writes.

    Args:
        model: Trained in place.
        draw, loss, validate: Make a batch; its losses, of which "loss" is minimised; and scores of
            the averaged model, in evaluation mode.
        run_dir: Folder for log.csv (mean losses since the row before), log.png and the state.
        schedule, config: How long and how fast; further settings that tell this run from others.

    Returns:
        The averaged model.

    Raises:
        BadInput: `run_dir` holds a run with other settings, or another run works there.
    """
    accelerator, steps = make_accelerator(), schedule.steps
    main, model = accelerator.is_main_process, model.to(accelerator.device)
    ema = ema_of(model, schedule.ema_decay)
    options = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    parts = {"model": model, "ema": ema, "optimizer": optimizer}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}  # fp16 only
    # private keys of diffusers' configs list their entries in no fixed order
    settings = {k: repr(v) for k, v in {**vars(schedule), **config}.items() if k[0] != "_"}
    run = Run(Path(run_dir), settings, parts)
    with folder_lock(run_dir) if main else nullcontext():
        run.load()
        objective, optimizer = accelerator.prepare(Objective(model, loss), optimizer)
        saved = time.monotonic()
        started = saved - (run.log[-1]["seconds"] if run.log else 0.0)
        todo = range(run.step, steps)
        for step in progress(todo, "training", initial=run.step, total=steps, disable=not main):
            losses = _train_step(step, objective, optimizer, draw, schedule, accelerator)
            ema.update_parameters(model)
            run.totals.update({name: float(value.detach()) for name, value in losses.items()})
            run.totals["n"] += 1
            run.step = step + 1
            last = run.step == steps
            if main and (last or run.step % schedule.validate_every == 0):
                run.add_row(time.monotonic() - started, validate(ema.module.eval()))
            if main and (last or time.monotonic() - saved > SAVE):
                run.save()
                saved = time.monotonic()
        accelerator.wait_for_everyone()
    return ema.module.eval()


def _train_step(
    step: int,
    objective: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    draw: Draw,
    schedule: Schedule,
    accelerator: Accelerator,
) -> dict[str, torch.Tensor]:
    generator = step_generator(schedule.seed, step, accelerator.process_index)
    batch = draw(schedule.batch_size, generator).to(accelerator.device)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    objective.train()
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices), accelerator.autocast():
        # dropout takes no generator: seed the global one for this step and put it back
        torch.manual_seed(generator.initial_seed())
        losses = objective(batch, generator)
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(losses["loss"])
    accelerator.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    return losses
