"""What changes of the notebook's imputer and of its training are worth on real heads.

    python -m benchmarks.ablations runs/samples/images.npy runs/frames/heads.npz ...

One change at a time: every variant is trained like the notebook's, on the same images for as
many epochs, and scored on the `val` split of each frame file under the course's mask, beside
the difference in hole PSNR to the default, whose 95 % interval is a bootstrap over groups. What is
finished is read from the working folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import typer
from torch import nn
from torch.nn import functional as F

from benchmarks import harness
from benchmarks.harness import course_mask
from nogaps import Assessment, tables
from nogaps.Assessment import Imputer, Profile, corrupt, fill, make_datasets
from nogaps.augmentation import random_affine
from nogaps.metrics import bootstrap, hole_scores
from nogaps.prior.frames import load_frames, to_size
from nogaps.runtime.checkpoint import fingerprint, load_tensors, save_tensors
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, save_json
from nogaps.tables import with_interval

RESULTS = harness.RESULTS / "ablations.json"
TRAIN_EPOCH, NEW_IMPUTER = Assessment.train_epoch, Assessment.new_imputer
GRID_SAMPLE = F.grid_sample
Val = dict[str, tuple[torch.Tensor, list[str]]]


# the variants --------------------------------------------------------------------------------


class Residual(nn.Sequential):
    """The second of two blocks adds to what the first gives (arXiv 1512.03385)."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map (N,C_in,H,W) to (N,C_out,H,W)."""
        h = self[0](h)
        return h + self[1](h)


class ResidualImputer(Imputer):
    """Every pair of blocks of the U-Net with a residual connection."""

    def __init__(self, covariance: torch.Tensor, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__(covariance, widths, bottleneck)
        for block in (*self.unet.encoder, *self.unet.decoder):
            block.convs = Residual(*block.convs)


def half_warped(
    x: torch.Tensor, generator: torch.Generator, others: torch.Tensor | None = None, **how: object
) -> torch.Tensor:
    """Warp a random half of the images, which softens them; the others are x unless given."""
    warped = random_affine(x, generator, **how)
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, warped, x if others is None else others)


def half_moved(x: torch.Tensor, generator: torch.Generator, **how: object) -> torch.Tensor:
    """Warp a random half; the others move by whole pixels, which softens nothing."""
    moves = torch.randint(-6, 7, (len(x), 2), generator=generator).tolist()
    moved = torch.stack([_move(image, *move) for image, move in zip(x, moves, strict=True)])
    return half_warped(x, generator, moved, **how)


