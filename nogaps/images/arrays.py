"""Arrays of images in files, read and written batch by batch: .npy, and what others build on."""

from __future__ import annotations

import contextlib
import gzip
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from nogaps.runtime.files import (
    BadInput,
    atomic,
    check_length,
    open_regular,
    parsing,
    read_npy_header,
)

LIMIT = 8 << 30  # bytes that a compressed file may unpack to
BOMB_SIZE, BOMB_RATIO = 1 << 30, 500  # from this size on, a file may not shrink more than this
BLOCK = 1 << 20
IMAGE_PIXELS = 1 << 26  # of one image: as few as one is in memory at a time, several times over
SHAPES = {4: "(N, 1, H, W)", 3: "(N, H, W)", 2: "(H, W)"}
Write = Callable[[int, np.ndarray], None]


class ImageSource:
    """Images of one file or folder, read batch by batch; use it in a `with`, or close it.

    shape: (N,H,W). dtype: the file's own, byte order included. zero: the value of a stored 0.
    slices: of these N, how many one volume has; N if there is only one.
    """

    kind: str
    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    zero: float = 0.0

    @property
    def slices(self) -> int:
        """See the class."""
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Images start to stop-1 as stored, (n,H,W), in memory of their own.

        Raises BadInput if the file turns out to be damaged.
        """
        raise NotImplementedError

    def writing(self, output: str | Path) -> AbstractContextManager[Write]:
        """Context of `write(start, images)`, images (n,H,W): makes a file like this one.

        Every image must be written. `output` appears, or changes, at once when the context ends
        without an error. Raises BadInput if it cannot be written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> ImageSource:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the file."""
        self.close()


@dataclass(frozen=True)
class Layout:
    """How an array lies in a file: `offset` bytes of header, then its values, in C or F order."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def checked(self, path: Path, kinds: str, shapes: dict[int, str]) -> Layout:
        """Itself; BadInput if its type is none of `kinds` (numpy's letters) or its shape is bad.

        shapes: in words, by how many axes there are.
        """
        shape = self.shape
        if len(shape) not in shapes or (shapes is SHAPES and len(shape) == 4 and shape[1] != 1):
            expected = " or ".join(dict.fromkeys(shapes.values()))
            raise BadInput(f"{path}: has shape {shape}, expected {expected}")
        if min(shape) < 1:
            raise BadInput(f"{path}: is empty, shape {shape}, expected at least one image")
        if self.dtype.kind not in kinds:
            expected = "bool" if kinds == "b" else "integers or floats"
            raise BadInput(f"{path}: has dtype {str(self.dtype)[:40]}, expected {expected}")
        return self


def _as_listed(array: np.ndarray) -> np.ndarray:
    """(N,1,H,W), (N,H,W) or (H,W) as (1,N,H,W)."""
    if array.ndim == 4:
        return array[None, :, 0]
    return array[None] if array.ndim == 3 else array[None, None]


