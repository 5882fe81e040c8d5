"""Uploads are filled as the command line fills files; what the page shows and offers of them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from image_files import store
from PIL import Image

from nogaps import standin
from nogaps.demo import uploads
from nogaps.demo.page import _line
from nogaps.demo.pictures import HOLE, downloads, view
from nogaps.demo.uploads import Filler
from nogaps.filling.files import fill_file
from nogaps.images.formats import open_images
from nogaps.imputers.loading import SHIPPED, load_imputer
from nogaps.runtime.errors import BadInput


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Filler:
    return Filler(None, tmp_path_factory.mktemp("work"), "fast")


def grey(count: int, top: int = 255) -> np.ndarray:
    """Return corrupted heads (count,64,64) of levels 0 to `top`, zero where they are missing."""
    images = np.rint(top * standin.corrupted_images()[:count, 0])
    return np.maximum(images, standin.course_mask()).astype(np.uint8 if top < 256 else np.int16)


def write(path: Path, images: np.ndarray) -> Path:
    """Write images (N,H,W) to a file of the kind that its name tells."""
    flat = {"cut.nii": images, "slice.nii": images[0]}  # cut: its first axis has length 1
    if path.name not in flat:
        return store(path, images)
    nibabel.Nifti1Image(flat[path.name], np.eye(4)).to_filename(path)
    return path


@pytest.mark.parametrize("name", ["volume.nii", "cut.nii", "slice.nii", "one.png", "y.npy"])
def test_half_widths_are_shown_where_they_belong(filler: Filler, tmp_path: Path, name: str) -> None:
    images = np.rint(255 * standin.corrupted_images()[3:5, 0, :, 8:56]).astype(np.uint8)
    images = images[:1] if name in ("cut.nii", "slice.nii", "one.png") else images
    np.save(tmp_path / "mask.npy", standin.course_mask()[:, 8:56])
    results = filler.fill([write(tmp_path / name, images)], tmp_path / "mask.npy")
    shown = view(*results.locate(len(images) - 1))
    results.remove()
    assert shown.half.shape == shown.before.shape
    hole = (shown.marked == HOLE).all(-1)
    assert hole.any() and (shown.half[hole].sum(-1) > shown.half[~hole].sum(-1).max()).all()
    assert len(np.unique(shown.half[~hole])) <= 3  # the colour of 0


@pytest.mark.parametrize("name", ["volume.nii.gz", "several.npz"])
def test_other_kinds_come_back_as_they_came(filler: Filler, name: str, tmp_path: Path) -> None:
    source, out = write(tmp_path / name, grey(4, 1000)), tmp_path / f"filled_{name}"
    results = filler.fill([source], quality="fast")
    fill_file(source, out, load_imputer(quality="fast"), progress=False)
    files = downloads(results)
    assert files["own"].name == name.replace(".", "_filled.", 1)
    assert files["own"].read_bytes() == out.read_bytes() and files["half"] is None
    with open_images(out) as expected:
        filled = expected.read(0, 4)
    assert np.array_equal(np.load(files["npy"]), filled) and filled.dtype == np.int16
    with zipfile.ZipFile(files["png"]) as archive:
        pixels = [np.asarray(Image.open(archive.open(member))) for member in archive.namelist()]
    assert np.array_equal(np.stack(pixels), np.rint(65535 / filled.max() * filled.astype(float)))
    results.remove()
    assert not list(filler.folder.iterdir())


def test_planes_of_volumes(filler: Filler, tmp_path: Path) -> None:
    """Slices that the page turns upright are those of the command; their half-widths too."""
    images = np.rint(1000 * standin.corrupted_images()[:5, 0, :40]).astype(np.int16)
    volume = np.moveaxis(images[:, ::-1], (0, 1, 2), (0, 2, 1))  # sagittal: right, front, up
    source, out, half = (tmp_path / name for name in ("scan.nii", "out.nii", "half.npy"))
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(source)
    fill_file(source, out, load_imputer(), progress=False, uncertainty=half, plane="sagittal")
    results = filler.fill([source], plane="sagittal")
    files = downloads(results)
    assert files["own"].read_bytes() == out.read_bytes()
    assert files["half"].read_bytes() == half.read_bytes()
    with open_images(out, plane="sagittal") as upright:
        assert np.array_equal(np.load(files["npy"]), upright.read(0, 5))
    shown = view(*results.locate(3))
    assert shown.before.shape == shown.half.shape == (8 * 40, 8 * 64, 3)
    report = results.items[0].report
    assert "sagittal" in report.plane and any("64×64" in note for note in report.notes)
    results.remove()


def test_several_files_and_pngs_at_once(filler: Filler, tmp_path: Path) -> None:
    images = grey(7)
    pngs = [write(tmp_path / f"{k}.png", images[k : k + 1]) for k in range(3)]
    npz = write(tmp_path / "rest.npz", images[3:])
    calls: list[tuple[int, int]] = []
    files = [pngs[2], npz, *pngs[:2]]
    results = filler.fill(files, quality="fast", tell=lambda *counts: calls.append(counts))
    assert calls == [(4, 7), (7, 7)]
    names = [item.name(index) for item, index in map(results.locate, (0, 3, 4, 6))]
    assert names == ["rest.npz", "rest.npz", "0.png", "2.png"]
    ready = downloads(results)
    with zipfile.ZipFile(ready["npy"]) as archive:
        assert archive.namelist() == ["rest_filled.npy", "PNGs_filled.npy"]
        filled = np.load(archive.open("PNGs_filled.npy"))
    with zipfile.ZipFile(ready["png"]) as archive:
        assert archive.namelist()[4:] == ["0.png", "1.png", "2.png"]
        assert np.array_equal(np.asarray(Image.open(archive.open("1.png"))), filled[1])
    shown = view(*results.locate(5))
    mask = standin.course_mask().repeat(8, 0).repeat(8, 1)
    assert (shown.marked[~mask] == HOLE).all() and shown.half is None
    assert np.array_equal(shown.marked[mask], shown.before[mask])
    assert np.array_equal(shown.after[mask], shown.before[mask])
    with pytest.raises(IndexError):
        results.locate(7)
    results.remove()


def test_messages_are_one_line_without_folders(
    filler: Filler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    good, twin = (write(tmp_path / name, grey(2)) for name in ("good.npz", "other/good.npz"))
    for name in ("text.png", "notes.txt"):
        (tmp_path / name).write_text("no picture")
    for name in ("wide.png", "photo.jpg"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    np.save(tmp_path / "mask.npy", np.ones((32, 32), bool))
    for files, mask, start in (
        ([], None, "no file, expected .npy, .npz, PNG or NIfTI, or one of the examples"),
        ([good, twin], None, "good.npz: was uploaded 2 times, expected files of different names"),
        (["text.png"], None, "text.png: "),
        (["wide.png"], None, "wide.png: "),
        ([good], tmp_path / "mask.npy", "mask.npy: has shape (1, 32, 32), expected (64, 64) or"),
        (["notes.txt"], None, "notes.txt: "),
        (["photo.jpg"], None, "photo.jpg: is .jpg, expected"),
    ):
        with pytest.raises(BadInput) as caught:
            filler.fill([tmp_path / file for file in files], mask, quality="fast")
        line = _line(caught.value)
        assert line.startswith(start) and "\n" not in line and str(tmp_path) not in line
    monkeypatch.setattr(uploads, "MOST_PIXELS", 2 * 64 * 64 - 1)
    with pytest.raises(BadInput, match=r"good\.npz: brings the pixels to 8,192, expected"):
        filler.fill([good])
    assert not list(filler.folder.iterdir()), "files of failed calls are left"


def test_a_damaged_calibration_is_refused_before_anything_is_uploaded(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "model")
    (tmp_path / "model/uncertainty.json").write_text("{}")
    with pytest.raises(BadInput, match="lacks numbers of a calibration"):
        Filler(tmp_path / "model", tmp_path)