def _move(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move x (C,H,W) by whole pixels; 0 comes in."""
    padded = F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def warped_from_twice(x: torch.Tensor, generator: torch.Generator, **how: object) -> torch.Tensor:
    """Warp from an image of twice the size, made without loss (sinc): softens less."""

    def from_twice(x: torch.Tensor, grid: torch.Tensor, **options: object) -> torch.Tensor:
        return GRID_SAMPLE(twice(x), grid, **options)

    with mock.patch.object(F, "grid_sample", from_twice):
        return random_affine(x, generator, **how)


def twice(x: torch.Tensor, margin: int = 8) -> torch.Tensor:
    """Map (N,C,H,W) to (N,C,2H,2W) by zeros in the spectrum; pixel centres as torch puts them."""
    x = F.pad(x, (margin,) * 4, mode="reflect")
    height, width = x.shape[-2:]
    down, right = torch.fft.fftfreq(height, device=x.device), torch.fft.rfftfreq(width)
    phase = torch.exp(-0.5j * torch.pi * (down[:, None] + right.to(x.device)))
    spectrum = torch.fft.fftshift(torch.fft.rfft2(x) * phase, dim=-2)
    spectrum = F.pad(spectrum, (0, width // 2, height // 2, height // 2))
    spectrum = torch.fft.ifftshift(spectrum, dim=-2)
    up = 4 * torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))
    return up[..., 2 * margin : -2 * margin, 2 * margin : -2 * margin]


def equal_contrast(imputer: Imputer, ema: nn.Module, *parts: object) -> float:
    """Train the notebook's epoch with every image scaled to one deviation, so all count alike."""
    *others, batches, mask = parts
    scaled = ((rate, 0.22 * x / x.std((1, 2, 3), keepdim=True)) for rate, x in batches)
    return TRAIN_EPOCH(imputer, ema, *others, scaled, mask)


def wide(profile: Profile, *parts: object) -> Imputer:
    """Build the notebook's network 1.5 times as wide."""
    widths, bottleneck = (3 * w // 2 for w in profile.widths), 3 * profile.bottleneck // 2
    return NEW_IMPUTER(replace(profile, widths=tuple(widths), bottleneck=bottleneck), *parts)


VARIANTS: dict[str, dict[str, Callable]] = {  # what takes the place of the notebook's
    "default": {"train_epoch": TRAIN_EPOCH},
    "AdamW at 2e-3 in place of Muon": {
        "Muon": torch.optim.AdamW,
        "learning_rate": partial(Assessment.learning_rate, peak=2e-3),
    },
    "batches of 32": {"Options": partial(Assessment.Options, batch_size=32)},
    "half of the images warped": {"random_affine": half_warped},
    "half moved instead of warped": {"random_affine": half_moved},
    "warped from twice the size": {"random_affine": warped_from_twice},
    "every image at one contrast": {"train_epoch": equal_contrast},
    "residual blocks": {"Imputer": ResidualImputer},
    "1.5 times as wide": {"new_imputer": wide},
}


# the runs ------------------------------------------------------------------------------------


def run_variant(
    name: str, x: torch.Tensor, val: Val, profile: Profile, seed: int, folder: Path
) -> tuple[dict[str, torch.Tensor], float]:
    """Train a variant on x (N,1,64,64); returns filled val images by set, and its seconds."""
    mask, key = course_mask(), fingerprint(x, *(images for images, _ in val.values()))
    size = f"{profile.widths[0]}x{len(profile.widths)}"
    stem = f"{name.replace(' ', '-').replace('.', '_')}-{size}-{profile.epochs}-{seed}-{key}"
    done, checkpoint = folder / f"{stem}.safetensors", folder / f"{stem}.training"
    if not done.exists():
        sets, start = make_datasets(x, mask, seed), time.perf_counter()
        on = mask.to(pick_device())
        with mock.patch.multiple(Assessment, **VARIANTS[name]):
            imputer = Assessment.new_imputer(profile, sets[0].tensors[1], seed)
            options = Assessment.Options(profile.epochs, seed)
            trained, _ = Assessment.train(imputer, *sets, on, checkpoint, options)
            seconds = time.perf_counter() - start
            x_hat = {k: fill(trained, corrupt(v, mask), on) for k, (v, _) in val.items()}
        save_tensors(done, x_hat, {"seconds": seconds})
        for state in (checkpoint, checkpoint.with_suffix(".previous")):
            state.unlink(missing_ok=True)
    tensors, meta = load_tensors(done)
    return tensors, meta["seconds"]


def compare(fills: dict[str, dict[str, torch.Tensor]], val: Val) -> dict[str, dict]:
    """Return per variant and set the PSNR, and its difference to the default's with an interval.

    fills: filled images by set, per variant.
    """

    def psnr(name: str, k: str) -> np.ndarray:
        return hole_scores(fills[name][k], val[k][0], course_mask())["psnr"]

    rows: dict[str, dict] = {name: {} for name in fills}
    for name, row in rows.items():
        for k, (_, groups) in val.items():
            values = psnr(name, k)
            more = bootstrap((values - psnr("default", k)).astype(float), groups)
            row[k] = {"psnr": float(values.mean()), "more_db": more}
    return rows


def as_markdown(rows: dict[str, dict], sets: list[str]) -> str:
    """Return a line per variant: hole PSNR on each set, and its difference to the default's."""
    lines = []
    for name, row in rows.items():
        cells = []
        for k in sets:
            more, *ends = row[k]["more_db"]
            change = "" if name == "default" else f" ({with_interval(more, ends, sign='+')})"
            cells.append(f"{row[k]['psnr']:.2f}{change}")
        lines.append([name, *cells])
    names = {"heads": "val", "heads_t1": "val_t1"}
    return tables.as_markdown(["change", *(f"`{names.get(k, k)}`" for k in sets)], lines)


def main(
    images: harness.Images,
    frames: harness.Frames,
    epochs: Annotated[int, typer.Option(help="Passes over four fifths of the images.")] = 10,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    only: Annotated[str | None, typer.Option(help="Names of variants, with commas.")] = None,
    folder: Annotated[Path, typer.Option(help="Finished and interrupted runs.")] = Path(
        "runs/ablations"
    ),
    out: harness.Out = RESULTS,
    smoke: harness.Smoke = False,
) -> None:
    """Train the variants, print a Markdown table and write it as JSON."""
    names = dict.fromkeys(VARIANTS if only is None else ["default", *only.split(",")])
    if unknown := [name for name in names if name not in VARIANTS]:
        raise BadInput("is not a variant", ", ".join(VARIANTS), path=f"--only {unknown[0]}")
    x = torch.from_numpy(load_images(images))
    val = {path.stem: load_frames(path, "val") for path in frames}
    val = {k: (to_size(heads), list(groups)) for k, (heads, groups) in val.items()}
    profile = replace(Assessment.PROFILES["smoke" if smoke else "full"], epochs=epochs)
    fills, seconds = {}, {}
    for name in names:
        fills[name], seconds[name] = run_variant(name, x, val, profile, seed, folder)
        rows = compare(fills, val)
        save_json(out, {"epochs": epochs, "seed": seed, "rows": rows, "seconds": seconds})
    print(as_markdown(rows, list(val)))


if __name__ == "__main__":
    harness.run(main)
