"""Files that are not what their names say: read by their content, or one line that helps."""

from __future__ import annotations

import gzip
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from image_files import IMAGES, load, refused, store
from PIL import Image

from nogaps.images.formats import open_images

LEVELS = (IMAGES // 256).astype(np.uint8)
VOLUME = np.moveaxis(IMAGES, 0, -1)
Write = Callable[[Path], object]


@pytest.mark.parametrize("more", [b"", b"\0", b"x" * 400, bytes(5000)])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_is_read_by_its_content(tmp_path: Path, name: str, packed: bool, more: bytes) -> None:
    """With bytes after its values, and after the packed file."""
    whole = store(tmp_path / "whole.nii", IMAGES).read_bytes()
    stored = gzip.compress(whole + more) + more if packed else whole + more
    (tmp_path / name).write_bytes(stored)
    for output in ("b.nii", "b.nii.gz"):
        with open_images(tmp_path / name) as source:
            assert np.array_equal(source.read(0, 9), IMAGES)
            source.save(tmp_path / output, source.read(0, 9))
    assert (tmp_path / "b.nii").read_bytes() == whole
    assert gzip.decompress((tmp_path / "b.nii.gz").read_bytes()) == whole
    assert (tmp_path / name).read_bytes() == stored


def test_a_packed_nifti_is_read_to_its_checksum(tmp_path: Path) -> None:
    whole = bytearray(
        gzip.compress(store(tmp_path / "a.nii", IMAGES).read_bytes() + bytes(1 << 20))
    )
    whole[-5] ^= 1
    (tmp_path / "b.nii").write_bytes(whole)
    assert "CRC check failed" in refused(lambda: load(tmp_path / "b.nii"))
    (tmp_path / "b.nii").write_bytes(whole[:-4])
    assert "is damaged" in refused(lambda: load(tmp_path / "b.nii"))


def picture(mode: str, kind: str) -> Write:
    return lambda path: Image.fromarray(LEVELS[0]).convert(mode).save(path, kind)


def stack(path: Path) -> None:
    first, *rest = map(Image.fromarray, IMAGES)
    first.save(path, save_all=True, append_images=rest)


def nifti(kind: type, dtype: str) -> Write:
    return lambda path: kind(VOLUME.astype(dtype), np.eye(4)).to_filename(path)


CONVERTED: dict[str, tuple[Write, str, np.ndarray]] = {  # by name: what it becomes
    "a b.jpg": (picture("L", "JPEG"), "a b.png", LEVELS[:1]),
    "a.JPEG": (picture("RGB", "JPEG"), "a.png", LEVELS[:1]),
    "a.bmp": (picture("RGB", "BMP"), "a.png", LEVELS[:1]),
    "a.gif": (picture("P", "GIF"), "a.png", LEVELS[:1]),
    "it's.tif": (stack, "it's.npy", IMAGES),
    "a.tiff": (picture("F", "TIFF"), "a.npy", LEVELS[:1]),
    "a .b.mgz": (nifti(nibabel.MGHImage, "i4"), "a .b.nii.gz", IMAGES),
    "a.img": (nifti(nibabel.Nifti1Pair, "u2"), "a.nii.gz", IMAGES),
    "a.hdr": (nifti(nibabel.AnalyzeImage, "i2"), "a.nii.gz", IMAGES.astype("i2")),
}


def follow(message: str) -> None:
    """Run the command in which a message ends, with the programs of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = shlex.split(message.rpartition("convert it: ")[2].rpartition("that name: ")[2])
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", list(CONVERTED))
def test_the_command_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write, output, expected = CONVERTED[name]
    write(Path(name))
    message = refused(lambda: open_images(name))
    assert message.startswith(f"{name}: is "), message
    if Path(output).suffix == ".png":  # a folder of nothing else has the same answer
        assert refused(lambda: open_images(".")) == message
    follow(message)
    error = np.abs(load(Path(output)).astype(float) - expected)
    assert error.max() <= (40 if "JP" in name.upper() else 0), "JPEG is lossy"


def test_dicom_names_its_converter(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(99))
    (tmp_path / "a.dcm").write_bytes(bytes(99))
    for path in (tmp_path / "IM0001", tmp_path / "a.dcm", tmp_path):
        message = refused(lambda path=path: open_images(path))
        assert "is DICOM" in message and f"dcm2niix -o . {tmp_path}" in message


RENAMED = {"a.jpg": "b.png", "a.png": "b.jpg", "a.npy": "b.npz", "a": "b.png", "a.nii": "b.npy"}


@pytest.mark.parametrize(("name", "like"), [*RENAMED.items(), ("a.dat", "b.nii")])
def test_a_wrong_ending_is_put_right(tmp_path: Path, name: str, like: str) -> None:
    """The line says how to rename the file; then it is read, or has the answer of its kind."""
    path, whole, right = (tmp_path / n for n in (name, like, like.replace("b", "a")))
    picture("L", "JPEG")(whole) if "jpg" in like else store(whole, LEVELS)
    whole.rename(path)
    message = refused(lambda: open_images(path))
    assert f"is {right.suffix} by its content" in message
    follow(message)
    if "jpg" in like:
        assert "to convert it" in refused(lambda: open_images(right))
    else:
        assert load(right).shape[1:] == LEVELS.shape[1:]


def test_what_only_begins_alike_is_not_mistaken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    (tmp_path / "a.txt").write_text("BM is how this text begins, as a bitmap does")
    for name in ("a.zip", "a.txt"):
        message = refused(lambda name=name: open_images(tmp_path / name))
        assert "has an unknown ending" in message