class ArrayFile(ImageSource):
    """An array that lies uncompressed in the open file `raw`.

    view: of the stored array as (volumes, slices, H, W), which it must not copy.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        raw: IO[bytes],
        layout: Layout,
        view: Callable[[np.ndarray], np.ndarray] = _as_listed,
    ) -> None:
        self.kind, self.path, self.raw, self.layout, self.view = kind, path, raw, layout, view
        self.dtype = layout.dtype
        self.volumes, slices, height, width = self._images(raw, "r").shape
        check_pixels(path, height, width)
        self.shape = (self.volumes * slices, height, width)

    @property
    def slices(self) -> int:
        """See ImageSource."""
        return self.shape[0] // self.volumes

    def _images(self, raw: IO[bytes], mode: Literal["r", "r+"]) -> np.ndarray:
        """(volumes,slices,H,W), memory-mapped anew: pages of a lasting map count as memory used."""
        at = self.layout
        return self.view(np.memmap(raw, at.dtype, mode, at.offset, at.shape, at.order))

    def _parts(self, start: int, stop: int) -> Iterator[tuple[slice, tuple[int, slice]]]:
        """Images start to stop-1, volume by volume: their places after start, and those stored."""
        at = start
        while at < stop:
            volume, first = divmod(at, self.slices)
            last = min(self.slices, first + stop - at)
            yield slice(at - start, at - start + last - first), (volume, slice(first, last))
            at += last - first

    def read(self, start: int, stop: int) -> np.ndarray:
        """See ImageSource."""
        stored, stop = self._images(self.raw, "r"), min(stop, self.shape[0])
        images = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        for place, part in self._parts(start, stop):
            images[place] = stored[part]
        if self.dtype.kind == "b" and (images.view(np.uint8) > 1).any():
            raise BadInput(f"{self.path}: holds bytes that are no bool, expected 0 and 1")
        return images

    def close(self) -> None:
        """Release the file."""
        self.raw.close()

    @contextlib.contextmanager
    def writing(self, output: str | Path) -> Iterator[Write]:
        """See ImageSource; the header is the input's, byte for byte."""
        pack = self._packer(Path(output))
        with atomic(output) as temporary, ExitStack() as stack:
            if pack:
                raw = stack.enter_context(tempfile.TemporaryFile(dir=temporary.parent))
            else:
                raw = stack.enter_context(open(temporary, "r+b"))
            self.raw.seek(0)
            _copy(self.raw, raw, self.layout.offset)
            _copy(None, raw, self.layout.size - self.layout.offset)
            raw.flush()

            def write(start: int, images: np.ndarray) -> None:
                stored = self._images(raw, "r+")
                for place, part in self._parts(start, start + len(images)):
                    stored[part] = images[place]

            yield write
            if pack:
                raw.seek(0)
                pack(raw, temporary)

    def _packer(self, output: Path) -> Callable[[IO[bytes], Path], None] | None:
        return _gzip if output.name.lower().endswith(".gz") else None


def _gzip(raw: IO[bytes], target: Path) -> None:
    with open(target, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as out:
        shutil.copyfileobj(raw, out, BLOCK)


def _copy(source: IO[bytes] | None, target: IO[bytes], size: int) -> None:
    """Copy `size` bytes, of zeros if there is no source.

    The zeros take the disk space at once: a disk found full while memory-mapped kills the process.
    """
    while size:
        block = source.read(min(size, BLOCK)) if source else bytes(min(size, BLOCK))
        if not block:
            raise ValueError(f"ends {size} bytes too early")
        target.write(block)
        size -= len(block)


def check_bomb(path: Path, unpacked: int, packed: int) -> None:
    """Raise BadInput if so many bytes, or so many out of so few, are not worth unpacking."""
    if unpacked > LIMIT or (unpacked > BOMB_SIZE and unpacked > BOMB_RATIO * packed):
        found = f"unpacks from {packed} to {unpacked} bytes"
        raise BadInput(f"{path}: {found}, expected at most {LIMIT} and {BOMB_RATIO} times as many")


def unpack(file: IO[bytes], size: int) -> IO[bytes]:
    """The bytes of `file`, which must be `size`, in a temporary file."""
    with ExitStack() as stack:
        raw = stack.enter_context(tempfile.TemporaryFile())
        _copy(file, raw, size)
        if file.read(1):
            raise ValueError("holds more bytes than its header declares")
        raw.flush()
        stack.pop_all()
        return raw


def check_pixels(path: Path, height: int, width: int) -> None:
    """Raise BadInput for an image that is larger than IMAGE_PIXELS."""
    if height * width > IMAGE_PIXELS:
        raise BadInput(f"{path}: is {height}×{width}, expected at most {IMAGE_PIXELS} pixels")


def npy_layout(path: Path, file: IO[bytes], kinds: str) -> Layout:
    """Layout of the .npy that `file` is, its type one of `kinds`; see `read_npy_header`."""
    shape, fortran, dtype = read_npy_header(file)
    layout = Layout(tuple(map(int, shape)), dtype, "F" if fortran else "C", file.tell())
    return layout.checked(path, kinds, SHAPES)


def open_npy(path: str | Path, kinds: str = "fiu") -> ArrayFile:
    """Open a .npy of shape (N,1,H,W), (N,H,W) or (H,W), its type one of `kinds` (numpy's letters).

    Raises BadInput if it is missing, damaged, pickled, empty, or of another shape or type.
    """
    path = Path(path)
    with ExitStack() as stack, parsing(path, "a .npy array"):
        raw = stack.enter_context(open_regular(path))
        layout = npy_layout(path, raw, kinds)
        check_length(path, path.stat().st_size, layout.size)
        source = ArrayFile("npy", path, raw, layout)
        stack.pop_all()
        return source
