"""Figures of `benchmarks.object_masks`: filled pictures in rows, and one large hole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.harness import Impute
from benchmarks.object_data import MaskedPictures, draw_object
from nogaps.Assessment import corrupt
from nogaps.runtime.files import atomic


def draw(path: Path, rows: Mapping[str, torch.Tensor], title: str, zoom: int = 3) -> None:
    """PNG with one row of pictures (N,3,H,W) in [0,1] per entry; `zoom` screen pixels a pixel.

    Entries of one picture stand side by side instead.
    """
    count, _, height, width = next(iter(rows.values())).shape
    shape = (len(rows), count) if count > 1 else (1, len(rows))
    size = (shape[1] * zoom * width / 100 + 1, shape[0] * zoom * height / 100 + 0.8)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(*shape, squeeze=False).reshape(len(rows), count)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        _ = line[0].set_ylabel(name) if count > 1 else line[0].set_title(name)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary)


def draw_filled(
    path: Path, name: str, fill: Impute, test: MaskedPictures, seed: int, columns: int = 10
) -> None:
    """Four rows of random test pictures with a hole: original, mask, masked, filled."""
    holed = (~test.masks).flatten(1).any(1).nonzero().flatten()
    order = torch.randperm(len(holed), generator=torch.Generator().manual_seed(seed))
    y, x, mask = test.batch(holed[order[:columns]])
    rows = {"original": x, "mask": _picture(mask), "masked": y, "filled": fill(y, mask)}
    draw(path, rows, f"{name}: pictures that it was not trained on (mask: black is missing)")


def draw_large(
    path: Path, fillings: Mapping[str, Impute], photo: np.ndarray, side: int, seed: int
) -> dict[str, torch.Tensor]:
    """One photograph (H,W,3) uint8 with one large drawn hole, as each of `fillings` fills it.

    Its middle square, scaled to `side` pixels. Returns what was drawn, (1,3,side,side) by name.
    """
    edge = min(photo.shape[:2])
    top, left = ((n - edge) // 2 for n in photo.shape[:2])
    square = Image.fromarray(photo[top : top + edge, left : left + edge])
    pixels = np.array(square.resize((side, side), Image.Resampling.BOX))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    mask = large_mask(side, seed)
    y = corrupt(x, mask)
    rows = {"original": x, "mask": _picture(mask), "masked": y}
    rows |= {name: fill(y, mask) for name, fill in fillings.items()}
    draw(path, rows, f"One large hole, {side}×{side} pixels", zoom=1)
    return rows


def large_mask(side: int, seed: int) -> torch.Tensor:
    """One drawn object of 12 to 25 % of the area, (1,1,side,side) bool, True = observed."""
    drawn = draw_object(np.random.default_rng(seed), side, 0.12, 0.25)
    return torch.from_numpy(~drawn)[None, None]


def _picture(mask: torch.Tensor) -> torch.Tensor:
    return mask.float().expand(-1, 3, -1, -1)
