"""Good files for every public reader, and what it must make of them when they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from nogaps.api import fill
from nogaps.Assessment import Ensemble, Imputer
from nogaps.images.arrays import open_npy
from nogaps.images.formats import open_images
from nogaps.imputers.intervals import Calibration
from nogaps.imputers.loading import (
    CALIBRATION,
    WEIGHTS,
    TrainedEnsemble,
    load_imputer,
    weights_fingerprint,
)
from nogaps.prior.frames import heads, load_frames
from nogaps.prior.frames.prepare import prepare_images
from nogaps.prior.loading import load_prior, make_scheduler
from nogaps.runtime.checkpoint import load_state, load_tensors, save_model, save_state
from nogaps.runtime.files import load_images, load_json, load_npy, save_json

RNG = np.random.default_rng(0)
MASK = RNG.random((8, 6)) > 0.4
IMAGES = (RNG.uniform(0.1, 1, (2, 8, 6)) * MASK).astype(np.float32)
GREY = (IMAGES * 255).astype(np.uint8)
HEAD = RNG.integers(1, 256, (90, 80), dtype=np.uint8)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Target:
    """A reader and good files for it."""

    make: Callable[[Path], object]  # writes whole files to a folder
    read: Callable[[Path], object]  # reads them and checks what it got
    damage: str = "*"  # pattern of the files that are damaged, one at a time
    weight: float = 1.0  # share of the mutants


def read(path: Path) -> np.ndarray:
    with open_images(path) as source:
        images = source.read(0, source.shape[0])
        assert (images.shape, images.dtype) == (source.shape, source.dtype)
    return images


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), "another answer than numpy's"


def read_npy(folder: Path) -> None:
    images = read(folder / "a.npy")
    same(images, np.load(folder / "a.npy").reshape(images.shape))
    load_npy(folder / "a.npy")
    load_images(folder / "a.npy")


def read_mask(folder: Path) -> None:
    with open_npy(folder / "a.npy", kinds="b") as source:
        mask = source.read(0, source.shape[0])
    assert mask.dtype == bool and set(np.unique(mask.view(np.uint8))) <= {0, 1}


def read_npz(folder: Path) -> None:
    images, copy = read(folder / "a.npz"), folder.parent / "out.npz"
    with open_images(folder / "a.npz") as source:
        same(images, np.load(folder / "a.npz")[source.member[:-4]].reshape(images.shape))
        source.save(copy, images)
    same(read(copy), images)


def make_nifti(path: Path) -> None:
    nibabel.Nifti1Image(np.moveaxis(GREY, 0, -1), np.diag([1.5, 2, 3, 1])).to_filename(path)


def read_nifti(folder: Path) -> None:
    (path,) = folder.iterdir()
    images = read(path)
    stored = np.asarray(nibabel.load(path).dataobj.get_unscaled())
    if stored.ndim == 3:
        axis = stored.shape.index(1) if stored.shape.count(1) == 1 else 2
        same(images, np.moveaxis(stored, axis, 0))


def make_png(folder: Path) -> None:
    for k, image in enumerate(GREY):
        Image.fromarray(image).save(folder / f"{k}.png")


@cache
def network() -> Ensemble:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Ensemble([Imputer(torch.eye(5), (2, 2), 4) for _ in range(2)]).eval()


def make_imputer(folder: Path) -> None:
    """Write a tiny imputer as `nogaps train` does."""
    save_model(folder / WEIGHTS, network(), network().config)


def read_imputer(folder: Path) -> None:
    for quality in ("best", "fast"):
        x_hat = fill(IMAGES[:, None], MASK[None, None], model=load_imputer(folder, CPU, quality))
        assert np.isfinite(x_hat).all()


def make_calibration(folder: Path) -> None:
    weights = dict.fromkeys(("image", "spread", "contrast", "brightness"), 0.5)
    made = Calibration(0.9, 2.0, weights, 2, weights_fingerprint(network()), 20)
    save_json(folder / CALIBRATION, {**vars(made), "measured": "x"})


def read_calibration(folder: Path) -> None:
    imputer = TrainedEnsemble(list(network().networks), calibration=folder / CALIBRATION)
    y, mask = torch.from_numpy(IMAGES[:, None]), torch.from_numpy(MASK[None, None])
    half = imputer.with_half_width(y, mask)[1]
    assert half.isfinite().all() and half.min() >= 0 and half.max() <= 1
    assert 0 < imputer.calibration.level < 1


def read_state(folder: Path) -> None:
    state = load_state(folder / "a.safetensors")
    assert state is None or isinstance(state, dict)
    load_tensors(folder / "a.safetensors")


def read_prior(folder: Path) -> None:
    make_scheduler("dpm", load_prior(folder, CPU).scheduler, 2)


def make_stills(folder: Path) -> None:
    for k, name in enumerate(("0.png", "1.jpg", "3.jpg")):
        Image.fromarray(HEAD[k : k + 16, :16]).save(folder / name)
    Image.fromarray(HEAD[:16, :16].astype(np.uint16) * 200).save(folder / "2.png")
    np.save(folder / "4.npy", HEAD[:16, :16])
    volume = nibabel.Nifti1Image(HEAD[:16, :48].reshape(16, 16, 3), np.eye(4))
    volume.to_filename(folder / "5.nii")


def read_stills(folder: Path) -> None:
    out = folder.parent / "out.npz"
    prepare_images([folder], out, "8", "crop")
    frames = np.load(out)["images"]
    assert frames.shape[1:] == (16, 16) and frames.dtype in (np.uint8, np.uint16)


def make_index(folder: Path) -> None:
    for name in ("0.png", "1.png"):
        Image.fromarray(HEAD).save(folder / name)
    rows = "source_file,flip_left_right,skull_top_row,occiput_col,forehead_col,group,split\n"
    rows += "0.png,0,5,8.5,70,g0,train\n1.png,1,6,9.5,68,g1,val\n"
    (folder / "i.csv").write_text(rows)


def read_index(folder: Path) -> None:
    counts = heads.prepare(folder, folder / "i.csv", folder.parent / "out.npz").counts
    assert sum(counts.values()) == len(np.load(folder.parent / "out.npz")["images"])


def make_frames(folder: Path) -> None:
    names = np.array(["a", "b"])
    images = HEAD[None, :16, :16].repeat(2, 0)
    np.savez_compressed(folder / "a.npz", images=images, group=names, split=names)


def read_frames(folder: Path) -> None:
    x, groups = load_frames(folder / "a.npz", "a")
    assert x.ndim == 4 and len(x) == len(groups) and x.isfinite().all()
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1


JSON = {"a": [1, 2.5, {"b": None}], "c": "text", "d": True}
STATE = {"step": 3, "list": [torch.ones(2), {"x": torch.ones(3)}]}
TARGETS = {
    "npy": Target(lambda at: np.save(at / "a.npy", IMAGES[:, None]), read_npy, weight=4),
    "mask": Target(lambda at: np.save(at / "a.npy", np.asfortranarray(MASK)), read_mask),
    "npz": Target(
        lambda at: np.savez_compressed(at / "a.npz", images=GREY, age=np.arange(3)),
        read_npz,
        weight=2,
    ),
    "nifti": Target(lambda at: make_nifti(at / "a.nii"), read_nifti, weight=2),
    "nifti.gz": Target(lambda at: make_nifti(at / "a.nii.gz"), read_nifti, weight=2),
    "png": Target(make_png, read, "0.png", weight=2),
    "json": Target(lambda at: save_json(at / "a.json", JSON), lambda at: load_json(at / "a.json")),
    "imputer": Target(make_imputer, read_imputer, weight=0.5),
    "calibration": Target(make_calibration, read_calibration, weight=0.5),
    "state": Target(lambda at: save_state(at / "a.safetensors", STATE), read_state),
    "stills": Target(make_stills, read_stills),
    "index": Target(make_index, read_index, "[i1].*", weight=0.5),
    "frames": Target(make_frames, read_frames),
}
