"""Damaged, hostile and huge files: a right answer or one line, in little memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import make_imputer
from image_files import IMAGES, load, refused, store
from mutators import png_of
from PIL import Image

from nogaps.images import arrays
from nogaps.images.arrays import open_npy
from nogaps.images.formats import open_images
from nogaps.images.npz import load_npz
from nogaps.imputers.loading import WEIGHTS, load_imputer
from nogaps.prior.frames.heads import read_index
from nogaps.prior.frames.prepare import prepare_images
from nogaps.prior.loading import load_prior
from nogaps.runtime.checkpoint import load_tensors, save_tensors
from nogaps.runtime.files import load_images, load_json, load_npy

Write, Patch = Callable[[Path], object], pytest.MonkeyPatch
LITTLE = 48 << 20


def npy(values: object) -> Write:
    return lambda path: np.save(path, np.asarray(values))


def content(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def png(image: Image.Image | np.ndarray) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "PNG")
    return file.getvalue()


def folder(*pngs: bytes) -> Write:
    def write(path: Path) -> None:
        path.mkdir()
        for k, data in enumerate(pngs):
            (path / f"{k}.png").write_bytes(data)

    return write


def shaped(shape: str, length: int | None = None) -> bytes:
    """Return the start of a .npy of float32; its header may claim another length."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
    size = len(text) + 1 if length is None else length
    return b"\x93NUMPY\x02\x00" + size.to_bytes(4, "little") + text.encode() + b"\n"


def packed(data: bytes, told: int | None = None, method: int = zipfile.ZIP_STORED) -> Write:
    """Write an archive of a .npy; it may claim that this has another number of bytes."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("images.npy", data)
        sizes = [struct.pack("<I", size) for size in (len(data), told or len(data))]
        path.write_bytes(path.read_bytes().replace(*sizes))

    return write


def cut(keep: float) -> Write:
    def write(path: Path) -> None:
        whole = store(path.parent / f"whole{path.name}", IMAGES).read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return write


GREY, TEXT = IMAGES[0].astype(np.uint8), b"hello\n" * 99
TWO = shaped("(2, 8, 8)") + bytes(2 * 4 * 64)  # images
BAD: dict[str, list[Write]] = {  # the files that a name cannot be
    "a.jpg": [content(b"jpg")],
    "a.png": [content(TEXT)],
    "a.npy": [
        lambda path: None,
        os.mkfifo,
        *map(content, (b"", TEXT, pickle.dumps([1, 2]))),
        npy([[{}, 1]]),
        *(npy(np.zeros(shape)) for shape in ((0, 1, 8, 8), 8, (), (2, 3, 8, 8), (1, 1, 1, 8, 8))),
        *(npy(np.zeros((2, 8, 8), kind)) for kind in (complex, bool, "M8[s]", [("x", "f4")])),
        npy([["a", "b"]]),
        cut(0.6),
        content(TWO + b"x"),
        *(content(shaped(shape) + bytes(64)) for shape in ("(2, 2)", f"({10**18}, 8)", "(-4, -4)")),
    ],
    "a.npz": [
        content(TEXT),
        lambda path: np.savez(path, a=IMAGES, b=IMAGES),
        lambda path: np.savez(path),
        lambda path: np.savez(path, images=np.array([[{}]], object)),
        packed(TWO.replace(b"(2", b"(1")),  # two images, of which one is declared
        *(packed(TWO, told) for told in (10, 4 * 64, len(TWO) + 1, 2**31)),
        cut(0.6),
    ],
    "a.nii": [
        content(TEXT),
        *(cut(keep) for keep in (0.9, 0.3)),
        lambda path: store(path, np.zeros(5, np.int16)),
        lambda path: store(path, np.zeros((3, 4, 5), np.complex64)),
    ],
    "a.nii.gz": [content(TEXT), content(gzip.compress(TEXT)), cut(0.6)],
    "a": [
        lambda path: None,
        folder(),
        folder(png(GREY), png(GREY[:2])),
        folder(png(GREY), png(IMAGES[0])),
        *(folder(png(Image.new(mode, (6, 8)))) for mode in ("RGB", "LA", "P", "1")),
        folder(TEXT),
        folder(b""),
        folder(png(GREY)[:-16] + bytes(4) + png(GREY)[-12:]),  # another checksum of the pixels
        lambda path: (path / "0.png").mkdir(parents=True),
    ],
}


@pytest.mark.parametrize(
    ("name", "case"), [(name, k) for name, writes in BAD.items() for k in range(len(writes))]
)
def test_bad_file_is_one_line(tmp_path: Path, name: str, case: int) -> None:
    BAD[name][case](tmp_path / name)
    assert refused(lambda: load(tmp_path / name)).startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.npz", "a.nii.gz"])
def test_unpacked_files_have_a_limit(tmp_path: Path, name: str, monkeypatch: Patch) -> None:
    path = store(tmp_path / name, np.zeros((200, 99, 99), np.uint8))
    monkeypatch.setattr(arrays, "LIMIT", 1_000_000)
    assert "unpacks" in refused(lambda: load(path))


def test_mask_of_bytes_that_are_not_bool(tmp_path: Path) -> None:
    """numpy and torch disagree on what a byte of 91 means as a bool."""
    path = tmp_path / "a.npy"
    np.save(path, np.ones((8, 6), bool))
    path.write_bytes(path.read_bytes()[:-1] + bytes([91]))
    with open_npy(path, kinds="b") as mask:
        assert "not bool" in refused(lambda: mask.read(0, 1))


def test_float64_that_float32_takes_for_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((1, 1, 8, 6), 1e-60))
    assert "below 1e-45" in refused(lambda: load_images(tmp_path / "a.npy"))


def sparse(start: bytes, size: int) -> Write:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            file.write(start)
            file.truncate(size)

    return write


def square(side: int) -> Write:
    start = shaped(f"(1, 1, {side}, {side})")
    return sparse(start, len(start) + 4 * side * side)


def zeros(method: int, told: int | None = None) -> Write:
    """Write an archive of 96 MiB of zeros; see `packed`."""
    return lambda path: packed(shaped("(24, 1, 1024, 1024)") + bytes(96 << 20), told, method)(path)


def large_png(path: Path) -> None:
    fields = struct.pack(">IIBBBBB", 1 << 15, 1 << 15, 8, 0, 0, 0, 0)
    row = zlib.compress(bytes((1 << 15) + 1))
    folder(png_of((b"IHDR", fields), (b"IDAT", row), (b"IEND", b"")))(path)


def read_still(path: Path) -> None:
    prepare_images([path], path.parent / "o.npz", "8")


HUGE: dict[str, tuple[str, Write, Callable[[Path], object]]] = {
    "image": ("a.npy", square(1 << 20), open_images),
    "array": ("a.npy", square(1 << 20), load_images),
    "header": ("a.npy", sparse(shaped("(1, 1)", length=1 << 31), 1 << 33), load_npy),
    "shape without values": ("a.npy", sparse(shaped(f"({10**9}, 8)"), 200), load_npy),
    "shape that wraps": ("a.npy", sparse(shaped(f"({2**32}, {2**32})"), 200), load_npy),
    "zip that lies": ("a.npz", zeros(zipfile.ZIP_DEFLATED, 999), open_images),
    "bzip2": ("a.npz", zeros(zipfile.ZIP_BZIP2), open_images),
    "bzip2 that lies": ("a.npz", zeros(zipfile.ZIP_BZIP2, 999), load_npz),
    "png": ("a", large_png, open_images),
    "still": ("a", large_png, read_still),
    "json": ("a.json", sparse(b'{"a": "', 1 << 40), load_json),
    "csv": ("a.csv", sparse(b"source_file,", 1 << 40), read_index),
    "safetensors": ("a.safetensors", sparse(bytes(5) + b"\1" + bytes(2), 1 << 41), load_tensors),
}


def memory(name: str) -> int:
    """Return VmRSS, bytes of memory in use, or VmHWM, the most since the last reset."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Fail if more than LITTLE is taken at once."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here
    except OSError:
        pytest.skip("the most memory used cannot be told here")
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < LITTLE


