"""What the package computes stays what it was: golden values, within what other machines round.

Golden values are results of a version that was found good, kept in golden.npz: samples of each
scheduler, filled images, kriging, frames, losses of a few training steps, all small and in fp32.
They guard against a change that nobody meant, such as one while code is moved. After a change that
is meant, write them anew with `python tests/test_golden.py`, and say in the commit what differs.
"""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from in_process import called
from PIL import Image

import nogaps
from nogaps.runtime.checkpoint import load_state

notebook = import_module("nogaps.Assessment")
ROOT, GOLDEN = Path(__file__).parents[1], Path(__file__).with_name("golden.npz")
Arrays = dict[str, np.ndarray]
TOLERANCE = {"prior": 1e-3}  # relative, and a tenth of it absolute; else 1e-4. SSE4 instead of
# AVX-512, or another number of threads, brings 4e-5 in the prior's losses, 1.5e-6 elsewhere
FEW = 2  # images of a kind


@contextlib.contextmanager
def fp32() -> Iterator[None]:
    """On the CPU, in fp32 even where bf16 is faster."""
    AcceleratorState._reset_state(True)  # it holds the precision of whoever trained before
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, ACCELERATE_USE_CPU="1"))
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            stack.enter_context(mock.patch.object(torch.cpu, name, lambda: False, create=True))
        yield
    AcceleratorState._reset_state(True)


def command(line: str, folder: Path) -> None:
    """`nogaps LINE` in a folder; it must succeed."""
    done = called(*line.split(), cwd=folder)
    assert done.code == 0, done.err


@cache
def corrupted() -> tuple[torch.Tensor, torch.Tensor]:
    """The committed test set (N,1,H,W) and its mask (1,1,H,W)."""
    y = torch.from_numpy(np.load(ROOT / "test_set.npy"))
    return y, notebook.find_mask(y)


