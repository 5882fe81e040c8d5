"""Figures of the notebook and the benchmarks: one grey scale, 0 to 1, everywhere.

Images are drawn at whole multiples of their size, so that one pixel is a square of screen pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nogaps.files import atomic

Images = torch.Tensor | np.ndarray
DPI = 100
LEFT, RIGHT, TOP, GAP = 96, 76, 40, 6  # margins of a grid in screen pixels


def _grid(rows: int, columns: int, cell: int, titles: int = 0) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows×columns axes of cell×cell screen pixels and no ticks."""
    width = LEFT + columns * (cell + GAP) + RIGHT
    height = TOP + titles + rows * (cell + GAP) + GAP
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = []
    for row in range(rows):
        bottom = height - TOP - titles - row * (cell + GAP) - cell
        line = []
        for column in range(columns):
            left = LEFT + column * (cell + GAP)
            box = (left / width, bottom / height, cell / width, cell / height)
            line.append(figure.add_axes(box, xticks=[], yticks=[]))
        axes.append(line)
    return figure, axes


def _draw(axis: Axes, image: np.ndarray, signed: bool = False) -> object:
    low, high, colours = (-0.3, 0.3, "RdBu_r") if signed else (0, 1, "gray")
    return axis.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")


def _colour_bar(axis: Axes, drawn: object, signed: bool) -> None:
    """A colour bar right of an axis, its ends labelled."""
    figure, box = axis.figure, axis.get_position()
    # shorter than the row, so that the labels of two rows do not touch
    low, height = box.y0 + 0.07 * box.height, 0.86 * box.height
    space = figure.add_axes((box.x1 + 0.008, low, 0.008, height))
    figure.colorbar(drawn, cax=space, ticks=[-0.3, 0, 0.3] if signed else [0, 1])


def show_rows(
    rows: Mapping[str, Images],
    title: str,
    columns: int = 10,
    error_rows: Sequence[str] = (),
    zoom: int = 2,
) -> Figure:
    """One row of images per entry of `rows`, each (N,1,H,W) or (N,H,W); the first `columns`.

    All rows share the grey scale 0 to 1, the rows named in `error_rows` the colours -0.3 to 0.3.
    """
    columns = min(columns, *(len(images) for images in rows.values()))
    size = next(iter(rows.values())).shape[-1]
    figure, axes = _grid(len(rows), columns, zoom * size)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        signed = name in error_rows
        for axis, image in zip(line, images, strict=False):
            drawn = _draw(axis, np.asarray(image).squeeze(), signed)
        line[0].set_ylabel(name, fontsize=10)
        _colour_bar(line[-1], drawn, signed)
    figure.suptitle(title, fontsize=12, y=1 - 8 / (DPI * figure.get_figheight()), va="top")
    return figure


def show_mask(mask: torch.Tensor, example: torch.Tensor) -> Figure:
    """A mask beside one corrupted image; mask bool and example float of shape (...,H,W)."""
    size = mask.shape[-1]
    window = slice(size // 4, size // 4 + size // 4)
    panels = {
        "mask (white = observed)": mask.squeeze(),
        "a test image": example.squeeze(),
        "the mask's middle, enlarged": mask.squeeze()[window, window],
    }
    figure, axes = _grid(1, 3, 4 * size, titles=10)
    for axis, (name, image) in zip(axes[0], panels.items(), strict=True):
        _draw(axis, np.asarray(image))
        axis.set_title(name, fontsize=11)
    return figure


def show_curves(
    curves: Mapping[str, Sequence[float]], x: Sequence[float], labels: tuple[str, str], title: str
) -> Figure:
    """Named curves over x on a logarithmic axis; labels are those of the two axes."""
    figure, axis = plt.subplots(figsize=(8, 4), dpi=DPI, layout="constrained")
    for name, values in curves.items():
        axis.plot(x, values, label=name)
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title, yscale="log")
    axis.grid(True, which="both", alpha=0.3)
    axis.legend()
    return figure


def save_curves(
    path: str | Path, curves: Mapping[str, Sequence[float]], x: Sequence[float], title: str
) -> None:
    """Training and validation curves over steps as a PNG, one panel per quantity.

    `val_name` is drawn in the panel of `name`. Works without a display and outside notebooks.
    """
    names = [name for name in curves if not name.startswith("val_")]
    names += [name for name in curves if name.startswith("val_") and name[4:] not in names]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows + 0.4), dpi=DPI, layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for name in names:
        axis = next(axes)
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in curves:
                label = "validation" if key.startswith("val_") else label
                axis.plot(x, curves[key], label=label, marker="." if len(x) < 3 else None)
        axis.set(xlabel="step", title=name.removeprefix("val_").replace("_", " "))
        axis.set_yscale("log" if min(curves[name]) > 0 and "loss" in name else "linear")
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    for axis in axes:
        axis.set_axis_off()
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary)


def show_crops(
    rows: Mapping[str, Images], title: str, corner: tuple[int, int] = (14, 20), side: int = 24
) -> Figure:
    """Three images: whole in the first entry of `rows`, then the same crop of every entry.

    Images (N,1,H,W); corner: row and column of the crop; side: its size in pixels.
    """
    top, left = corner
    figure, axes = _grid(3, len(rows) + 1, 192, titles=20)
    whole = next(iter(rows.values()))
    for k, line in enumerate(axes):
        _draw(line[0], np.asarray(whole[k]).squeeze())
        box = plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, color="orange")
        line[0].add_patch(box)
        for axis, images in zip(line[1:], rows.values(), strict=True):
            crop = np.asarray(images[k]).squeeze()[top : top + side, left : left + side]
            drawn = _draw(axis, crop)
        _colour_bar(line[-1], drawn, signed=False)
    for axis, name in zip(axes[0], ["whole image", *rows], strict=True):
        axis.set_title(name, fontsize=11)
    figure.suptitle(title, fontsize=12, y=1 - 8 / (DPI * figure.get_figheight()), va="top")
    return figure
