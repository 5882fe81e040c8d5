"""Pictures of samples: a grid, and a film of how they form."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner

from nogaps.commands.main import app
from nogaps.prior import pictures
from nogaps.prior.loading import Prior
from nogaps.runtime.errors import BadInput
from tests.prior.test_sampling import images


def test_grid_shows_the_images(tmp_path: Path) -> None:
    x = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    pictures.save_grid(tmp_path / "grid.png", x)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * 10 + 2, 3 * 14 + 2)  # 3 columns of 12 pixels, 2 between
    fourth = sheet[12:20:2, 2:14:2]
    np.testing.assert_array_equal(fourth, (255 * x[3, 0]).round().byte())
    assert (sheet[12:, 30:] == 128).all(), "no sixth image"


def test_film_ends_with_the_images(prior: Prior, tmp_path: Path) -> None:
    settings = {"num_inference_steps": 20, "scheduler": "ddpm", "precision": "fp32"}
    frames = pictures.record(prior, 42, 3, **settings)
    x = images(prior, n=3, **settings)
    assert frames.shape == (pictures.MOMENTS, 3, 1, 64, 64)
    assert (frames[-1] - x).abs().max() < 1e-5
    change = (frames - x).square().mean((1, 2, 3, 4))
    assert change[0] > change[len(change) // 2] > change[-1]
    assert len(pictures.record(prior, 42, 1, 3)) == 4, "each step once, and the image"
    pictures.save_film(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == len(frames) and film.info["loop"] == 0
    pictures.save_film(tmp_path / "film.png", frames)
    strip = np.asarray(Image.open(tmp_path / "film.png"))
    assert strip.shape == (3 * 130 + 2, len(frames) * 130 + 2)
    np.testing.assert_array_equal(strip[2:130:2, -130:-2:2], (255 * x[0, 0]).round().byte())
    for name in ("film.mp4", "film"):
        with pytest.raises(BadInput, match=r"expected \.gif or \.png"):
            pictures.save_film(tmp_path / name, frames)


def test_sample_draws_and_compares(prior_folder: Path, tmp_path: Path) -> None:
    options = ["sample", "--out", tmp_path / "s", "--num-samples", 3, "--steps", 2, "--json"]
    options += ["--prior", prior_folder, "--revision", "v1", "--temperature", 1.5]
    options += ["--grid", tmp_path / "grid.png", "--film", tmp_path / "film.gif"]
    options += ["--test-set", ROOT / "test_set.npy"]
    with pytest.warns(UserWarning) as notes:
        done = CliRunner().invoke(app, list(map(str, options)), catch_exceptions=False)
    found = json.loads(done.stdout)["found"]
    x, y = np.load(tmp_path / "s/images.npy"), np.load(ROOT / "test_set.npy")
    seen = (y != 0).any(0)
    assert found["std_ratio"] == pytest.approx(x[:, seen].std() / y[:, seen].std(), rel=1e-3)
    assert found["share_above"] == pytest.approx((y[:, seen] > x.max()).mean(), abs=1e-4)
    assert Image.open(tmp_path / "grid.png").size == Image.open(tmp_path / "film.gif").size
    texts = [str(note.message) for note in notes if note.category is UserWarning]
    assert len(texts) == 2 and "revision v1 does nothing" in texts[0] and "above 1" in texts[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--grid", "x.gif"], "x.gif: is an unknown kind"),
        (["--film", "x.mp4"], "x.mp4: is an unknown kind"),
        (["--prior", "course", "--film", "x.gif"], "does not show its steps"),
        (["--test-set", "absent.npy"], "absent.npy"),
    ],
)
def test_unusable_options_are_refused_first(tmp_path: Path, options: list[str], text: str) -> None:
    with pytest.raises(BadInput, match=re.escape(text)):
        CliRunner().invoke(
            app, ["sample", "--out", str(tmp_path / "s"), *options], catch_exceptions=False
        )
    assert not (tmp_path / "s").exists()
