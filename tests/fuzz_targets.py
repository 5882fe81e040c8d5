"""Good files for every public reader, and what it must make of them when they are damaged."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import Target
from PIL import Image

from nogaps import submission
from nogaps.Assessment import Ensemble, Imputer
from nogaps.evaluation import scoring
from nogaps.filling.files import fill
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
from nogaps.prior.frames import heads
from nogaps.prior.frames.prepare import prepare_images
from nogaps.prior.loading import load_prior
from nogaps.prior.schedulers import make_scheduler
from nogaps.runtime import manifests
from nogaps.runtime.checkpoint import load_state, load_tensors, save_model, save_state
from nogaps.runtime.files import load_images, load_json, load_npy, save_json

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)
MASK = RNG.random((8, 6)) > 0.4
IMAGES = (RNG.uniform(0.1, 1, (2, 8, 6)) * MASK).astype(np.float32)
GREY = (IMAGES * 255).astype(np.uint8)
HEAD = RNG.integers(1, 256, (90, 80), dtype=np.uint8)
CPU = torch.device("cpu")
Files = list[tuple[Path, str]]


def read(path: Path) -> np.ndarray:
    with open_images(path) as source:
        images = source.read(0, source.shape[0])
        assert (images.shape, images.dtype) == (source.shape, source.dtype)
    return images


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), "another answer than numpy's"


def make_npy(folder: Path) -> Files:
    np.save(folder / "a.npy", IMAGES[:, None])
    return [(folder / "a.npy", "npy")]


def read_npy(folder: Path) -> None:
    for loaded in (load_npy, load_images):
        loaded(folder / "a.npy")


def read_array(folder: Path) -> None:
    images = read(folder / "a.npy")
    same(images, np.load(folder / "a.npy").reshape(images.shape))


def make_mask(folder: Path) -> Files:
    np.save(folder / "a.npy", np.asfortranarray(MASK))
    return [(folder / "a.npy", "npy")]


def read_mask(folder: Path) -> None:
    with open_npy(folder / "a.npy", kinds="b") as source:
        mask = source.read(0, source.shape[0])
    assert mask.dtype == bool and set(np.unique(mask.view(np.uint8))) <= {0, 1}


def make_npz(folder: Path) -> Files:
    np.savez_compressed(folder / "a.npz", images=GREY, age=np.arange(3))
    return [(folder / "a.npz", "npz")]


def read_npz(folder: Path) -> None:
    images = read(folder / "a.npz")
    with open_images(folder / "a.npz") as source:
        same(images, np.load(folder / "a.npz")[source.member[:-4]].reshape(images.shape))
        source.save(folder.parent / "out.npz", images)
    same(read(folder.parent / "out.npz"), images)


def make_nifti(folder: Path, name: str = "a.nii") -> Files:
    image = nib.Nifti1Image(np.moveaxis(GREY, 0, -1), np.diag([1.5, 2, 3, 1]))
    image.to_filename(folder / name)
    return [(folder / name, name[2:])]


def read_nifti(folder: Path) -> None:
    (path,) = folder.iterdir()
    images = read(path)
    try:
        stored = np.asarray(nib.load(path).dataobj.get_unscaled())
    except Exception:  # it is stricter with what nothing here depends on
        return
    same(images, np.moveaxis(stored, -1, 0) if stored.ndim == 3 else stored[None])


def make_png(folder: Path) -> Files:
    for k, image in enumerate(GREY):
        Image.fromarray(image).save(folder / f"{k}.png")
    return [(folder / "0.png", "png")]


def read_png(folder: Path) -> None:
    assert read(folder).shape[1:] == GREY.shape[1:]


def make_json(folder: Path) -> Files:
    save_json(folder / "a.json", {"a": [1, 2.5, {"b": None}], "c": "text", "d": True})
    return [(folder / "a.json", "json")]


@cache
def network() -> Ensemble:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        covariance = torch.eye(5)
        return Ensemble([Imputer(covariance, (2, 2), 4) for _ in range(2)]).eval()


def make_imputer(folder: Path) -> Files:
    ensemble = network()
    save_model(folder / WEIGHTS, ensemble, ensemble.config)
    return [(folder / WEIGHTS, "safetensors")]


def read_imputer(folder: Path) -> None:
    for quality in ("best", "fast"):
        x_hat = fill(IMAGES[:, None], MASK[None, None], load_imputer(folder, CPU, quality))
        assert np.isfinite(x_hat).all()


def make_calibration(folder: Path) -> Files:
    weights = dict.fromkeys(("image", "spread", "contrast", "brightness"), 0.5)
    made = Calibration(0.9, 2.0, weights, 2, weights_fingerprint(network()), 20)
    save_json(folder / CALIBRATION, {**vars(made), "measured": "x"})
    return [(folder / CALIBRATION, "json")]


def read_calibration(folder: Path) -> None:
    sure = TrainedEnsemble(list(network().networks), folder=folder)
    y, mask = torch.from_numpy(IMAGES[:, None]), torch.from_numpy(MASK[None, None])
    half = sure.with_half_width(y, mask)[1]
    assert half.isfinite().all() and half.min() >= 0 and half.max() <= 1
    assert 0 < sure.calibration.level < 1


def make_state(folder: Path) -> Files:
    save_state(folder / "a.safetensors", {"step": 3, "list": [torch.ones(2), {"x": torch.ones(3)}]})
    return [(folder / "a.safetensors", "safetensors")]


def read_state(folder: Path) -> None:
    state = load_state(folder / "a.safetensors")
    assert state is None or isinstance(state, dict)
    load_tensors(folder / "a.safetensors")


def read_prior(folder: Path) -> None:
    prior = load_prior(folder, CPU)
    make_scheduler("dpm", prior.scheduler, 2)


def make_stills(folder: Path) -> Files:
    for k, name in enumerate(("0.png", "1.jpg", "2.png", "3.jpg")):
        Image.fromarray(HEAD[k : k + 16, :16]).save(folder / name)
    deep = HEAD[:16, :16].astype(np.uint16) * 200
    Image.fromarray(deep).save(folder / "2.png")
    np.save(folder / "4.npy", HEAD[:16, :16])
    nib.Nifti1Image(HEAD[:16, :48].reshape(16, 16, 3), np.eye(4)).to_filename(folder / "5.nii")
    kinds = {".png": "png", ".jpg": "jpg", ".npy": "npy", ".nii": "nii"}
    return [(path, kinds[path.suffix]) for path in sorted(folder.iterdir())]


def read_stills(folder: Path) -> None:
    out = folder.parent / "out.npz"
    prepare_images([folder], out, "8", "crop")
    found = np.load(out)["images"]
    assert found.shape[1:] == (16, 16) and found.dtype in (np.uint8, np.uint16)


def make_index(folder: Path) -> Files:
    Image.fromarray(HEAD).save(folder / "0.png")
    Image.fromarray(HEAD).save(folder / "1.png")
    rows = "source_file,flip_left_right,skull_top_row,occiput_col,forehead_col,group,split\n"
    rows += "0.png,0,5,8.5,70,g0,train\n1.png,1,6,9.5,68,g1,val\n"
    (folder / "i.csv").write_text(rows)
    return [(folder / "i.csv", "csv"), (folder / "1.png", "png")]


def read_index(folder: Path) -> None:
    counts = heads.prepare(folder, folder / "i.csv", folder.parent / "out.npz")
    assert sum(counts.values()) == len(np.load(folder.parent / "out.npz")["images"])


def make_frames(folder: Path) -> Files:
    names = np.array(["a", "b"])
    np.savez_compressed(
        folder / "a.npz", images=HEAD[None, :16, :16].repeat(2, 0), group=names, split=names
    )
    return [(folder / "a.npz", "npz")]


def read_frames(folder: Path) -> None:
    x, groups = heads.load_frames(folder / "a.npz", "a")
    assert x.ndim == 4 and len(x) == len(groups) and x.isfinite().all()
    assert x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1


def make_batches(folder: Path) -> Files:
    for k in range(2):
        np.save(folder / f"{k}.npy", IMAGES[k, None, None])
    save_json(folder / manifests.MANIFEST, {"num_samples": 2})
    return [(folder / "0.npy", "npy"), (folder / manifests.MANIFEST, "json")]


def read_batches(folder: Path) -> None:
    manifests.open_partial(folder, {"num_samples": 2})
    manifests.join_batches(folder, folder.parent / "out.npy", 2)
    load_npy(folder.parent / "out.npy")


def make_scores(folder: Path) -> Files:
    for name in ("truth", "test_set", "test_set_nogaps"):
        np.save(
            folder / f"{name}.npy", IMAGES[:, None] if name == "test_set" else IMAGES[:, None] + 0
        )
    return [(folder / f"{name}.npy", "npy") for name in ("truth", "test_set", "test_set_nogaps")]


def read_scores(folder: Path) -> None:
    _, y, _ = scoring.read_truth(folder / "truth.npy", folder / "test_set.npy")
    scoring.read_like(folder / "test_set_nogaps.npy", y, folder / "test_set.npy")


def make_submission(folder: Path) -> Files:
    np.save(folder / "test_set.npy", IMAGES[:, None])
    np.save(folder / "test_set_nogaps.npy", np.where(MASK, IMAGES, 0.5)[:, None].astype("f4"))
    output = {"output_type": "stream", "name": "stdout", "text": ["test_set.npy sha256: 00\n"]}
    figure = {"output_type": "display_data", "data": {"image/png": "aa"}, "metadata": {}}
    cells = []
    for k in (1, 2, 3):
        cells.append({"cell_type": "markdown", "source": [f"## Question {k}\n"], "metadata": {}})
        code = {"cell_type": "code", "execution_count": k, "outputs": [output, figure]}
        cells.append({**code, "source": "print(1)", "metadata": {}})
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "Assessment.ipynb").write_text(json.dumps(notebook))
    (folder / "References.md").write_text("# Sources\nhttps://example.org\n## Declaration\nTODO\n")
    kinds = {"test_set.npy": "npy", "test_set_nogaps.npy": "npy", "References.md": "txt"}
    return [(folder / name, kind) for name, kind in {**kinds, "Assessment.ipynb": "json"}.items()]


def read_submission(folder: Path) -> None:
    findings = submission.check_submission(folder)
    assert all("\n" not in str(finding) for finding in findings)
    json.dumps([vars(finding) for finding in findings])
    "".join(map(str, findings)).encode()


TARGETS = [
    Target("npy", make_npy, read_npy, 2),
    Target("array", make_npy, read_array, 2),
    Target("mask", make_mask, read_mask),
    Target("npz", make_npz, read_npz, 2),
    Target("nifti", make_nifti, read_nifti, 2),
    Target("nifti.gz", lambda folder: make_nifti(folder, "a.nii.gz"), read_nifti, 2),
    Target("png", make_png, read_png, 2),
    Target("json", make_json, lambda folder: load_json(folder / "a.json")),
    Target("imputer", make_imputer, read_imputer, 0.5),
    Target("calibration", make_calibration, read_calibration, 0.5),
    Target("state", make_state, read_state),
    Target("stills", make_stills, read_stills),
    Target("index", make_index, read_index, 0.5),
    Target("frames", make_frames, read_frames),
    Target("batches", make_batches, read_batches),
    Target("scores", make_scores, read_scores),
    Target("submission", make_submission, read_submission),
]
