"""The training loop of the prior's two stages: Accelerate, EMA, log, exact resume."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from nogaps.checkpoint import load_state, save_state
from nogaps.device import autocast_dtype, pick_device
from nogaps.ema import ema_of
from nogaps.files import BadInput, atomic
from nogaps.seeds import numbered_generator

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


def fit(
    model: torch.nn.Module,
    draw: Callable[[int, torch.Generator], torch.Tensor],
    loss: Loss,
    validate: Callable[[torch.nn.Module], dict[str, float]],
    run_dir: str | Path,
    schedule: Schedule,
    config: dict,
) -> torch.nn.Module:
    """Train `model` and return its averaged copy.

    draw(n, generator) gives a batch; loss(model, batch, generator) gives named fp32 scalars, of
    which "loss" is minimised; validate(averaged model) gives named numbers. Losses go to
    `run_dir/log.csv`, the state to `run_dir/state.safetensors`; a second call with the same
    `config` continues from there, on the CPU to the same bits. Raises BadInput if `run_dir` holds
    the state of another configuration.
    """
    run_dir = Path(run_dir)
    accelerator = make_accelerator()
    model = model.to(accelerator.device)
    ema = ema_of(model, schedule.ema_decay)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    parts = {"model": model, "ema": ema, "optimizer": optimizer}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}  # fp16 only
    start, log = _resume(run_dir, parts, config)
    trained, optimizer = accelerator.prepare(model, optimizer)
    started = time.monotonic() - (log[-1]["seconds"] if log else 0.0)
    for step in _progress(start, schedule.steps, accelerator):
        losses = _train_step(step, trained, optimizer, draw, loss, schedule, accelerator)
        ema.update_parameters(model)
        done = step + 1 == schedule.steps
        if done or (step + 1) % schedule.validate_every == 0:
            row = {"step": step + 1, "seconds": round(time.monotonic() - started, 1)}
            row |= {name: float(value.detach()) for name, value in losses.items()}
            log.append(row | {f"val_{k}": v for k, v in validate(ema.module).items()})
            if accelerator.is_main_process:
                _write_log(run_dir / "log.csv", log)
        if (done or (step + 1) % schedule.checkpoint_every == 0) and accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"config": config, "step": step + 1, "log": log}
            save_state(run_dir / "state.safetensors", state)
    return ema.module.eval()


def _train_step(
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    draw: Callable[[int, torch.Generator], torch.Tensor],
    loss: Loss,
    schedule: Schedule,
    accelerator: Accelerator,
) -> dict[str, torch.Tensor]:
    generator = step_generator(schedule.seed, step, accelerator.process_index)
    batch = draw(schedule.batch_size, generator).to(accelerator.device)
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    model.train()
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices), accelerator.autocast():
        # dropout takes no generator: seed the global one for this step and put it back
        torch.manual_seed(generator.initial_seed())
        parts = loss(model, batch, generator)
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(parts["loss"])
    accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return parts


def _resume(run_dir: Path, parts: dict, config: dict) -> tuple[int, list[dict]]:
    state = load_state(run_dir / "state.safetensors")
    if state is None:
        return 0, []
    if state["config"] != config:
        raise BadInput(f"{run_dir}: holds a run with other settings; choose another --out")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"], state["log"]


def _progress(start: int, steps: int, accelerator: Accelerator) -> Iterator[int]:
    quiet = not accelerator.is_main_process
    return tqdm(range(start, steps), initial=start, total=steps, disable=quiet, mininterval=2)


def _write_log(path: Path, rows: list[dict]) -> None:
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
