"""One registry of formats crossed with what every reader must do; then what is special to each."""

from __future__ import annotations

import gzip
import os
import re
import resource
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import IMAGES, NAMES, contents, load, refused, store
from PIL import Image

from nogaps import fill
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
    copied = load(output)
    assert copied.dtype == dtype and np.array_equal(copied, images)
    assert contents(path) == before
    if name in ("a.npy", "a.nii"):
        assert contents(output) == before
    assert os.listdir(output.parent) == [name], "a temporary file was left behind"
    first = contents(output)
    copy(path, output)  # over the earlier result
    assert contents(output) == first


def output_error(source: Path, output: Path) -> str:
    with open_images(source) as images:
        return refused(lambda: check_output(images, output))


@pytest.mark.parametrize("name", FORMATS)
def test_output_is_of_the_same_kind_and_another_file(tmp_path: Path, name: str) -> None:
    path = store(tmp_path / name, IMAGES)
    others = [n for n in [*FORMATS, "b.zip"] if kind_of(n) != kind_of(name)]
    for other in others:
        assert "kind" in output_error(path, tmp_path / f"out{other}")
    (tmp_path / f"link{name}").symlink_to(path)
    for same in (path, tmp_path / "nowhere" / ".." / name, tmp_path / f"link{name}"):
        assert "input itself" in output_error(path, same)
    if name == "a":
        (tmp_path / "b").write_text("a file")
        assert "is a file" in output_error(path, tmp_path / "b")
        assert "inside" in output_error(path, path / "b")
        assert "inside" in output_error(path, tmp_path)
        assert "other files" in output_error(path, store(tmp_path / "c", IMAGES[[0] * 6]))
    else:
        os.link(path, tmp_path / f"hard{name}")
        assert "input itself" in output_error(path, tmp_path / f"hard{name}")
        (tmp_path / f"folder{name}").mkdir()
        assert "is a folder" in output_error(path, tmp_path / f"folder{name}")


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


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
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
def test_the_advice_makes_images(
    tmp_path: Path, name: str, shape: tuple[int, ...], advised: list[tuple[int, ...]]
) -> None:
    y = np.zeros(shape, np.float32)
    path = tmp_path / name
    (np.save if path.suffix == ".npy" else np.savez)(path, y)
    line = refused(lambda: open_images(path))
    assert f"has shape {shape}" in line
    fixes = [
        eval(text, {"np": np, "y": y})
        for text in re.findall(
            r"(?:np\.moveaxis\(y, -1, [01]\)|\by)(?:\[:, None\])?(?=[ ,]|$)", line
        )
    ]
    assert [fix.shape for fix in fixes] == advised
    for fix in fixes:
        (np.save if path.suffix == ".npy" else np.savez)(path, fix)
        with open_images(path) as source:
            assert source.shape == (fix.shape[0], *fix.shape[2:])


def test_arrays_in_memory_are_asked_the_same() -> None:
    line = refused(lambda: fill(np.zeros((64, 64, 40), np.float32)))
    assert "does not tell whether the images come first or last" in line


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i2", "<u1", "<f8"])
def test_nifti_keeps_its_header(tmp_path: Path, dtype: str) -> None:
    nib = pytest.importorskip("nibabel")
    values = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    header = nib.Nifti1Header(endianness=dtype[0])
    header["descrip"] = b"kept"
    image = nib.Nifti1Image(values, np.diag([-2, 3, 4, 1]), header, dtype=values.dtype)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment"))
    image.to_filename(tmp_path / "x.nii")
    with open_images(tmp_path / "x.nii") as source:
        moved = np.moveaxis(values, -1, 0)
        assert source.shape == moved.shape and source.dtype == np.dtype(dtype)
        assert np.array_equal(source.read(0, 9), moved)
        source.save(tmp_path / "y.nii.gz", source.read(0, 9))
    whole = (tmp_path / "x.nii").read_bytes()
    assert gzip.decompress((tmp_path / "y.nii.gz").read_bytes()) == whole


def test_nifti_is_read_as_stored_and_says_what_zero_means(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti2Image(np.arange(24, dtype="i2").reshape(4, 6), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    image.to_filename(tmp_path / "x.nii")
    stored = nib.load(tmp_path / "x.nii").dataobj.get_unscaled()
    with open_images(tmp_path / "x.nii") as source:
        assert source.zero == -1024 and source.dtype == np.int16
        assert np.array_equal(source.read(0, 1), stored[None])
    image.header.set_slope_inter(-1, 0)
    image.to_filename(tmp_path / "x.nii")
    assert "scl_slope -1" in refused(lambda: open_images(tmp_path / "x.nii"))


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_unreadable_and_unwritable_places(tmp_path: Path) -> None:
    path = store(tmp_path / "a.npy", IMAGES)
    locked = tmp_path / "locked"
    locked.mkdir(0o500)
    with open_images(path) as source:
        refused(lambda: source.save(locked / "b.npy", IMAGES))
    path.chmod(0)
    refused(lambda: open_images(path))
