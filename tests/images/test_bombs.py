"""Files that unpack to far more, or say that they hold far more: one line, in little memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import make_imputer
from image_files import IMAGES, refused, store
from PIL import Image

from nogaps.images.formats import open_images
from nogaps.images.npz import load_npz
from nogaps.imputers.loading import WEIGHTS, load_imputer
from nogaps.prior.frames.heads import read_index
from nogaps.prior.frames.prepare import prepare_images
from nogaps.prior.loading import load_prior
from nogaps.runtime.checkpoint import load_tensors, save_tensors
from nogaps.runtime.files import IN_MEMORY, load_images, load_json, load_npy

LITTLE = 48 << 20


def header(shape: str, descr: str = "<f4", length: int | None = None, version: int = 1) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 * version, "little") + text


def sparse(path: Path, start: bytes, size: int) -> Path:
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)
    return path


def bomb_npy(path: Path, side: int) -> Path:
    start = header(f"(1, 1, {side}, {side})")
    return sparse(path, start, len(start) + 4 * side * side)


def zip_bomb(path: Path, method: int, lie: int | None) -> Path:
    """An archive of 96 MiB of zeros that says, if asked to, that they are `lie` bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive, archive.open("images.npy", "w") as member:
        member.write(header("(24, 1, 1024, 1024)"))
        for _ in range(96):
            member.write(bytes(1 << 20))
    whole = data.getvalue()
    if lie is not None:
        size = (96 << 20) + len(header("(24, 1, 1024, 1024)"))
        whole = whole.replace(struct.pack("<I", size), struct.pack("<I", lie))
    path.write_bytes(whole)
    return path


def png_bomb(folder: Path, side: int, rows: int) -> Path:
    """A PNG of side×side pixels, of which `rows` are there."""
    pack = zlib.compressobj(9)
    packed = b"".join(pack.compress(bytes(side + 1)) for _ in range(rows)) + pack.flush()
    fields = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    folder.mkdir()
    with open(folder / "a.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", fields), (b"IDAT", packed), (b"IEND", b"")):
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            file.write(struct.pack(">I", len(data)) + kind + data + checksum)
    return folder


def gzip_bomb(path: Path) -> Path:
    """A NIfTI that says it is small, with 96 MiB of zeros after it."""
    nib = pytest.importorskip("nibabel")
    nib.Nifti1Image(IMAGES, np.eye(4)).to_filename(path.with_suffix(""))
    with gzip.open(path, "wb", 1) as file:
        file.write(path.with_suffix("").read_bytes())
        for _ in range(96):
            file.write(bytes(1 << 20))
    return path


def big_json(path: Path) -> Path:
    return sparse(path, b'{"a": "', 1 << 40)


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "sparse image": (lambda at: bomb_npy(at / "a.npy", 1 << 20), open_images),
    "sparse array": (lambda at: bomb_npy(at / "a.npy", 1 << 20), load_images),
    "long header": (
        lambda at: sparse(at / "a.npy", header("(1, 1)", length=1 << 31, version=2), 1 << 33),
        load_npy,
    ),
    "header of 100 MB": (
        lambda at: sparse(at / "a.npy", header("(1, 1)", length=10**8, version=2), 10**9),
        open_images,
    ),
    "shape without values": (
        lambda at: sparse(at / "a.npy", header(f"({10**9}, 8)"), 200),
        load_npy,
    ),
    "shape that wraps": (
        lambda at: sparse(at / "a.npy", header(f"({2**32}, {2**32})"), 200),
        load_npy,
    ),
    "zip that lies": (lambda at: zip_bomb(at / "a.npz", zipfile.ZIP_DEFLATED, 999), open_images),
    "bzip2": (lambda at: zip_bomb(at / "a.npz", zipfile.ZIP_BZIP2, None), open_images),
    "bzip2 that lies": (lambda at: zip_bomb(at / "a.npz", zipfile.ZIP_BZIP2, 999), load_npz),
    "lzma": (lambda at: zip_bomb(at / "a.npz", zipfile.ZIP_LZMA, 999), open_images),
    "gzip": (lambda at: gzip_bomb(at / "a.nii.gz"), open_images),
    "png too large": (lambda at: png_bomb(at / "a", 1 << 15, 1), open_images),
    "still too large": (
        lambda at: png_bomb(at / "a", 1 << 15, 1),
        lambda path: prepare_images([path], path.parent / "o.npz", "8"),
    ),
    "json": (lambda at: big_json(at / "a.json"), load_json),
    "csv": (lambda at: sparse(at / "a.csv", b"source_file,", 1 << 40), read_index),
    "safetensors": (
        lambda at: sparse(at / "a.safetensors", (1 << 40).to_bytes(8, "little"), 1 << 41),
        load_tensors,
    ),
}


