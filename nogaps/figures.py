"""Figures of images, all on one grey scale from 0 to 1, and of curves.

Images are drawn at whole multiples of their size, so that a pixel is a square of screen pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nogaps.runtime.files import atomic

Images = torch.Tensor | np.ndarray
DPI = 100
LEFT, RIGHT, TOP, GAP, FOLD = 48, 104, 46, 6, 16  # margins of a grid in screen pixels
TITLE, NAME, SMALL = 15, 13, 12  # sizes of letters in points
BAR = 330  # largest length of a colour bar in screen pixels
CORNER, CROP = (14, 20), 24  # row and column of a crop, and its size, in pixels
MISSING = (0.13, 0.30, 0.55)  # blue, for missing pixels


@dataclass(frozen=True)
class Scale:
    """Colours for values from low to high, and the label of the values."""

    colours: str
    low: float
    high: float
    label: str
    extend: str = "neither"

    def draw(self, axis: Axes, image: Images) -> None:
        """Draw an image, (H,W) after squeezing, every pixel a square."""
        options = {"cmap": self.colours, "vmin": self.low, "vmax": self.high}
        axis.imshow(np.asarray(image).squeeze(), interpolation="nearest", **options)

    def bar(self, figure: Figure, top: Axes, bottom: Axes) -> None:
        """Draw a colour bar right of two axes, from the upper one towards the lower one."""
        high, low = top.get_position(), bottom.get_position()
        width, height = figure.get_size_inches() * DPI
        start = high.y1 - 0.05 * high.height  # the labels of two bars must not touch
        length = min(start - low.y0 - 0.05 * high.height, BAR / height)
        space = figure.add_axes((high.x1 + 10 / width, start - length, 12 / width, length))
        shades = ScalarMappable(Normalize(self.low, self.high), self.colours)
        ticks = [self.low, 0, self.high] if self.low < 0 else [self.low, self.high]
        bar = figure.colorbar(shades, cax=space, ticks=ticks, extend=self.extend)
        bar.ax.set_yticklabels([f"{tick:g}".replace("-", "−") for tick in ticks], fontsize=SMALL)
        bar.set_label(self.label, fontsize=SMALL)


GREY = Scale("gray", 0, 1, "grey value")
ERROR = Scale("RdBu_r", -0.3, 0.3, "filled − truth", "both")
SIZE = Scale("magma", 0, 0.3, "half-width, |error|", "max")


def _grid(
    rows: int, columns: int, cell: int, title: str, names: int = 0, block: int = 0
) -> tuple[Figure, list[list[Axes]]]:
    """A titled figure with rows×columns axes of cell×cell screen pixels and no ticks.

    names: room above every `block` rows (else above the first); blocks stand a little apart.
    """
    block = block or rows
    blocks = -(-rows // block)
    width = LEFT + columns * (cell + GAP) + RIGHT
    height = TOP + blocks * names + (blocks - 1) * FOLD + rows * (cell + GAP) + GAP
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = []
    for row in range(rows):
        above = TOP + (row // block + 1) * names + row // block * FOLD + row * (cell + GAP)
        bottom = height - above - cell
        lefts = [LEFT + column * (cell + GAP) for column in range(columns)]
        boxes = [(left / width, bottom / height, cell / width, cell / height) for left in lefts]
        axes.append([figure.add_axes(box, xticks=[], yticks=[]) for box in boxes])
    middle = (LEFT + columns * (cell + GAP) / 2) / width
    figure.suptitle(title, fontsize=TITLE, x=middle, y=1 - 8 / height, va="top")
    return figure, axes


def show_rows(
    rows: Mapping[str, Images],
    title: str,
    columns: int = 10,
    error_rows: Sequence[str] = (),
    zoom: int = 2,
    size_rows: Sequence[str] = (),
    fold: int = 0,
    captions: Sequence[str] = (),
) -> Figure:
    """Draw rows of images that share the grey scale 0 to 1.

    Args:
        rows: Images (N,1,H,W) or (N,H,W) by the name of their row.
        columns: How many images of each row are drawn.
        error_rows: Names of rows in the colours of errors, -0.3 to 0.3.
        size_rows: Names of rows in the colours of sizes, 0 to 0.3.
        fold: After so many images the rows go on below; 0: never.
        captions: Of the images, above the first row.
    """
    columns = min(columns, *(len(images) for images in rows.values()))
    side = min(fold or columns, columns)
    starts = range(0, columns, side)
    size = next(iter(rows.values())).shape[-1]
    names = [name for _ in starts for name in rows]
    space = 24 if captions else 0
    figure, axes = _grid(len(names), side, zoom * size, title, space, len(rows))
    special = dict.fromkeys(error_rows, ERROR) | dict.fromkeys(size_rows, SIZE)
    scales = [special.get(name, GREY) for name in names]
    for k, (line, name, scale) in enumerate(zip(axes, names, scales, strict=True)):
        start = starts[k // len(rows)]
        for axis, number in zip(line, range(start, start + side), strict=True):
            if number >= columns:
                axis.set_visible(False)
                continue
            scale.draw(axis, rows[name][number])
            if captions and k % len(rows) == 0:
                axis.set_title(captions[number], fontsize=SMALL)
        line[0].set_ylabel(name, fontsize=NAME)
    for scale, run in groupby(zip(scales, axes, strict=True), key=lambda pair: pair[0]):
        lines = [line for _, line in run]
        scale.bar(figure, lines[0][-1], lines[-1][-1])
    return figure


def _columns(
    columns: Mapping[str, Images], count: int, cell: int, title: str, errors: Sequence[str] = ()
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with the first `count` images of each column, its name above."""
    figure, axes = _grid(count, len(columns), cell, title, names=24)
    for k, (name, images) in enumerate(columns.items()):
        axes[0][k].set_title(name, fontsize=NAME)
        for line, image in zip(axes, images, strict=False):
            (ERROR if name in errors else GREY).draw(line[k], image)
    return figure, axes