@pytest.mark.parametrize("case", list(HUGE))
def test_huge_files_are_one_line_in_little_memory(tmp_path: Path, case: str) -> None:
    name, write, read = HUGE[case]
    write(tmp_path / name)
    with little_memory():
        assert refused(lambda: read(tmp_path / name)).startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.npy", "a"])
def test_images_are_saved_in_little_memory(tmp_path: Path, name: str) -> None:
    place, shape = (tmp_path / "images.raw", np.uint8), (4, 4096, 4096)
    store(tmp_path / name, np.memmap(*place, "w+", 0, shape))
    mapped = np.memmap(*place, "r", 0, shape)
    with open_images(tmp_path / name) as source, little_memory():
        source.save(tmp_path / f"out{name}", mapped)


def test_files_beyond_the_memory_can_be_mapped(tmp_path: Path) -> None:
    square(1 << 16)(tmp_path / "a.npy")
    assert load_npy(tmp_path / "a.npy", mmap=True).shape == (1, 1, 1 << 16, 1 << 16)
    assert "at most" in refused(lambda: load_npy(tmp_path / "a.npy"))


def test_a_network_is_never_larger_than_its_file(tmp_path: Path) -> None:
    """The config in a weights file asks for terabytes, or for modules without end."""
    make_imputer(tmp_path)
    tensors, config = load_tensors(path := tmp_path / WEIGHTS)
    network = config["networks"][0]
    for change in ({"lag": 10**6}, {"widths": [1] * 9**5}, {"widths": "ab"}, {"bottleneck": 2**62}):
        save_tensors(path, tensors, {"networks": [{**network, **change}, network]})
        with little_memory():
            assert "do not fit" in refused(lambda: load_imputer(tmp_path)), change
    for networks in ([], None, [network] * 3, "x"):
        save_tensors(path, tensors, {"networks": networks})
        assert refused(lambda: load_imputer(tmp_path)).startswith(str(path))
    nan = {name: t * float("nan") if t.is_floating_point() else t for name, t in tensors.items()}
    save_tensors(path, nan, config)
    assert "NaN" in refused(lambda: load_imputer(tmp_path))


CHANGES: dict[str, list[dict]] = {
    "vqvae/config.json": [
        {"block_out_channels": [10**6] * 4},
        {"layers_per_block": 10**7},
        {"norm_num_groups": 0},
        {"_class_name": ["AutoencoderKL"]},
        {"_class_name": "VQVAE2", "num_codes": 10**9},
        {"_class_name": "VQVAE2", "blocks": 10**7},
    ],
    "scheduler/scheduler_config.json": [
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": True},
        {"trained_betas": [0.1]},
        {"trained_betas": [10**400] * 1000},
        {"beta_schedule": "linear", "beta_end": float("nan")},
        {"beta_schedule": []},
    ],
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_prior_is_as_small_as_its_files(tmp_path: Path, prior_folder: Path, part: str) -> None:
    shutil.copytree(prior_folder, tmp_path / "p")
    path = tmp_path / "p" / part
    config = json.loads(path.read_text())
    for change in CHANGES[part]:
        path.write_text(json.dumps({**config, **change}))
        with little_memory():
            message = refused(lambda: load_prior(tmp_path / "p"))
        assert str(path.parent) in message, change
        assert ("noise levels" in message) == part.startswith("scheduler"), change
