"""Grey PNGs as images, one file or a folder of them, read and written with Pillow."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from nogaps.images.arrays import BLOCK, ImageSource, Write, check_pixels
from nogaps.runtime.files import BadInput, atomic, atomic_folder, open_regular, parsing

COLOUR_TYPES = {0: "grey", 2: "colour", 3: "palette", 4: "grey with alpha", 6: "colour with alpha"}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# signature, IHDR, width, height, depth, colour type, interlace
HEADER = struct.Struct(">8s4x4sIIBBxxB")
# first row and column, and steps, of the passes of an interlaced PNG
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ADAM7 += ((1, 0, 2, 1),)


def read_header(path: Path, file: IO[bytes]) -> tuple[int, int, int, int, int]:
    """Height, width, bits per value, colour type, and whether it is interlaced (0 or 1).

    Raises BadInput if it is no PNG.
    """
    with parsing(path, "a PNG"):
        signature, chunk, width, height, bits, colour, interlace = HEADER.unpack(
            file.read(HEADER.size)
        )
    if (signature, chunk) != (b"\x89PNG\r\n\x1a\n", b"IHDR") or not height * width:
        raise BadInput(f"{path}: is not a PNG, expected one")
    return height, width, bits, colour, interlace


def check_rows(path: Path) -> None:
    """Raise BadInput for a PNG whose rows end too early: Pillow fills up with black, silently."""
    with open_regular(path) as file:
        height, width, bits, colour, interlace = read_header(path, file)
        with parsing(path, "a PNG"):
            bits *= CHANNELS[colour]
            declared = 0
            for row, column, down, right in ADAM7 if interlace else ((0, 0, 1, 1),):
                rows, columns = -((row - height) // down), -((column - width) // right)
                declared += max(0, rows) * (1 + -(-columns * bits // 8)) if columns > 0 else 0
            if (found := _unpacked(file, declared)) < declared:
                raise ValueError(f"its rows hold {found} bytes, its header declares {declared}")


def _unpacked(file: IO[bytes], declared: int) -> int:
    """How many bytes the image data are; ValueError if they do not end, or hold far more."""
    found, inflate = 0, zlib.decompressobj()
    for data in _image_data(file):
        while data and not inflate.eof:
            found += len(inflate.decompress(data, BLOCK))
            data = inflate.unconsumed_tail
            if found > declared + BLOCK:
                raise ValueError("more rows than its header declares")
    found += len(inflate.flush())
    if not inflate.eof:  # its checksum stands at the end
        raise ValueError("its rows do not end")
    return found


def _image_data(file: IO[bytes]) -> Iterator[bytes]:
    """What the first run of image chunks holds; others come too late to be read."""
    file.seek(HEADER.size + 4)
    began = False
    while len(head := file.read(8)) == 8:
        left, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IHDR" or (began and kind != b"IDAT"):
            return
        began = kind == b"IDAT"
        if not began:
            file.seek(left, os.SEEK_CUR)
        while began and left and (data := file.read(min(left, BLOCK))):
            left -= len(data)
            yield data
        file.seek(4, os.SEEK_CUR)


class Pngs(ImageSource):
    """Grey PNG files of one size, of 8 or 16 bits: `names`, relative to `folder`."""

    def __init__(self, path: Path, folder: Path, names: list[str]) -> None:
        self.path, self.folder, self.names = path, folder, names
        height, width, bits = self._header(names[0])
        for name in names[1:]:
            if (found := self._header(name)) != (height, width, bits):
                sizes = "{}×{} with {} bits, expected {}×{} with {}".format(
                    *found, height, width, bits
                )
                raise BadInput(f"{folder / name}: is {sizes} as {names[0]}")
        self.shape = (len(names), height, width)
        self.dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)

    def _header(self, name: str) -> tuple[int, int, int]:
        """Height, width and bits per pixel."""
        path = self.folder / name
        with open_regular(path) as file:
            height, width, bits, colour, _ = read_header(path, file)
        check_pixels(path, height, width)
        if colour != 0 or bits not in (8, 16):
            kind = COLOUR_TYPES.get(colour, "unknown")
            raise BadInput(f"{path}: is {kind} with {bits} bits, expected grey with 8 or 16 bits")
        return height, width, bits

    def _pixels(self, name: str) -> np.ndarray:
        from PIL import Image

        path = self.folder / name
        check_rows(path)
        with parsing(path, "a grey PNG"):
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()  # the checksums, which decoding skips
            with Image.open(path, formats=["PNG"]) as image:
                frames = getattr(image, "n_frames", 1)
                pixels = np.asarray(image)
            if pixels.shape != self.shape[1:] or frames != 1:
                raise BadInput(f"{path}: holds {frames} images of shape {pixels.shape}, expected 1")
        return pixels.astype(self.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See ImageSource."""
        return np.stack([self._pixels(name) for name in self.names[start:stop]])


class PngFile(Pngs):
    """One PNG."""

    kind = "png"

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.parent, [path.name])

    @contextlib.contextmanager
    def writing(self, output: str | Path) -> Iterator[Write]:
        """See ImageSource."""
        with atomic(output) as temporary:
            yield lambda start, images: _save(temporary, images[0])


class PngFolder(Pngs):
    """The .png files in a folder and in the folders within, by name; hidden ones do not count."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        with parsing(path, "a folder of PNGs"):
            names = [name for name in files_within(path) if name.lower().endswith(".png")]
        names = sorted(n for n in names if not any(part[0] == "." for part in n.split("/")))
        if not names:
            raise BadInput(f"{path}: holds no .png file, expected at least one")
        super().__init__(path, path, names)

    @contextlib.contextmanager
    def writing(self, output: str | Path) -> Iterator[Write]:
        """See ImageSource; each file has the name of the one it was made from."""
        with atomic_folder(Path(os.path.realpath(output))) as folder:

            def write(start: int, images: np.ndarray) -> None:
                for name, image in zip(self.names[start:], images, strict=False):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    _save(folder / name, image)

            yield write


def files_within(folder: Path) -> Iterator[str]:
    """Everything in a folder and the folders within that is no folder; links are not followed.

    Relative to it, with / between. Raises OSError if one of them cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, format="PNG")