def memory(name: str) -> int:
    """VmRSS, bytes that this process has in memory now, or VmHWM, the most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Fails if more than LITTLE is taken at once."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here
    except OSError:
        pytest.skip("the most memory used cannot be told here")
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < LITTLE


@pytest.mark.parametrize("name", list(READERS))
def test_bombs_are_one_line_in_little_memory(tmp_path: Path, name: str) -> None:
    make, read = READERS[name]
    path = make(tmp_path)
    with little_memory():
        assert refused(lambda: read(path)).startswith(str(path))


def test_files_beyond_the_memory_can_be_mapped(tmp_path: Path) -> None:
    path = bomb_npy(tmp_path / "a.npy", 1 << 16)
    assert path.stat().st_size > IN_MEMORY
    assert load_npy(path, mmap=True).shape == (1, 1, 1 << 16, 1 << 16)
    assert "at most" in refused(lambda: load_npy(path))


def test_a_network_is_never_larger_than_its_file(tmp_path: Path) -> None:
    """The config in a weights file asks for terabytes, or for modules without end."""
    make_imputer(tmp_path)
    tensors, config = load_tensors(tmp_path / WEIGHTS)
    one = config["networks"][0]
    for change in (
        {"lag": 10**6},
        {"lag": 20_000},
        {"widths": [10**6, 10**6]},
        {"widths": [1] * 10**5},
        {"bottleneck": 30_000},
        {"bottleneck": 2**62},
        {"bottleneck_dropout": 2},
        {"widths": []},
        {"widths": "ab"},
    ):
        save_tensors(tmp_path / WEIGHTS, tensors, {"networks": [{**one, **change}, one]})
        with little_memory():
            assert "do not fit" in refused_weights(tmp_path), change
    for networks in ([], {}, None, [one] * 3, [one], [None], "x"):
        save_tensors(tmp_path / WEIGHTS, tensors, {"networks": networks})
        refused_weights(tmp_path)
    nan = {name: t * float("nan") if t.is_floating_point() else t for name, t in tensors.items()}
    save_tensors(tmp_path / WEIGHTS, nan, config)
    assert "NaN" in refused_weights(tmp_path)


def refused_weights(folder: Path) -> str:
    with pytest.raises(Exception) as caught:
        load_imputer(folder)
    assert type(caught.value).__name__ == "BadInput" and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder / WEIGHTS))
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": [10**6] * 4},
        {"layers_per_block": 10**7},
        {"block_out_channels": []},
        {"norm_num_groups": 0},
        {"latent_channels": 1 << 20},
        {"_class_name": ["AutoencoderKL"]},
        {"_class_name": "PixelSpace", "factor": 1 << 30},
        {"_class_name": "PixelSpace", "factor": 256},
        {"_class_name": "VQVAE2", "num_codes": 10**9},
        {"_class_name": "VQVAE2", "blocks": 10**7},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_prior_is_never_larger_than_its_files(
    tmp_path: Path, prior_folder: Path, change: dict
) -> None:
    shutil.copytree(prior_folder, tmp_path / "p")
    path = tmp_path / "p" / "vqvae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with little_memory():
        assert str(path.parent) in refused(lambda: load_prior(tmp_path / "p"))


@pytest.mark.parametrize(
    "change",
    [
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": True},
        {"trained_betas": [10**400] * 1000},
        {"trained_betas": [0.1]},
        {"beta_end": float("nan")},
        {"beta_schedule": []},
    ],
    ids=lambda change: next(iter(change)),
)
def test_noise_levels_that_cannot_be(tmp_path: Path, prior_folder: Path, change: dict) -> None:
    shutil.copytree(prior_folder, tmp_path / "p")
    path = tmp_path / "p" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert "noise levels" in refused(lambda: load_prior(tmp_path / "p"))


def test_a_folder_of_pngs_keeps_its_images(tmp_path: Path) -> None:
    """Interlaced, in several chunks, with a gamma: what is whole is read."""
    path = store(tmp_path / "a", IMAGES[:2])
    whole = (path / "0.png").read_bytes()
    with Image.open(path / "0.png") as picture:
        pixels = np.asarray(picture)
    at = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[at : at + 4], "big")
    data, chunks = whole[at + 8 : at + 8 + length], b""
    for kind, part in ((b"gAMA", struct.pack(">I", 45455)), (b"IDAT", data[:9]), (b"IDAT", b"")):
        chunks += struct.pack(">I", len(part)) + kind + part
        chunks += struct.pack(">I", zlib.crc32(kind + part))
    rest = struct.pack(">I", length - 9) + b"IDAT" + data[9:]
    rest += struct.pack(">I", zlib.crc32(b"IDAT" + data[9:]))
    (path / "0.png").write_bytes(whole[:at] + chunks + rest + whole[at + 12 + length :])
    with open_images(path) as source:
        assert np.array_equal(source.read(0, 1)[0], pixels)
