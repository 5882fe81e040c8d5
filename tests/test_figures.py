"""Figures: what is drawn where, and on which scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from nogaps import figures


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def drawn(figure: Figure) -> list:
    """The pictures of a figure, row by row, without the colour bars."""
    return [axis.images[0] for axis in figure.axes if axis.images and axis.get_visible()]


def bars(figure: Figure) -> list[str]:
    return [axis.get_ylabel() for axis in figure.axes if axis.collections]


def test_folded_rows_go_on_below(clean: torch.Tensor, corrupted: torch.Tensor) -> None:
    figure = figures.show_rows({"y": corrupted, "x": clean}, "seven", 7, fold=4, zoom=3)
    box, pixels = figure.axes[0].get_position(), figure.get_size_inches() * figures.DPI
    assert np.allclose([box.width, box.height] * pixels, 3 * 64), "squares of 3×3 screen pixels"
    shown = [np.asarray(picture.get_array()) for picture in drawn(figure)]
    expected = [*corrupted[:4, 0], *clean[:4, 0], *corrupted[4:7, 0], *clean[4:7, 0]]
    assert len(shown) == 14
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))
    labels = [axis.get_ylabel() for axis in figure.axes if axis.images and axis.get_ylabel()]
    assert labels == ["y", "x", "y", "x"]


def test_each_scale_has_one_bar_and_its_limits(clean: torch.Tensor) -> None:
    rows = {"x": clean, "error": clean - 0.5, "half": clean, "|error|": clean}
    figure = figures.show_rows(rows, "", 3, ["error"], size_rows=["half", "|error|"])
    assert bars(figure) == ["grey value", "filled − truth", "half-width, |error|"]
    limits = [picture.get_clim() for picture in drawn(figure)[::3]]
    assert limits == [(0, 1), (-0.3, 0.3), (0, 0.3), (0, 0.3)]


def test_crops_show_the_same_window_and_errors_in_colour(clean: torch.Tensor) -> None:
    columns = {"x": clean[:3], "error": clean[:3] - 0.5}
    figure = figures.show_crops(columns, "", errors=["error"])
    whole, crop, error = drawn(figure)[:3]
    assert np.array_equal(whole.get_array(), clean[0, 0])
    assert np.array_equal(crop.get_array(), clean[0, 0, 14:38, 20:44])
    assert error.get_clim() == (-0.3, 0.3)
    assert bars(figure) == ["grey value", "filled − truth"]


def test_columns_stand_beside_each_other(clean: torch.Tensor) -> None:
    figure = figures.show_columns({"a": clean[:1], "b": clean[1:3]}, "", count=2)
    assert len(drawn(figure)) == 2
    assert [axis.get_title() for axis in figure.axes[:2]] == ["a", "b"]


def test_mask_rings_the_observed_zero(corrupted: torch.Tensor, mask: torch.Tensor) -> None:
    zeros = ((corrupted == 0) & mask).nonzero()
    image, _, row, column = zeros[0].tolist()
    figure = figures.show_mask(mask, corrupted[image])
    (ring,) = figure.axes[1].lines
    assert [row, column] in np.stack([ring.get_ydata(), ring.get_xdata()], 1).tolist()
    tinted = np.asarray(figure.axes[1].images[0].get_array())
    blue = np.isclose(tinted, figures.MISSING).all(-1)
    assert np.array_equal(blue, ~mask[0, 0].numpy())


def test_curves_are_thin_lines_and_their_mean() -> None:
    lines = [[0.4, 0.2, 0.1], [0.2, 0.1, 0.05]]
    figure = figures.show_curves({"loss": lines}, [1, 2, 3], ("x", "y"), "", {"level": 0.3})
    (axis,) = figure.axes
    assert axis.get_yscale() == "log"
    mean, *thin, level = (line.get_ydata() for line in axis.lines)
    assert np.allclose(mean, np.mean(lines, 0)) and np.allclose(thin, lines)
    assert set(level) == {0.3}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss", "level"]


def test_curves_are_saved_in_one_panel_per_quantity(tmp_path: Path) -> None:
    curves = {"loss": [3.0, 2.0], "val_loss": [2.0, 1.0], "val_ssim": [0.5, 0.6]}
    figures.save_curves(tmp_path / "one.png", {"loss": [3.0, 2.0]}, [1, 2], "run")
    figures.save_curves(tmp_path / "two.png", curves, [1, 2], "run")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert (one.height, 2 * one.width) == (two.height, two.width)
