"""Grid and film of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nogaps.prior import sampling
from nogaps.prior.loading import Prior
from nogaps.prior.sampling import Process, generate, record, save_film, save_grid


def test_grid_shows_the_images(tmp_path: Path) -> None:
    x = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    save_grid(tmp_path / "grid.png", x)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 14 + 2)  # 3 columns of 12 pixels, 2 between
    fourth = sheet[12:20:2, 2:14:2]
    np.testing.assert_array_equal(fourth, (255 * x[3, 0]).round().byte())
    assert (sheet[12:, 30:] == 128).all(), "no sixth image"


def test_film_ends_with_the_images(prior: Prior, tmp_path: Path) -> None:
    process = Process(20, "ddpm", precision="fp32")
    frames = record(prior, 42, 3, process)
    (x,) = generate(3, 20, 3, "ddpm", prior=prior, precision="fp32")
    assert frames.shape == (sampling.MOMENTS, 3, 1, 64, 64)
    assert (frames[-1] - x).abs().max() < 1e-5
    change = (frames - x).square().mean((1, 2, 3, 4))
    assert change[0] > change[len(change) // 2] > change[-1]
    assert len(record(prior, 42, 1, Process(3))) == 4, "each step once, and the image"
    save_film(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == len(frames) and film.info["loop"] == 0
