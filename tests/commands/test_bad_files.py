"""Damaged and hostile image files: a right answer or one line, never a traceback or a hang."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_files import IMAGES, load, refused, store
from PIL import Image

from nogaps.images import arrays as array_files
from nogaps.images.arrays import open_npy
from nogaps.prior.frames.prepare import prepare_images
from nogaps.runtime.files import load_images


def nifti(values: np.ndarray) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        nib = pytest.importorskip("nibabel")
        nib.Nifti1Image(values, np.eye(4)).to_filename(path)

    return write


def png(*images: Image.Image | np.ndarray | bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.mkdir()
        for k, image in enumerate(images):
            if isinstance(image, bytes):
                (path / f"{k}.png").write_bytes(image)
            else:
                image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
                image.save(path / f"{k}.png")

    return write


def npy(values: object, **kwargs: object) -> Callable[[Path], object]:
    return lambda path: np.save(path, np.asarray(values), **kwargs)


def npz(**arrays: object) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **arrays)


def hostile(header: str) -> Callable[[Path], object]:
    text = header.encode() + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
    return lambda path: path.write_bytes(start + text + bytes(64))


def truncated(name: str, keep: float) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        whole = store(path.parent / f"whole{name}", IMAGES).read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return write


GREY, SMALL = IMAGES[0].astype(np.uint8), np.zeros((2, 3), np.uint8)
BAD: dict[str, tuple[str, Callable[[Path], object]]] = {
    "absent": ("a.npy", lambda path: None),
    "absent folder": ("a", lambda path: None),
    "unknown kind": ("a.jpg", lambda path: path.write_bytes(b"jpg")),
    "one png of text": ("a.png", lambda path: path.write_text("hello" * 20)),
    "pipe": ("a.npy", os.mkfifo),
    "empty file": ("a.npy", lambda path: path.write_bytes(b"")),
    "text": ("a.npy", lambda path: path.write_text("hello\n" * 9)),
    "pickle": ("a.npy", lambda path: path.write_bytes(pickle.dumps([1, 2]))),
    "objects": ("a.npy", npy(np.array([[{}, 1]], object), allow_pickle=True)),
    "no images": ("a.npy", npy(np.zeros((0, 1, 8, 8)))),
    "one axis": ("a.npy", npy(np.zeros(8))),
    "scalar": ("a.npy", npy(1.0)),
    "colour axis": ("a.npy", npy(np.zeros((2, 3, 8, 8)))),
    "five axes": ("a.npy", npy(np.zeros((1, 1, 1, 8, 8)))),
    "complex": ("a.npy", npy(np.zeros((2, 8, 8), complex))),
    "bool": ("a.npy", npy(np.zeros((2, 8, 8), bool))),
    "strings": ("a.npy", npy([["a", "b"]])),
    "dates": ("a.npy", npy(np.zeros((2, 2), "M8[s]"))),
    "structured": ("a.npy", npy(np.zeros((2, 2), [("x", "f4")]))),
    "truncated": ("a.npy", truncated("a.npy", 0.6)),
    "trailing": ("a.npy", hostile("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}")),
    "huge": (
        "a.npy",
        hostile(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**18}, 8)}}"),
    ),
    "negative": ("a.npy", hostile("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4)}")),
    "subarray": (
        "a.npy",
        hostile("{'descr': ('<f4', (4,)), 'fortran_order': False, 'shape': (2, 2)}"),
    ),
    "code": ("a.npy", hostile("__import__('os').abort()")),
    "nested": ("a.npy", hostile("-" * 5000 + "1")),
    "npz text": ("a.npz", lambda path: path.write_text("hello")),
    "npz two": ("a.npz", npz(a=IMAGES, b=IMAGES)),
    "npz none": ("a.npz", npz()),
    "npz objects": ("a.npz", npz(images=np.array([[{}]], object))),
    "npz truncated": ("a.npz", truncated("a.npz", 0.6)),
    "nii text": ("a.nii", lambda path: path.write_text("hello" * 99)),
    "nii.gz text": ("a.nii.gz", lambda path: path.write_text("hello" * 99)),
    "nii.gz of text": ("a.nii.gz", lambda path: path.write_bytes(gzip.compress(b"hello" * 99))),
    "nii.gz not packed": (
        "a.nii.gz",
        lambda path: store(path.with_suffix(""), IMAGES).rename(path),
    ),
    "nii truncated": ("a.nii", truncated("a.nii", 0.9)),
    "nii header only": ("a.nii", truncated("a.nii", 0.3)),
    "nii.gz truncated": ("a.nii.gz", truncated("a.nii.gz", 0.6)),
    "nii of one axis": ("a.nii", nifti(np.zeros(5, np.int16))),
    "nii complex": ("a.nii", nifti(np.zeros((3, 4, 5), np.complex64))),
    "png none": ("a", lambda path: path.mkdir()),
    "png sizes": ("a", png(GREY, SMALL)),
    "png depths": ("a", png(GREY, IMAGES[0])),
    "png colour": ("a", png(Image.new("RGB", (6, 8)))),
    "png alpha": ("a", png(Image.new("LA", (6, 8)))),
    "png palette": ("a", png(Image.new("P", (6, 8)))),
    "png one bit": ("a", png(Image.new("1", (6, 8)))),
    "png text": ("a", png(b"hello" * 20)),
    "png empty": ("a", png(b"")),
    "png folder": ("a", lambda path: (path / "0.png").mkdir(parents=True)),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_file_is_one_line(tmp_path: Path, case: str) -> None:
    name, write = BAD[case]
    write(tmp_path / name)
    assert refused(lambda: load(tmp_path / name)).startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.npz", "a.nii.gz"])
def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(tmp_path / name, np.zeros((200, 99, 99), np.uint8))
    monkeypatch.setattr(array_files, "LIMIT", 1_000_000)
    assert "unpacks" in refused(lambda: load(path))


def test_archive_that_lies_about_its_sizes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES)
    whole = (tmp_path / "a.npz").read_bytes()
    size = struct.pack("<I", IMAGES.nbytes + 128)
    assert whole.count(size) >= 2
    for lie in (10, IMAGES.nbytes, IMAGES.nbytes + 129, 2**31):
        (tmp_path / "a.npz").write_bytes(whole.replace(size, struct.pack("<I", lie)))
        refused(lambda: load(tmp_path / "a.npz"))


def test_png_with_changed_pixels_fails_its_checksum(tmp_path: Path) -> None:
    path = store(tmp_path / "a", IMAGES[:1]) / "0.png"
    whole = path.read_bytes()
    at = whole.index(b"IDAT")
    length = int.from_bytes(whole[at - 4 : at], "big")
    pixels = bytearray(zlib.decompress(whole[at + 4 : at + 4 + length]))
    pixels[5] ^= 1
    chunk = zlib.compress(bytes(pixels), 0)
    start, end = whole[: at - 4] + struct.pack(">I", len(chunk)), whole[at + 4 + length :]
    path.write_bytes(start + b"IDAT" + chunk + end)  # with the old checksum
    assert "damaged" in refused(lambda: load(tmp_path / "a"))


def test_mask_of_bytes_that_are_no_bool(tmp_path: Path) -> None:
    """numpy and torch disagree on what a byte of 91 means as a bool."""
    np.save(tmp_path / "a.npy", np.ones((8, 6), bool))
    data = bytearray((tmp_path / "a.npy").read_bytes())
    data[-5] = 91
    (tmp_path / "a.npy").write_bytes(data)
    with open_npy(tmp_path / "a.npy", kinds="b") as mask:
        assert "not bool" in refused(lambda: mask.read(0, 1))


def test_voxels_without_a_size(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(np.arange(8, dtype=np.uint8).reshape(1, 1, 8), None)
    image.header.set_sform(np.diag([0, 1, 1, 1]), 2)
    image.to_filename(tmp_path / "a.nii")
    make = partial(prepare_images, [tmp_path / "a.nii"], tmp_path / "o.npz", "8", "pad", "coronal")
    assert "voxels of 1×0" in refused(make)


def test_float64_that_float32_takes_for_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((1, 1, 8, 6), 1e-60))
    assert "below 1e-45" in refused(lambda: load_images(tmp_path / "a.npy"))
