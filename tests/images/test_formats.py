"""Readers and writers: any dtype, byte order and layout; damaged files are one line."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nogaps.images.formats import check_output, kind_of, open_images
from nogaps.runtime.files import BadInput, sha256

NAMES = ["a.npy", "a.npz", "a.nii", "a.nii.gz", "a"]
DTYPES = [np.dtype(c).newbyteorder(o) for c in "bBhHiIlLefd" for o in "<>"] + [np.dtype("g")]
PROPERTY = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
IMAGES = np.random.default_rng(0).integers(1, 60_000, (5, 8, 6)).astype(np.uint16)


def store(path: Path, images: np.ndarray) -> Path:
    """Write images (N,H,W) in the format that the name asks for."""
    kind = kind_of(path)
    if kind == "npy":
        np.save(path, images[:, None])
    elif kind == "npz":
        np.savez_compressed(path, images=images, age=np.arange(3))
    elif kind == "nifti":
        nib = pytest.importorskip("nibabel")
        data, affine = np.moveaxis(images, 0, -1), np.diag([1.5, 2, 3, 1])
        header = nib.Nifti1Header(endianness="<" if images.dtype.isnative else ">")
        nib.Nifti1Image(data, affine, header, dtype=images.dtype).to_filename(path)
    else:
        path.mkdir()
        for k, image in enumerate(images):
            Image.fromarray(image).save(path / f"{k}.png")
    return path


def load(path: Path) -> np.ndarray:
    with open_images(path) as source:
        return source.read(0, source.shape[0])


def contents(path: Path) -> dict[str, str]:
    return (
        {f.name: sha256(f) for f in sorted(path.iterdir())} if path.is_dir() else {"": sha256(path)}
    )


def copy(path: Path, output: Path, batch: int = 2) -> None:
    with open_images(path) as source, source.writing(output) as write:
        for start in range(0, source.shape[0], batch):
            write(start, source.read(start, start + batch))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "expected" in message and len(message) < 400
    return message


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", NAMES)
def test_copy_is_the_same(tmp_path: Path, name: str, dtype: type) -> None:
    images = IMAGES.astype(dtype)
    path, output = store(tmp_path / name, images), tmp_path / "out" / name
    before = contents(path)
    with open_images(path) as source:
        assert source.shape == (5, 8, 6) and source.dtype == dtype
        assert np.array_equal(source.read(1, 3), images[1:3])
    copy(path, output)
    found = load(output)
    assert found.dtype == dtype and np.array_equal(found, images)
    assert contents(path) == before
    if name in ("a.npy", "a.nii"):
        assert contents(output) == before
    assert os.listdir(output.parent) == [name], "a temporary file was left behind"
    first = contents(output)
    copy(path, output, batch=5)  # over the earlier result
    assert contents(output) == first


@PROPERTY
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(4, 6), (3, 4, 6), (3, 1, 4, 6), (1, 1, 4, 6), (2, 1, 1)]),
    order=st.sampled_from("CF"),
    name=st.sampled_from(["x.npy", "x.npz"]),
)
def test_arrays_of_any_type_and_layout(
    tmp_path: Path, dtype: np.dtype, shape: tuple, order: str, name: str
) -> None:
    values = np.random.default_rng(1).integers(0, 99, shape).astype(dtype, order=order)
    (np.save if name == "x.npy" else np.savez)(tmp_path / name, values)
    copy(tmp_path / name, tmp_path / f"y{name}")
    found = np.load(tmp_path / f"y{name}")
    found = found if name == "x.npy" else found["arr_0"]
    assert (found.dtype, found.shape) == (values.dtype, shape)
    assert np.array_equal(found, values)
    assert found.flags.f_contiguous == values.flags.f_contiguous
    assert (
        load(tmp_path / name).shape == (1, *shape) if len(shape) == 2 else (shape[0], *shape[-2:])
    )


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i2", "<u1", "<f8"])
def test_nifti_keeps_its_header_along_any_axis(tmp_path: Path, dtype: str, axis: int) -> None:
    nib = pytest.importorskip("nibabel")
    values = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    header = nib.Nifti1Header(endianness=dtype[0])
    header["descrip"] = b"kept"
    image = nib.Nifti1Image(values, np.diag([-2, 3, 4, 1]), header, dtype=values.dtype)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment"))
    image.to_filename(tmp_path / "x.nii")
    with open_images(tmp_path / "x.nii", axis) as source:
        moved = np.moveaxis(values, axis, 0)
        assert source.shape == moved.shape and source.dtype == np.dtype(dtype)
        assert np.array_equal(source.read(0, 9), moved)
        with source.writing(tmp_path / "y.nii.gz") as write:
            for k in reversed(range(len(moved))):
                write(k, source.read(k, k + 1))
    assert (
        gzip.decompress((tmp_path / "y.nii.gz").read_bytes()) == (tmp_path / "x.nii").read_bytes()
    )


def test_nifti_is_read_as_stored_and_says_what_zero_means(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti2Image(np.arange(24, dtype="i2").reshape(4, 6), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    image.to_filename(tmp_path / "x.nii")
    with open_images(tmp_path / "x.nii") as source:
        assert source.zero == -1024 and source.dtype == np.int16
        assert np.array_equal(
            source.read(0, 1), nib.load(tmp_path / "x.nii").dataobj.get_unscaled()[None]
        )


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


def test_png_folder_is_ordered_by_name(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", IMAGES)
    (folder / "0.png").rename(folder / "z.PNG")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._1.png").write_text("what macOS leaves behind")
    assert np.array_equal(load(folder), IMAGES[[1, 2, 3, 4, 0]])
    copy(folder, tmp_path / "b")
    assert sorted(os.listdir(tmp_path / "b")) == ["1.png", "2.png", "3.png", "4.png", "z.PNG"]


def output_error(source: Path, output: Path) -> str:
    with open_images(source) as images:
        return refused(lambda: check_output(images, output))


@pytest.mark.parametrize("name", NAMES)
def test_output_is_of_the_same_kind_and_another_file(tmp_path: Path, name: str) -> None:
    path = store(tmp_path / name, IMAGES)
    others = [n for n in [*NAMES, "b.png", "b.zip"] if kind_of(n) != kind_of(name)]
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


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_writing_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    path = store(tmp_path / name, IMAGES)
    (tmp_path / "out").mkdir()
    old = store(tmp_path / "out" / name, IMAGES[::-1])
    before = contents(old)
    with (
        pytest.raises(KeyboardInterrupt),
        open_images(path) as source,
        source.writing(old) as write,
    ):
        write(0, source.read(0, 2))
        raise KeyboardInterrupt
    assert contents(old) == before and os.listdir(tmp_path / "out") == [name]


@pytest.mark.parametrize("name", NAMES)
def test_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 300, 300)).astype(np.uint8)
    path = store(tmp_path / name, noise)
    (tmp_path / "out").mkdir()
    program = """
import resource, signal, sys
from nogaps.runtime.files import BadInput
from nogaps.images.formats import open_images
with open_images(sys.argv[1]) as source:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # any longer file: no space
    try:
        with source.writing(sys.argv[2]) as write:
            write(0, source.read(0, 5))
    except BadInput as error:
        print(error)
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "out" / name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout and done.stdout.count("\n") == 1
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_unreadable_and_unwritable_places(tmp_path: Path) -> None:
    path = store(tmp_path / "a.npy", IMAGES)
    locked = tmp_path / "locked"
    locked.mkdir(0o500)
    with open_images(path) as source:
        refused(lambda: source.writing(locked / "b.npy").__enter__())
    path.chmod(0)
    refused(lambda: open_images(path))
