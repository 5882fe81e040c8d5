"""How near training and filling come to what the processor can do, and where the rest goes.

    python -m benchmarks.limit              (about 4 minutes on two cores)

The limit: the rate of a dense 3×3 convolution by itself, of each level's channels and size, of one
larger, and of all convolutions of our U-Net one after the other. The share: the floating-point
operations of the network's convolutions (counted by torch) per second of a whole training step
(augmentation to averaging of weights) or of a whole filling, over that rate. All are taken in
turns, each once more right before it is timed. The profile says what the time of a step and of a
filling is spent on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from benchmarks import check_profile, run, timing
from benchmarks.profiling import shares
from benchmarks.timing import machine, spread, table
from nogaps import Assessment, standin
from nogaps.filling.files import CPU_BATCH
from nogaps.imputers.fused import fuse, is_available
from nogaps.runtime.checkpoint import ema_of
from nogaps.runtime.device import autocast, keep_freed_memory
from nogaps.runtime.files import save_json

RESULTS = timing.RESULTS / "limit.json"
LEVELS = ((32, 64), (64, 32), (128, 16), (256, 8))  # channels and size, as in our U-Net
LARGER = (128, 64)
MODES = ("forward", "forward and backward")
TRAIN_BATCH = 32  # the notebook's
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dense(
    channels: int, size: int, batch: int, kind: str, backward: bool
) -> tuple[Callable, float]:
    """A 3×3 convolution of as many channels as it has inputs, and its operations."""
    dtype = DTYPES[kind]
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(dtype)
    conv = conv.to(memory_format=torch.channels_last).requires_grad_(backward)
    h = torch.rand(batch, channels, size, size, generator=timing.generator()).to(dtype)
    h = h.contiguous(memory_format=torch.channels_last).requires_grad_(backward)
    flops = 2 * 9 * channels**2 * size**2 * batch * (3 if backward else 1)
    return partial(_through, [(conv, h)], backward), flops


def _through(pairs: list[tuple[nn.Module, torch.Tensor]], backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        for conv, h in pairs:
            out = conv(h)
            if backward:
                out.backward(torch.ones_like(out))


def convolutions(imputer: Assessment.Imputer, batch: int, backward: bool) -> Callable[[], None]:
    """All convolutions of an imputer's U-Net, one after the other on inputs of their own."""
    pairs: list[tuple[nn.Module, torch.Tensor]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        copy = inputs[0].detach().clone(memory_format=torch.preserve_format)
        pairs.append((module, copy.requires_grad_(backward and copy.shape[1] > 2)))

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    found = [m for m in imputer.unet.modules() if isinstance(m, kinds)]
    hooks = [module.register_forward_hook(note) for module in found]
    dtype = Assessment.autocast_dtype(timing.CPU)
    with torch.no_grad(), autocast(timing.CPU, dtype):
        h = torch.rand(batch, 2, 64, 64, generator=timing.generator())
        imputer.unet(h.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()

    def once() -> None:
        with autocast(timing.CPU, Assessment.autocast_dtype(timing.CPU)):
            _through(pairs, backward)

    return once


def training_step(imputer: Assessment.Imputer, x: torch.Tensor, mask: torch.Tensor) -> Callable:
    """One step of the notebook's training, from clean images to averaged weights."""
    ema, generator = ema_of(imputer), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(imputer.parameters(), weight_decay=1e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def batches() -> Iterator[tuple[float, torch.Tensor]]:
        yield 1e-4, Assessment.augment(x, generator)

    return lambda: Assessment.train_epoch(imputer, ema, optimizer, scaler, batches(), mask)


def _fused(h: list[int], weight: list[int], *_: object, out_shape: list[int], **__: object) -> int:
    return conv_flop_count(h, weight, out_shape)


def count(work: Callable[[], object]) -> float:
    """Operations of all convolutions in `work`, also of their gradients."""
    fused = {torch.ops.mkldnn._convolution_pointwise: _fused} if is_available(torch.float32) else {}
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        work()
    found = counter.get_flop_counts()["Global"]
    return float(sum(flops for op, flops in found.items() if "convolution" in str(op)))


def jobs(profile: str) -> tuple[Callable, Callable, int, int]:
    """A training step and a filling of new networks, and their batch sizes."""
    small = profile == "smoke"
    train_batch, fill_batch = (4, 4) if small else (TRAIN_BATCH, CPU_BATCH)
    clean = torch.from_numpy(standin.clean_images())
    x = clean.repeat(2, 1, 1, 1)
    mask = torch.from_numpy(standin.course_mask())[None, None]
    trained, filling = (
        Assessment.new_imputer(Assessment.PROFILES[profile], clean, 0) for _ in "12"
    )
    y = Assessment.corrupt(x[:fill_batch], mask)
    step = training_step(trained, x[:train_batch], mask)
    fill = partial(Assessment.fill, fuse(filling).eval(), y, mask)
    return step, fill, train_batch, fill_batch


def measure(kind: str, threads: int, profile: str, repetitions: int) -> dict:
    """Rates of one precision on so many threads, in 10^9 operations per second, and shares."""
    step, fill, train_batch, fill_batch = jobs(profile)
    levels = LEVELS[-1:] if profile == "smoke" else (*LEVELS, LARGER)
    work: dict[str, Callable] = {"training step": step, "filling": fill}
    with timing.precision(kind), timing.threads(threads):
        flops = {name: count(one) for name, one in work.items()}
        for backward, mode in enumerate(MODES):
            for channels, size in levels:
                name = f"{channels} channels, {size}×{size}, {mode}"
                work[name], flops[name] = dense(channels, size, train_batch, kind, bool(backward))
            imputer = Assessment.new_imputer(Assessment.PROFILES[profile], standin_heads(), 0)
            name = f"convolutions of our U-Net, {mode}"
            work[name] = convolutions(imputer, train_batch, bool(backward))
            flops[name] = count(work[name])
        seconds = timing.interleaved(work, repetitions, warm=True)
    rates = {k: spread([flops[k] / 1e9 / s for s in times]) for k, times in seconds.items()}
    found = {"precision": kind, "threads": threads, "gflops": rates}
    found["mflop_per_image"] = {
        "filling": flops["filling"] / fill_batch / 1e6,
        "training": flops["training step"] / train_batch / 1e6,
    }
    found["images_per_second"] = {
        "filling": timing.rate(seconds["filling"], fill_batch),
        "training": timing.rate(seconds["training step"], train_batch),
    }
    return found | {"share": _shares(rates)}


def _shares(rates: dict[str, timing.Spread]) -> dict[str, dict[str, float]]:
    """What part of the limits a filling and a training step reach; the limit by each definition."""
    found = {}
    for name, mode in (("filling", MODES[0]), ("training step", MODES[1])):
        ours = rates[f"convolutions of our U-Net, {mode}"]["median"]
        dense = {k: v["median"] for k, v in rates.items() if "×" in k and k.endswith(f", {mode}")}
        got = rates[name]["median"]
        same = [
            v for k, v in dense.items() if not k.startswith(f"{LARGER[0]} channels, {LARGER[1]}")
        ]
        found[name] = {
            "of our convolutions alone": got / ours,
            "of the mean dense level": got / float(np.mean(same)),
            "of the fastest dense": got / max(dense.values()),
        }
    return found


def standin_heads() -> torch.Tensor:
    """The stand-in's clean heads, (100,1,64,64)."""
    return torch.from_numpy(standin.clean_images())


def as_markdown(found: dict) -> str:
    """Rates, shares and profile, one column per precision and number of threads."""
    runs = found["runs"]
    head = [f"{one['precision']}, {one['threads']} thread(s)" for one in runs]
    names = sorted(runs[0]["gflops"], key=lambda name: (name.endswith(MODES[1]), "×" in name))
    rows = [[name, *[timing.said(one["gflops"][name]) for one in runs]] for name in names]
    rates = table(["10^9 operations per second", *head], rows)
    rows = [
        [f"{work}, share {limit}", *[f"{one['share'][work][limit]:.0%}" for one in runs]]
        for work in runs[0]["share"]
        for limit in runs[0]["share"][work]
    ]
    for key in ("filling", "training"):
        cells = [timing.said(one["images_per_second"][key]) for one in runs]
        rows.append([f"{key}: images/s", *cells])
    reached = table(["reached", *head], rows)
    parts = sorted({part for one in found["profile"].values() for part in one})
    parts.sort(key=lambda part: -found["profile"]["training step"].get(part, 0))
    rows = [[p, *[f"{one.get(p, 0):.1%}" for one in found["profile"].values()]] for p in parts]
    spent = table(["where the time goes", *found["profile"]], rows)
    flops = runs[0]["mflop_per_image"]
    text = f"Per image {flops['filling']:.0f}·10^6 operations to fill, "
    text += f"{flops['training']:.0f}·10^6 to train."
    return "\n\n".join([rates, reached, text, spent])


def main(
    profile: Annotated[str, typer.Option(help="full, or smoke: small networks.")] = "full",
    repetitions: Annotated[int, typer.Option(min=1, help="Turns.")] = 8,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print the tables and write them as JSON."""
    check_profile(profile)
    keep_freed_memory()  # as training does
    small, where = profile == "smoke", machine()
    turns, runs = (1 if small else repetitions), []
    kinds = timing.native_precisions()[: 1 if small else None]
    for kind in kinds:
        runs += [measure(kind, n, profile, turns) for n in timing.thread_counts(small)]
    step, fill, *_ = jobs(profile)
    with timing.threads(1):
        profiled = {"training step": shares(step, 2 * turns), "filling": shares(fill, turns)}
    save_json(out, {"machine": where, "runs": runs, "profile": profiled})
    print(as_markdown({"runs": runs, "profile": profiled}))


if __name__ == "__main__":
    run(main)