def show_columns(
    columns: Mapping[str, Images], title: str, count: int = 3, zoom: int = 2
) -> Figure:
    """Draw the first `count` images of columns (N,1,H,W), by the name of each column."""
    count = min(count, *(len(images) for images in columns.values()))
    size = next(iter(columns.values())).shape[-1]
    figure, axes = _columns(columns, count, zoom * size, title)
    GREY.bar(figure, axes[0][-1], axes[-1][-1])
    return figure


def show_crops(columns: Mapping[str, Images], title: str, errors: Sequence[str] = ()) -> Figure:
    """Draw three images: whole, of the first column, then the same crop of every column.

    Args:
        columns: Images (N,1,H,W) by the name of their column.
        errors: Names of columns in the colours of errors, -0.3 to 0.3.
    """
    (top, left), side = CORNER, CROP
    window = (..., slice(top, top + side), slice(left, left + side))
    crops = {"whole image": next(iter(columns.values()))}
    crops |= {name: images[window] for name, images in columns.items()}
    figure, axes = _columns(crops, 3, 8 * side, title, errors)
    for line in axes:
        box = plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, color="orange", lw=2)
        line[0].add_patch(box)
    GREY.bar(figure, axes[0][-1], axes[1 if errors else 2][-1])
    if errors:
        ERROR.bar(figure, axes[2][-1], axes[2][-1])
    return figure


def show_mask(mask: torch.Tensor, example: torch.Tensor) -> Figure:
    """Draw a mask beside a corrupted image, with blue missing pixels and red rings at true zeros.

    Args:
        mask: bool, (H,W) after squeezing, True = observed.
        example: The image, (H,W) after squeezing.
    """
    observed, image = np.asarray(mask).squeeze(), np.asarray(example).squeeze()
    size = observed.shape[-1]
    tinted = np.where(observed[..., None], image[..., None].clip(0, 1), MISSING)
    window = slice(size // 4, size // 2)
    panels = {
        "mask (white: observed)": observed[None],
        "a test image (blue: missing)": tinted[None],
        f"{size // 4}×{size // 4} pixels of it": tinted[None, window, window],
    }
    title = "The mask of all images; in the ring, an observed pixel that is 0 as well"
    figure, axes = _columns(panels, 1, 5 * size, title)
    rows, columns = np.nonzero(observed & (image == 0))
    axes[0][1].plot(columns, rows, "o", mfc="none", mec="red", mew=2, ms=12)
    GREY.bar(figure, axes[0][-1], axes[0][-1])
    return figure


def show_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    x: Sequence[float],
    labels: tuple[str, str],
    title: str,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw bundles of curves on a logarithmic axis: thin lines, and their mean.

    Args:
        curves: Several curves by the name of their bundle.
        x: Where the curves were measured.
        labels: Of the two axes.
        levels: Dashed lines across, by name.
    """
    figure, axis = plt.subplots(figsize=(9, 4.5), dpi=DPI, layout="constrained")
    for name, lines in curves.items():
        mean = np.mean(lines, 0)
        (drawn,) = axis.plot(x, mean, lw=2, marker="." if len(mean) < 3 else None, label=name)
        for line in lines if len(lines) > 1 else ():
            axis.plot(x, line, lw=0.7, alpha=0.6, color=drawn.get_color())
    for name, level in (levels or {}).items():
        axis.axhline(level, ls="--", color="black", lw=1, label=name)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel(labels[0], fontsize=NAME)
    axis.set_ylabel(labels[1], fontsize=NAME)
    axis.set_title(title, fontsize=TITLE)
    axis.tick_params(which="both", labelsize=SMALL)
    axis.grid(True, which="both", alpha=0.3)
    axis.legend(fontsize=SMALL)
    return figure


def save_curves(
    path: str | Path, curves: Mapping[str, Sequence[float]], x: Sequence[float], title: str
) -> None:
    """Save training and validation curves as a PNG, one panel per quantity; no display is needed.

    Args:
        path: The PNG to write.
        curves: Values by name; `val_name` is drawn in the panel of `name`.
        x: Steps of the values.
    """
    panels = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows + 0.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, name in zip(axes, panels, strict=False):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in curves:
                axis.plot(x, curves[key], label=label, marker="." if len(x) < 3 else None)
        axis.set(xlabel="step", title=name.replace("_", " "))
        if "loss" in name and min(curves.get(name, [0])) > 0:
            axis.set_yscale("log")
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary)
