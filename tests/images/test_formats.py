"""One registry of formats crossed with what every reader must do; then what is special to each."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import IMAGES, NAMES, contents, load, refused, store, volume
from PIL import Image

from nogaps.images.formats import check_half_widths, check_output, kind_of, open_images
from nogaps.runtime.errors import BadInput

FORMATS = [*NAMES, "a.png"]  # the last holds one image


def images_of(name: str, images: np.ndarray = IMAGES) -> np.ndarray:
    return images[:1] if name == "a.png" else images


def copy(path: Path, output: Path) -> None:
    with open_images(path) as source:
        source.save(output, source.read(0, source.shape[0]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", FORMATS)
def test_copy_is_the_same(tmp_path: Path, name: str, dtype: type) -> None:
    images = images_of(name, IMAGES.astype(dtype))
    path, output = store(tmp_path / name, images), tmp_path / "out" / name
    before = contents(path)
    with open_images(path) as source:
        assert source.shape == images.shape and source.dtype == dtype
        assert source.kind == kind_of(name) and source.slices == len(images)
        assert np.array_equal(source.read(1, 3), images[1:3])
        assert np.array_equal(source.read(0, 99), images)
        assert np.array_equal(source.take([0, len(images) - 1, 0]), images[[0, -1, 0]])
    copy(path, output)
    first, copied = contents(output), load(output)
    assert copied.dtype == dtype and np.array_equal(copied, images)
    assert contents(path) == before and (first == before or name not in ("a.npy", "a.nii"))
    assert os.listdir(output.parent) == [name], "a temporary file was left behind"
    copy(path, output)  # over the earlier result
    assert contents(output) == first


@pytest.mark.parametrize("name", FORMATS)
def test_output_is_of_the_same_kind_and_another_file(tmp_path: Path, name: str) -> None:
    path, link = store(tmp_path / name, IMAGES), tmp_path / f"link{name}"
    link.symlink_to(path)
    others = [other for other in [*FORMATS, "b.zip"] if kind_of(other) != kind_of(name)]
    bad = {tmp_path / f"out{other}": "kind" for other in others}
    bad |= dict.fromkeys((path, tmp_path / "nowhere" / ".." / name, link), "input itself")
    if name == "a":
        (tmp_path / "b").write_text("a file")
        bad |= {tmp_path / "b": "is a file", path / "b": "inside", tmp_path: "inside"}
        bad[store(tmp_path / "c", IMAGES[[0] * 6])] = "other files"
    else:
        os.link(path, tmp_path / f"hard{name}")
        (tmp_path / f"folder{name}").mkdir()
        bad |= {tmp_path / f"hard{name}": "input itself", tmp_path / f"folder{name}": "is a folder"}
    with open_images(path) as source:
        for output, words in bad.items():
            assert words in refused(lambda output=output: check_output(source, output)), output


def test_half_widths_are_a_npy_outside_of_all_other_files(tmp_path: Path) -> None:
    path, folder = store(tmp_path / "a.npy", IMAGES), store(tmp_path / "a", IMAGES)
    (tmp_path / "b.npy").mkdir()
    for taken in (path, folder / "b.npy", tmp_path / "b.npy", tmp_path / "b.npz"):
        refused(lambda taken=taken: check_half_widths(taken, [path, folder]))
    check_half_widths(tmp_path / "c.npy", [path, folder, tmp_path / "absent.npy"])


@pytest.mark.parametrize("name", FORMATS)
def test_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 300, 300)).astype(np.uint8)
    path, old = store(tmp_path / name, noise), tmp_path / "out" / name
    old.parent.mkdir()
    before = contents(store(old, IMAGES))
    handler, limits = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_images(path) as source:
        images = source.read(0, 5)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # longer: no space
            with pytest.raises(BadInput, match="cannot be written"):
                source.save(old, images)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
    assert contents(old) == before and os.listdir(old.parent) == [name]


@pytest.mark.parametrize(
    ("shape", "advised"),
    [
        ((40, 40, 12), [(40, 1, 40, 12), (12, 1, 40, 40)]),
        ((40, 40, 40), [(40, 1, 40, 40)] * 2),
        ((64, 64, 20), [(64, 1, 64, 20), (20, 1, 64, 64)]),
        ((64, 64, 1), [(1, 1, 64, 64)]),
        ((64, 64, 3), [(3, 1, 64, 64)]),
        ((5, 64, 64, 1), [(5, 1, 64, 64)]),
        ((64, 2), []),
    ],
)
def test_the_advice_makes_images(tmp_path: Path, shape: tuple, advised: list[tuple]) -> None:
    y, path = np.zeros(shape, np.float32), tmp_path / "y.npz"
    np.savez(path, y)
    line = refused(lambda: open_images(path))
    assert f"has shape {shape}" in line
    code = r"(?:np\.moveaxis\(y, -1, [01]\)|\by)(?:\[:, None\])?(?=[ ,]|$)"
    fixes = [eval(text, {"np": np, "y": y}) for text in re.findall(code, line)]
    assert [fix.shape for fix in fixes] == advised
    for fix in fixes:
        np.savez(path, fix)
        assert load(path).shape == (fix.shape[0], *fix.shape[2:])


def test_nifti_of_a_negative_is_refused(tmp_path: Path) -> None:
    path = volume(tmp_path / "x.nii", IMAGES, scaling=(-1, 0))
    assert "scl_slope -1" in refused(lambda: open_images(path))


def test_nifti_without_nibabel_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(tmp_path / "a.nii", IMAGES)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert "pip install nogaps[nifti]" in refused(lambda: open_images(path))


def test_npz_keeps_what_else_it_holds(tmp_path: Path) -> None:
    other = np.array([{"a": 1}], object)  # pickled: copied, never loaded
    np.savez(tmp_path / "a.npz", images=IMAGES, other=other, mask=IMAGES[0] > 9)
    copy(tmp_path / "a.npz", tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as a, zipfile.ZipFile(tmp_path / "b.npz") as b:
        assert a.namelist() == b.namelist()
        assert all(a.read(name) == b.read(name) for name in a.namelist())


def test_png_folders_are_ordered_by_name_to_any_depth(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", IMAGES)
    (folder / "0.png").rename(folder / "z.PNG")
    for inner in ("p1", ".thumbs"):
        (folder / inner).mkdir()
    (folder / "2.png").rename(folder / "p1" / "2.png")
    Image.new("L", (2, 2)).save(folder / ".thumbs" / "0.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._1.png").write_text("what macOS leaves behind")
    assert np.array_equal(load(folder), IMAGES[[1, 3, 4, 2, 0]])
    copy(folder, tmp_path / "b")
    names = sorted(p.relative_to(tmp_path / "b").as_posix() for p in tmp_path.rglob("b/**/*.*"))
    assert names == ["1.png", "3.png", "4.png", "p1/2.png", "z.PNG"]
