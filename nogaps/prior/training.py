"""The training loop of the prior's two stages: Accelerate, EMA, log, exact resume."""

from __future__ import annotations

import csv
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from nogaps.figures import save_curves
from nogaps.runtime import processes
from nogaps.runtime.checkpoint import ema_of, load_state, save_state
from nogaps.runtime.device import autocast_dtype, keep_freed_memory, pick_device
from nogaps.runtime.files import BadInput, atomic
from nogaps.runtime.locks import folder_lock
from nogaps.runtime.progress import progress
from nogaps.runtime.seeds import numbered_generator

Draw = Callable[[int, torch.Generator], torch.Tensor]
Loss = Callable[[torch.nn.Module, torch.Tensor, torch.Generator], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.03  # share of the steps with a rising learning rate
    weight_decay: float = 1e-2
    ema_decay: float = 0.999
    validate_every: int = 200
    checkpoint_every: int = 200
    patience: int = 0  # validations without progress before training stops; 0: never
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, then a cosine to zero."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        share = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def make_accelerator() -> Accelerator:
    """Accelerate with the precision that this device computes fast in."""
    device = pick_device()
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(autocast_dtype(device), "no")
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu")


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """Generator of one training step: randomness depends on nothing else, so resume is exact."""
    return numbered_generator(seed * 1024 + process, step)


class Objective(torch.nn.Module):
    """A model with its loss: one forward call, so that several processes share gradients."""

    def __init__(self, model: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Named fp32 scalars of a batch."""
        return self.loss(self.model, batch, generator)


class Best:
    """The averaged weights with the lowest validation loss so far, for early stopping."""

    def __init__(self, patience: int) -> None:
        self.patience, self.loss, self.misses = patience, math.inf, 0
        self.weights: dict[str, torch.Tensor] = {}

    def update(self, loss: float, model: torch.nn.Module) -> bool:
        """Note one validation; whether `patience` of them in a row brought nothing."""
        if not self.patience:
            return False
        if loss < self.loss:
            self.loss, self.misses = loss, 0
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self.misses += 1
        return self.misses >= self.patience

    def state_dict(self) -> dict:
        """What a resumed run needs."""
        loss = None if math.isinf(self.loss) else self.loss  # JSON knows no infinity
        return {"loss": loss, "misses": self.misses, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`."""
        self.loss = math.inf if state["loss"] is None else state["loss"]
        self.misses, self.weights = state["misses"], state["weights"]


def fit(
    model: torch.nn.Module,
    draw: Draw,
    loss: Loss,
    validate: Callable[[torch.nn.Module], dict[str, float]],
    run_dir: str | Path,
    schedule: Schedule,
    config: dict,
) -> torch.nn.Module:
    """Train `model` and return its averaged copy, with early stopping the best one.

    draw(n, generator) gives a batch; loss(model, batch, generator) gives named fp32 scalars, of
    which "loss" is minimised; validate(averaged model) gives named numbers, the first of which
    early stopping watches. Losses go to `run_dir/log.csv` (means since the line before) and
    `run_dir/log.png`, the state to `run_dir/state.safetensors`; a second call with the same
    schedule and `config` continues from there, on the CPU to the same bits. Under `accelerate
    launch` every process draws batches of its own. A run may be continued with more or fewer steps
    in all: the learning rate then follows the new schedule from there on. Raises BadInput if
    `run_dir` holds the state of another configuration, or if another process trains there.
    """
    keep_freed_memory()
    run_dir = Path(run_dir)
    # private keys of diffusers' configs list their entries in no fixed order
    settings = {**vars(schedule), **config}.items()
    config = {key: repr(value) for key, value in settings if key[0] != "_"}
    accelerator = make_accelerator()
    model = model.to(accelerator.device)
    with ExitStack() as stack:  # one lock for all processes of a run: the first one writes
        processes.by_leader(lambda: stack.enter_context(folder_lock(run_dir)))
        return _fit(model, draw, loss, validate, run_dir, schedule, config, accelerator)


def _fit(
    model: torch.nn.Module,
    draw: Draw,
    loss: Loss,
    validate: Callable[[torch.nn.Module], dict[str, float]],
    run_dir: Path,
    schedule: Schedule,
    config: dict[str, str],
    accelerator: Accelerator,
) -> torch.nn.Module:
    ema, best = ema_of(model, schedule.ema_decay), Best(schedule.patience)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    totals: Counter[str] = Counter()  # of the losses since the last line of the log
    parts = {"model": model, "ema": ema, "optimizer": optimizer, "best": best}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}  # fp16 only
    start, log, stopped = processes.after_leader(lambda: _resume(run_dir, parts, totals, config))
    objective, optimizer = accelerator.prepare(Objective(model, loss), optimizer)
    started = time.monotonic() - (log[-1]["seconds"] if log else 0.0)
    for step in _progress(start, schedule.steps if not stopped else start, accelerator):
        losses = _train_step(step, objective, optimizer, draw, schedule, accelerator)
        ema.update_parameters(model)
        totals.update({name: float(value.detach()) for name, value in losses.items()} | {"n": 1})
        last = step + 1 == schedule.steps
        if last or (step + 1) % schedule.validate_every == 0:
            row = {"step": step + 1, "seconds": round(time.monotonic() - started, 1)}
            row |= {name: totals.pop(name) / totals["n"] for name in losses}
            totals.clear()
            found = _agreed(validate(ema.module), accelerator)
            stopped = best.update(next(iter(found.values())), ema.module)
            log.append(row | {f"val_{name}": value for name, value in found.items()})
            if accelerator.is_main_process:
                _write_log(run_dir, log)
        due = last or stopped or (step + 1) % schedule.checkpoint_every == 0
        if due and accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"config": config, "step": step + 1, "log": log}
            state |= {"totals": dict(totals), "stopped": stopped}
            save_state(run_dir / "state.safetensors", state)
        if stopped:
            break
    if best.weights:
        ema.module.load_state_dict(best.weights)
    processes.meet()
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
        parts = objective(batch, generator)
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(parts["loss"])
    accelerator.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    return parts


def _agreed(found: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """The first process's numbers: devices may differ in a last digit, and one would stop early."""
    if accelerator.num_processes == 1:
        return found
    values = torch.tensor([*found.values()], dtype=torch.float64, device=accelerator.device)
    return dict(zip(found, broadcast(values).tolist(), strict=True))


def _resume(
    run_dir: Path, parts: dict, totals: Counter[str], config: dict
) -> tuple[int, list[dict], bool]:
    """Load what a former call left; the step, the log, and whether it had stopped early."""
    state = load_state(run_dir / "state.safetensors")
    if state is None:
        return 0, [], False
    keys = (state["config"].keys() | config.keys()) - {"steps"}
    different = sorted(key for key in keys if state["config"].get(key) != config.get(key))
    if different:
        raise BadInput(
            f"{run_dir}: holds a run with other settings ({', '.join(different)}); choose another "
            "--out"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    totals.update(state["totals"])
    return state["step"], state["log"], state["stopped"]


def _progress(start: int, steps: int, accelerator: Accelerator) -> Iterator[int]:
    quiet = not accelerator.is_main_process
    work = range(start, steps)
    return iter(progress(work, "training", initial=start, total=steps, disable=quiet))


def _write_log(run_dir: Path, rows: list[dict]) -> None:
    """The losses as a table and as a figure."""
    with atomic(run_dir / "log.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    names = [name for name in rows[-1] if name not in ("step", "seconds")]
    curves = {name: [row[name] for row in rows] for name in names}
    save_curves(run_dir / "log.png", curves, [row["step"] for row in rows], run_dir.name)