def halved(images: np.ndarray) -> np.ndarray:
    """Images (...,H,W) at half the size: the mean of 2×2 pixels."""
    height, width = images.shape[-2:]
    blocks = images.reshape(*images.shape[:-2], height // 2, 2, width // 2, 2)
    return blocks.mean((-3, -1), dtype=np.float64).astype(np.float32)


def samples(room: Path) -> Arrays:
    """Heads of the shipped prior, by scheduler."""
    found = {}
    for name in ("ddim", "ddpm", "dpm"):
        line = f"sample --out {name} --num-samples {FEW} --steps 3 --seed 0 --precision fp32"
        command(f"{line} --scheduler {name}", room)
        found[name] = halved(np.load(room / name / "images.npy"))
    return found


def filled(room: Path) -> Arrays:
    """Holes of the first images, of an own mask's too, by the shipped imputer."""
    y, mask = (part.numpy() for part in corrupted())
    y, hole = y[:FEW], ~mask[0, 0]
    best, half = nogaps.fill(y, mask, half_width=True)
    found = {"fast": nogaps.fill(y, mask, quality="fast"), "best": best, "half-width": half}
    found = {name: images[..., hole] for name, images in found.items()}
    own = np.random.default_rng(0).random((40, 50)) < 0.5
    images = np.where(own, best[0, 0, 10:50, 10:60], np.nan)
    return found | {"own mask": nogaps.fill(images, missing="nan", quality="fast")[~own]}


def kriging(room: Path) -> Arrays:
    """Mask, and weights and result of an untrained imputer, which kriges."""
    y, mask = corrupted()
    imputer = notebook.new_imputer(notebook.PROFILES["smoke"], y, 0).eval()
    with torch.no_grad():
        x_hat = imputer(y[:1], mask)[..., ~mask[0, 0]]
    weights = imputer.interpolation.weights(mask[0, 0]).values()
    return {"mask": mask.numpy(), "weights": weights[:1000].numpy(), "filled": x_hat.numpy()}


def draw(folder: Path, count: int = 10) -> None:
    """PNG slices, and index.csv with landmarks as if they were heads."""
    folder.mkdir()
    rows, columns = np.mgrid[:60, :50]
    lines = ["source_file,flip_left_right,skull_top_row,occiput_col,forehead_col,group,split"]
    for k in range(count):
        waves = np.sin(rows / (4 + k)) * np.cos(columns / 5 + k)
        image = np.exp(-(((rows - 30) / 18) ** 2) - ((columns - 25) / 14) ** 2) * (1.5 + waves)
        Image.fromarray(np.rint(100 * image).astype(np.uint8)).save(folder / f"{k}.png")
        split = "val" if k > count - 4 else "train"
        lines.append(f"{k}.png,{k % 2},{5.5 + k / 4},{5 + k / 3},{44 - k / 5},g{k},{split}")
    (folder.parent / "index.csv").write_text("\n".join(lines))


def frames(room: Path) -> Arrays:
    """Frames of drawn slices, every fourth pixel."""
    draw(room / "slices")
    options = {"pad": "--fit pad", "crop": "--size 24x48 --fit crop", "heads": "--index index.csv"}
    found = {}
    for name, option in options.items():
        command(f"prior prepare --source slices --out {name}.npz {option}", room)
        with np.load(room / f"{name}.npz", allow_pickle=False) as archive:
            found[name] = archive["images"][:3, ::4, ::4]
            found[f"{name}, split"] = archive["split"] == "train"
    return found


def training(room: Path) -> Arrays:
    """Three steps of the notebook's network: losses, weights, and what it fills."""
    y, mask = corrupted()
    x = notebook.fill(notebook.new_imputer(notebook.PROFILES["smoke"], y, 0).eval(), y[:30], mask)
    pairs = notebook.make_datasets(x, mask, 0)
    profile = notebook.Profile(30, 1, 3, 1, (8, 16), 32)  # 24 images: one step an epoch
    options = notebook.Options(profile.epochs)
    trained, (history,) = notebook.train_ensemble(profile, *pairs, mask, room, options)
    found = {name: np.array(history[name]) for name in ("training", "validation")}
    weights = load_state(room / "training-0.safetensors")["imputer"]
    found["head"] = weights["unet.head.weight"].flatten().numpy()
    augmented = notebook.augment(x[:FEW], torch.Generator().manual_seed(0), 1.0).numpy()
    image = notebook.fill(trained, y[:1], mask).numpy()
    return found | {"augmented": halved(augmented), "filled": image[..., ~mask[0, 0]]}


def prior(room: Path) -> Arrays:
    """Losses of three steps of each of the prior's stages, on small images."""
    draw(room / "slices")
    command("prior prepare --source slices --out f.npz --size 16 --fit pad --val-share 0.3", room)
    schedule = "--frames f.npz --out prior --steps 3 --batch-size 4"
    command(f"prior train-autoencoder {schedule}", room)
    command(f"prior train-diffusion {schedule} --copies 1", room)
    found = {}
    for stage in ("autoencoder", "diffusion"):
        with open(room / "prior" / stage / "log.csv", newline="") as file:
            row = [*csv.DictReader(file)][-1]
        found |= {f"{stage}, {key}": np.array(float(row[key])) for key in row if key != "seconds"}
    return found


CASES: dict[str, Callable[[Path], Arrays]] = {
    case.__name__: case for case in (samples, filled, kriging, frames, training, prior)
}


@pytest.mark.parametrize("name", list(CASES))
def test_same_values_as_ever(name: str, tmp_path: Path) -> None:
    with fp32():
        found = CASES[name](tmp_path)
    with np.load(GOLDEN, allow_pickle=False) as archive:
        expected = {key: archive[key] for key in archive if key.startswith(f"{name}: ")}
    assert [*expected] == [f"{name}: {key}" for key in found]
    for key, value in zip(expected, found.values(), strict=True):
        assert (value.shape, value.dtype) == (expected[key].shape, expected[key].dtype), key
        limit = 0 if value.dtype.kind in "bui" else TOLERANCE.get(name, 1e-4)
        np.testing.assert_allclose(value, expected[key], limit, limit / 10, err_msg=key)


def record() -> None:
    """Write golden.npz anew."""
    torch.set_num_threads(1)
    found = {}
    for name, case in CASES.items():
        with fp32(), tempfile.TemporaryDirectory() as room:
            found |= {f"{name}: {key}": value for key, value in case(Path(room)).items()}
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    record()
