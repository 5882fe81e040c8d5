"""The course's own model: its `generate`, behind the arguments of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nogaps.files import BadInput, load_json, load_npy, save_json, save_npy


def course_generate() -> Callable[..., list[torch.Tensor]]:
    """`generate` of the package that the course hands out. Raises BadInput without it."""
    try:
        from ese_invldm import generate
    except ImportError as error:
        raise BadInput(
            "prior 'course': the package ese_invldm is not installed; install the course's "
            "package, or use the shipped prior"
        ) from error
    return generate


def generate(
    num_samples: int = 2048,
    num_inference_steps: int = 25,
    batch_size: int = 64,
    scheduler: str = "ddim",
    temperature: float = 1.0,
    seed: int = 42,
    *,
    out: str | Path | None = None,
) -> list[torch.Tensor]:
    """Sample the course's model: a list of batches (B,1,64,64) float32 in [0,1].

    With a folder `out`, `out/images.npy` and its manifest are written, or read back if they were
    made with the same arguments. Raises BadInput if the package is missing, or if what it returns
    has another shape, NaN, or a range far from [0,1].
    """
    names = ("num_samples", "num_inference_steps", "batch_size", "scheduler", "temperature", "seed")
    values = (num_samples, num_inference_steps, batch_size, scheduler, temperature, seed)
    manifest = {"prior": "course", **dict(zip(names, values, strict=True))}
    if out is not None and (Path(out) / "manifest.json").exists():
        if load_json(Path(out) / "manifest.json") != manifest:
            raise BadInput(f"{out}: holds samples made with other settings; use another folder")
        return list(torch.from_numpy(load_npy(Path(out) / "images.npy")).split(batch_size))
    batches = course_generate()(*values[:-1], seed=seed)
    x = check_batches(batches, num_samples)
    if out is not None:
        save_npy(Path(out) / "images.npy", x.numpy())
        save_json(Path(out) / "manifest.json", manifest)
    return list(x.split(batch_size))


def check_batches(batches: list[torch.Tensor], num_samples: int) -> torch.Tensor:
    """Join the course's batches to (N,1,64,64) float32 in [0,1] on the CPU, or say what is wrong.

    Values up to 0.05 outside [0,1], as decoders produce them, are clipped.
    """
    x = torch.cat([batch.detach().float().cpu() for batch in batches])
    if x.shape != (num_samples, 1, 64, 64):
        raise BadInput(
            f"ese_invldm: returned {tuple(x.shape)}, expected ({num_samples}, 1, 64, 64)"
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= -0.05 and high <= 1.05):  # also false for NaN
        raise BadInput(f"ese_invldm: returned values in [{low:.3g}, {high:.3g}], expected [0, 1]")
    return x.clamp(0, 1)
