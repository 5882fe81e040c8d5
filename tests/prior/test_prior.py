"""Frames, augmentation, and the training of both stages at a tiny size."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from diffusers import AutoencoderKL
from PIL import Image

from nogaps.augmentation import sharpen, warp
from nogaps.images.framing import frame_slice
from nogaps.metrics import gradient_energy
from nogaps.prior.autoencoder import encode, reconstruct, train_autoencoder
from nogaps.prior.diffusion import train_diffusion
from nogaps.prior.frames.heads import load_frames, prepare, read_index
from nogaps.prior.loading import load_part, load_prior
from nogaps.prior.sampling import generate
from nogaps.prior.training import Schedule
from nogaps.runtime.files import BadInput

INDEXES = ROOT / "nogaps" / "data"


def disc(height: int, width: int, top: float, left: float, right: float) -> np.ndarray:
    """A bright ellipse with its top at `top` and its sides at `left` and `right`."""
    rows, columns = np.mgrid[:height, :width]
    radius = (right - left) / 2
    inside = (rows - top - radius) ** 2 + (columns - (left + right) / 2) ** 2 <= radius**2
    return (200 * inside).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "flip"), [(220, 256, 0), (150, 140, 1), (512, 512, 0)])
def test_heads_are_framed_where_the_test_set_has_them(
    tmp_path: Path, height: int, width: int, flip: int
) -> None:
    top, left, right = 0.1 * height, 0.15 * width, 0.8 * width
    image = disc(height, width, top, left, right)
    Image.fromarray(image[:, ::-1] if flip else image).save(tmp_path / "head.png")
    index = tmp_path / "index.csv"
    head = "source_file,flip_left_right,skull_top_row,occiput_col,forehead_col,group,split\n"
    index.write_text(head + f"head.png,{flip},{top},{left},{right},0,train\n")
    assert prepare(tmp_path, index, tmp_path / "frames.npz") == {"train": 1}
    frames, groups = load_frames(tmp_path / "frames.npz")
    assert frames.shape == (1, 1, 128, 128) and groups == ["frames/0"]
    small = torch.nn.functional.avg_pool2d(frames, 2)[0, 0] > 0.5
    rows, columns = np.flatnonzero(small.any(1)), np.flatnonzero(small.any(0))
    assert abs(rows[0] - 8) <= 1
    assert abs((columns[-1] - columns[0] + 1) - 57) <= 1
    assert abs((columns[-1] + columns[0]) / 2 - 31.5) <= 1


def test_framing_does_not_alias() -> None:
    """A checkerboard finer than the result can hold becomes grey, not a coarser pattern."""
    rows, columns = np.mgrid[:1024, :1024]
    fine = 255.0 * ((rows + columns) % 2)
    frame = frame_slice(fine, 0, 50, 974)[20:100, 20:100]
    assert abs(frame.mean() - 127.5) < 1 and frame.std() < 2


@pytest.mark.parametrize(("name", "count"), [("heads.csv", 631), ("heads_t1.csv", 364)])
def test_shipped_indexes_are_whole(name: str, count: int) -> None:
    rows = read_index(INDEXES / name)
    assert len(rows) == count
    groups = {
        split: {r["group"] for r in rows if r["split"] == split} for split in ("train", "val")
    }
    assert not groups["train"] & groups["val"], "a subject stands in both splits"
    assert all(float(r["forehead_col"]) > float(r["occiput_col"]) for r in rows)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\x00\xff"])
def test_wrong_index_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "index.csv"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(BadInput, match=r"index\.csv"):
        prepare(tmp_path, path, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_wrong_frame_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "frames.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("frames.npz", "other.npz", "absent.npz"):
        with pytest.raises(BadInput, match=name):
            load_frames(tmp_path / name)


def test_warping_repeats_and_keeps_sharpness(frames_file: Path) -> None:
    frames, _ = load_frames(frames_file)
    once = warp(frames, torch.Generator().manual_seed(1))
    assert torch.equal(once, warp(frames, torch.Generator().manual_seed(1)))
    assert once.shape == (16, 1, 64, 64) and once.min() >= 0 and once.max() <= 1
    blurred = warp(frames, torch.Generator().manual_seed(1), sharpness=0)
    assert gradient_energy(once) > 1.2 * gradient_energy(blurred)


def test_sharpening_keeps_flat_parts_and_means() -> None:
    x = torch.full((1, 1, 8, 8), 0.4)
    torch.testing.assert_close(sharpen(x, 1.0), x)
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 0.5
    assert gradient_energy(sharpen(edge, 1.0)) > 0 and sharpen(edge, 1.0).max() > 0.5


def small(steps: int, **options: object) -> Schedule:
    return Schedule(steps, 4, 2e-3, validate_every=2, checkpoint_every=2, **options)


@pytest.fixture(scope="module")
def trained(frames_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, trained for a few steps."""
    out = tmp_path_factory.mktemp("run")
    train_autoencoder([frames_file], out, small(4), widths=(8, 8, 8), latent_channels=4)
    train_diffusion([frames_file], out, small(4), copies=1, widths=(16, 32))
    return out


def test_both_stages_leave_a_prior_that_samples(trained: Path) -> None:
    prior = load_prior(trained / "pipeline")
    x = torch.cat(generate(2, 2, 2, prior=prior))
    assert x.shape == (2, 1, 64, 64) and torch.isfinite(x).all()
    for stage, column in (("autoencoder", "val_psnr"), ("diffusion", "val_loss")):
        with open(trained / stage / "log.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["2", "4"]
        assert all(np.isfinite(float(row[column])) for row in rows)


def test_latent_scale_is_that_of_the_training_set(trained: Path, frames_file: Path) -> None:
    vqvae = load_part(AutoencoderKL, trained / "vqvae")
    frames, _ = load_frames(frames_file)
    z = encode(vqvae, torch.nn.functional.avg_pool2d(frames, 2)) * vqvae.config.scaling_factor
    assert float(z.std()) == pytest.approx(1, abs=0.02)
    x_hat = reconstruct(vqvae, torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert x_hat.shape == (3, 1, 64, 64) and x_hat.min() >= 0 and x_hat.max() <= 1


def test_interrupted_training_continues_to_the_same_weights(
    trained: Path, frames_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nogaps.prior import training

    step = training._train_step

    def interrupted(number: int, *rest: object) -> dict:
        if number == 3:
            raise KeyboardInterrupt
        return step(number, *rest)

    monkeypatch.setattr(training, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder([frames_file], tmp_path, small(4), widths=(8, 8, 8), latent_channels=4)
    monkeypatch.setattr(training, "_train_step", step)
    resumed = train_autoencoder(
        [frames_file], tmp_path, small(4), widths=(8, 8, 8), latent_channels=4
    ).state_dict()
    straight = load_part(AutoencoderKL, trained / "vqvae").state_dict()
    for name, value in straight.items():
        assert torch.equal(value, resumed[name].cpu()), name


def test_a_run_of_other_settings_is_not_continued(trained: Path, frames_file: Path) -> None:
    with pytest.raises(BadInput, match="other settings"):
        train_autoencoder(
            [frames_file], trained, small(4, seed=1), widths=(8, 8, 8), latent_channels=4
        )
