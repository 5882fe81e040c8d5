"""Images in files as one array: read slice by slice, written like the file they came from."""

from __future__ import annotations

import gzip
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

from nogaps.images.layout import SHAPES, Layout, check_layout
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, check_length, open_regular, parsing, read_npy_header

LIMIT = 8 << 30  # bytes that a compressed file may unpack to
IMAGE_PIXELS = 1 << 26  # of one image, which is held in memory several times over
BLOCK = 1 << 20


class ImageSource:
    """Images of one file or folder; use it in a `with`, or close it.

    Attributes:
        kind: What `kind_of` says of its name.
        path: The file or folder.
        shape: (N, H, W).
        dtype: The file's own, byte order included.
        zero: The value that a stored 0 stands for.
        order: Of the values of its array.
        slices: How many of the N images one volume has; N if there is only one volume.
    """

    kind: str
    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    zero: float = 0.0
    order: Literal["C", "F"] = "C"

    @property
    def slices(self) -> int:
        """See the class."""
        return self.shape[0]

    def name(self, index: int) -> str:
        """Return what an error calls an image: its file, or its number counted from 0."""
        return f"image {index}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read images start to stop-1.

        Returns:
            The stored values, (n, H, W), in memory of their own; fewer where the images end.

        Raises:
            BadInput: The file turns out to be damaged.
        """
        return self.take(range(start, min(stop, self.shape[0])))

    def take(self, indices: Iterable[int]) -> np.ndarray:
        """Read the images of these numbers; otherwise as `read`."""
        raise NotImplementedError

    def save(self, output: str | Path, images: np.ndarray) -> None:
        """Write a file or folder like this one that holds other images, in constant memory.

        Args:
            output: Its name, which `check_output` has accepted. It appears, or changes, at once.
            images: (N, H, W) of this dtype; may be mapped from a file.

        Raises:
            BadInput: It cannot be written.
        """
        raise NotImplementedError

    def save_half_widths(self, output: str | Path, widths: np.ndarray) -> None:
        """Write half-widths (N, H, W) to a .npy, each where its image has the pixel.

        Raises:
            BadInput: It cannot be written.
        """
        with atomic(output) as temporary, open(temporary, "wb") as file:
            shape, fortran = self.as_stored(widths).shape, self.order == "F"
            header = {"descr": widths.dtype.str, "fortran_order": fortran, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.writelines(self._blocks(widths))

    def _blocks(self, images: np.ndarray) -> Iterator[bytes]:
        """The bytes of images (N, H, W) as the file's array has them, about BLOCK at a time."""

        def rows() -> np.ndarray:
            stored = self.as_stored(map_anew(images))
            return stored.T if self.order == "F" else stored

        count, *row = rows().shape
        step = max(1, BLOCK // (math.prod(row) * images.dtype.itemsize))
        for start in range(0, count, step):
            yield rows()[start : start + step].tobytes()

    def as_stored(self, images: np.ndarray) -> np.ndarray:
        """Return a view of images (N, H, W) in the shape that the file's array has."""
        return images

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> ImageSource:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the file."""
        self.close()


class ArrayFile(ImageSource):
    """An array that lies uncompressed in the open file `raw`, which is `path` or was unpacked.

    Raises:
        BadInput: Its type is none of `kinds` (numpy's letters), it is empty, or has another shape.
    """

    shapes = SHAPES

    def __init__(
        self, kind: str, path: Path, raw: IO[bytes], layout: Layout, kinds: str = "fiu"
    ) -> None:
        check_layout(path, layout, kinds, self.shapes)
        self.kind, self.path, self.raw, self.layout = kind, path, raw, layout
        self.dtype, self.order = layout.dtype, layout.order
        self._set_shape()

    def _set_shape(self) -> None:
        volumes, self._slices, *size = self.by_slices(self._mapped()).shape
        check_pixels(self.path, *size)
        self.shape = (volumes * self._slices, *size)

    @property
    def slices(self) -> int:
        """See ImageSource."""
        return self._slices

    def _mapped(self) -> np.ndarray:
        dtype, *place = self.layout
        return np.asarray(np.memmap(self.raw, dtype, "r", *place))

    def by_slices(self, stored: np.ndarray) -> np.ndarray:
        """Return a view (volumes, slices, H, W) of an array of the file's shape."""
        return stored.reshape(1, -1, *stored.shape[-2:])

    def as_stored(self, images: np.ndarray) -> np.ndarray:
        """See ImageSource."""
        return images.reshape(self.layout.shape)

    def take(self, indices: Iterable[int]) -> np.ndarray:
        """See ImageSource."""
        indices, stored = list(indices), self.by_slices(self._mapped())
        images = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for image, index in zip(images, indices, strict=True):
            image[:] = stored[divmod(index, self.slices)]
        if self.dtype.kind == "b" and (images.view(np.uint8) > 1).any():
            raise BadInput("holds bytes that are not bool", "0 and 1", path=self.path)
        return images

    def save(self, output: str | Path, images: np.ndarray) -> None:
        """See ImageSource; the header is the input's, byte for byte."""
        with atomic(output) as temporary, self._packed(temporary, Path(output)) as file:
            self.raw.seek(0)
            file.write(self.raw.read(self.layout.offset))
            file.writelines(self._blocks(images))

    @contextmanager
    def _packed(self, temporary: Path, output: Path) -> Iterator[IO[bytes]]:
        """Open the file to be written for its unpacked bytes."""
        with open(temporary, "wb") as file:
            if not output.name.lower().endswith(".gz"):
                yield file
                return
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:  # same input, same bytes
                yield packed

    def close(self) -> None:
        """Release the file."""
        self.raw.close()


def map_anew(images: np.ndarray) -> np.ndarray:
    """Map an array anew if it is mapped: pages of a lasting map count as memory used."""
    if not isinstance(images, np.memmap) or not images.filename:
        return images
    place = images.offset, images.shape
    return np.asarray(np.memmap(images.filename, images.dtype, "r", *place))


def check_pixels(path: Path, height: int, width: int) -> None:
    """Raise BadInput for an image that is larger than IMAGE_PIXELS."""
    if height * width > IMAGE_PIXELS:
        raise BadInput(f"is {height}×{width}", f"at most {IMAGE_PIXELS} pixels", path=path)


def check_unpacked(path: Path, size: int) -> None:
    """Raise BadInput for a compressed file that unpacks to more than LIMIT bytes."""
    if size > LIMIT:
        raise BadInput(f"unpacks to {size} bytes", f"at most {LIMIT}", path=path)


def unpack(file: IO[bytes], size: int, longer: bool = False) -> IO[bytes]:
    """Copy `size` bytes of `file` to a temporary file.

    Args:
        file: Read to its end, where its checksum is, or to LIMIT.
        size: Its bytes.
        longer: Whether it may have more.

    Raises:
        ValueError: It has fewer, or more.
    """
    with ExitStack() as stack:
        raw, most = stack.enter_context(tempfile.TemporaryFile()), size + (not longer)
        while block := file.read(min(BLOCK, most - raw.tell())):
            raw.write(block)
        check_length("", raw.tell(), size)
        try:
            while longer and file.tell() < LIMIT and file.read(BLOCK):
                pass
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error):  # which follows a whole one: no harm
                raise
        raw.flush()
        stack.pop_all()
        return raw


def npy_layout(file: IO[bytes]) -> Layout:
    """Read the header of a .npy; see `read_npy_header`."""
    shape, fortran, dtype = read_npy_header(file)
    return Layout(dtype, file.tell(), tuple(map(int, shape)), "F" if fortran else "C")


def open_npy(path: str | Path, kinds: str = "fiu") -> ArrayFile:
    """Open a .npy of shape (N, 1, H, W), (N, H, W) or (H, W).

    Args:
        path: The file.
        kinds: The types that its values may have, numpy's letters.

    Raises:
        BadInput: It is missing, damaged, pickled, empty, or of another shape or type.
    """
    path = Path(path)
    with ExitStack() as stack, parsing(path, "a .npy array"):
        raw = stack.enter_context(open_regular(path))
        layout = npy_layout(raw)
        check_layout(path, layout, kinds, SHAPES)
        check_length(path, path.stat().st_size, layout.size)
        source = ArrayFile("npy", path, raw, layout, kinds)
        stack.pop_all()
        return source
