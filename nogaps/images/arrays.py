"""Images in files as one array: read slice by slice, written like the file they came from."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, check_length, open_regular, parsing, read_npy_header

LIMIT = 8 << 30  # bytes that a compressed file may unpack to
IMAGE_PIXELS = 1 << 26  # of one image, which is held in memory several times over
BLOCK = 1 << 20
LEAST = 4  # rows and columns of an image: fewer are another axis, as of colours


class ImageSource(AbstractContextManager):
    """Images of one file or folder; use it in a `with`, or close it.

    Attributes:
        kind: What `kind_of` says of its name.
        path: The file or folder.
        shape: (N, H, W).
        slices: How many of the N images one volume has; N if there is only one volume.
        dtype: The file's own, byte order included.
        scaling: Slope and intercept: a value is slope * stored + intercept.
        plane: Of the slices of a NIfTI, one of PLANES; "" if the file does not tell it.
        upright: Whether they are turned to show the plane.
    """

    kind: str
    path: Path
    shape: tuple[int, int, int]
    slices: int
    dtype: np.dtype
    scaling: tuple[float, float] = (1.0, 0.0)
    plane: str = ""
    upright: bool = False

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

    def as_stored(self, images: np.ndarray) -> np.ndarray:
        """Return a view of images (N, H, W) in the shape that the file's array has."""
        return images

    def blocks(self, images: np.ndarray, order: Literal["C", "F"] = "C") -> Iterator[bytes]:
        """Yield the bytes of `as_stored` images in an order, about BLOCK at a time."""

        def parts() -> np.ndarray:
            stored = self.as_stored(mapped_anew(images))
            return stored.T if order == "F" else stored

        count, *part = parts().shape
        step = max(1, BLOCK // (math.prod(part) * images.dtype.itemsize))
        for start in range(0, count, step):
            yield parts()[start : start + step].tobytes()

    def close(self) -> None:
        """Release the file."""

    def __exit__(self, *_: object) -> None:
        """Release the file."""
        self.close()


class Layout(NamedTuple):
    """How an array lies in a file: `offset` bytes of header, then its values, in C or F order."""

    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


class ArrayFile(ImageSource):
    """An array that lies uncompressed in the open file `raw`, which is `path` or was unpacked."""

    def __init__(self, kind: str, path: Path, raw: IO[bytes], layout: Layout) -> None:
        self.kind, self.path, self.raw, self.layout = kind, path, raw, layout
        self.dtype = layout.dtype
        self._set_shape()

    def _set_shape(self) -> None:
        volumes, self.slices, *size = self.by_slices(self._mapped()).shape
        check_pixels(self.path, *size)
        self.shape = (volumes * self.slices, *size)

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
            file.writelines(self.blocks(images, self.layout.order))

    @contextmanager
    def _packed(self, temporary: Path, output: Path) -> Iterator[IO[bytes]]:
        """Open the file to be written for its unpacked bytes."""
        with ExitStack() as stack:
            file = stack.enter_context(open(temporary, "wb"))
            if output.name.lower().endswith(".gz"):  # no name, no time: same input, same bytes
                file = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
            yield file

    def close(self) -> None:
        """Release the file."""
        self.raw.close()


def mapped_anew(images: np.ndarray) -> np.ndarray:
    """Map an array of a file anew: what was read of a lasting map counts as memory in use."""
    if getattr(images, "filename", None) is None:
        return images
    return np.memmap(images.filename, images.dtype, "r", images.offset, images.shape)


def check_pixels(path: Path, height: int, width: int) -> None:
    """Raise BadInput for an image that is larger than IMAGE_PIXELS."""
    if height * width > IMAGE_PIXELS:
        raise BadInput(f"is {height}×{width}", f"at most {IMAGE_PIXELS} pixels", path=path)


def check_unpacked(path: Path, size: int) -> None:
    """Raise BadInput for a compressed file that unpacks to more than LIMIT bytes."""
    if size > LIMIT:
        raise BadInput(f"unpacks to {size} bytes", f"at most {LIMIT}", path=path)


def unpack(file: IO[bytes], raw: IO[bytes], size: int) -> None:
    """Copy `size` bytes of a packed file to `raw`; read on to its end, where its checksum is.

    Raises:
        ValueError: It has fewer; or others, where it is damaged.
    """
    while block := file.read(min(BLOCK, size - raw.tell())):
        raw.write(block)
    check_length(raw.tell(), size)
    raw.flush()
    try:
        while file.tell() < LIMIT and file.read(BLOCK):
            pass
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):  # which follows a whole one: no harm
            raise


def check_values(path: Path, layout: Layout, kinds: str) -> None:
    """Raise BadInput for an empty array, or one of other types than `kinds`, numpy's letters."""
    if min(layout.shape) < 1:
        raise BadInput(f"is empty, shape {layout.shape}", "at least one image", path=path)
    if layout.dtype.kind not in kinds:
        expected = "bool, True = observed" if kinds == "b" else "integers or floats"
        raise BadInput(f"has dtype {str(layout.dtype)[:40]}", expected, path=path)


def check_axes(path: str | Path, shape: tuple[int, ...]) -> None:
    """Raise BadInput where the sizes of an array do not tell which axes are rows and columns.

    Args:
        path: Of the array, or its name.
        shape: (N, 1, H, W), (N, H, W) or (H, W), as far as it can be told.
    """
    last, first = "np.moveaxis(y, -1, 0)[:, None]", "y[:, None]"
    if min(shape[-2:]) < LEAST:
        problem = "which means images of {}×{} pixels".format(*shape[-2:])
        expected = f"at least {LEAST}×{LEAST}"
        if len(shape) == 3 and shape[1] >= LEAST:
            expected = f"(N, 1, H, W): if the images come last, save {last}"
    elif len(shape) == 3 and shape[0] == shape[1] > 1:
        problem = "which does not tell whether the images come first or last"
        expected = f"(N, 1, H, W): save {first} if they come first, {last} if last"
    else:
        return
    raise BadInput(f"has shape {shape}, {problem}", expected, path=path)


def npy_layout(path: Path, file: IO[bytes], kinds: str) -> Layout:
    """Read the header of a .npy of images; see `open_npy`."""
    shape, fortran, dtype = read_npy_header(file)
    layout = Layout(dtype, file.tell(), tuple(map(int, shape)), "F" if fortran else "C")
    if not 2 <= len(shape) <= 4 or (len(shape) == 4 and shape[1] != 1):
        last = ": save np.moveaxis(y, -1, 1)" if len(shape) == 4 and shape[-1] == 1 else ""
        expected = f"(N, 1, H, W) or (N, H, W) or (H, W){last}"
        raise BadInput(f"has shape {shape}", expected, path=path)
    check_values(path, layout, kinds)
    if kinds != "b":
        check_axes(path, shape)
    return layout


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
        layout = npy_layout(path, raw, kinds)
        check_length(path.stat().st_size, layout.size)
        source = ArrayFile("npy", path, raw, layout)
        stack.pop_all()
        return source
