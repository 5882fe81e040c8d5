"""Arrays in .npz archives: one as images, or all of them in memory."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from nogaps.images.arrays import BLOCK, ArrayFile, check_bomb, npy_layout, unpack
from nogaps.runtime.files import (
    IN_MEMORY,
    BadInput,
    check_length,
    open_regular,
    parsing,
    read_npy_header,
)

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others unpack as much as they like at once


class NpzFile(ArrayFile):
    """One array of an .npz; what else is in the archive is carried over to the output."""

    member: str

    def _packer(self, output: Path) -> Callable[[IO[bytes], Path], None]:
        return self._zip

    def _zip(self, raw: IO[bytes], target: Path) -> None:
        with zipfile.ZipFile(self.path) as old, zipfile.ZipFile(target, "w") as new:
            for info in old.infolist():
                entry = zipfile.ZipInfo(info.filename)  # a fixed date: same input, same bytes
                entry.compress_type = info.compress_type
                source = raw if info.filename == self.member else old.open(info)
                with source, new.open(entry, "w", force_zip64=True) as file:
                    shutil.copyfileobj(source, file, BLOCK)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; BadInput if it is damaged, unpacks to too much or has a name twice."""
    with ExitStack() as stack, parsing(path, "an .npz archive"):
        archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_regular(path))))
        members = archive.infolist()
        check_bomb(path, sum(i.file_size for i in members), sum(i.compress_size for i in members))
        if len({info.filename for info in members}) < len(members):
            raise ValueError("a name stands twice")
        for info in members:
            if info.compress_type not in METHODS:
                raise ValueError(f"compressed by method {info.compress_type}")
        yield archive


def _choose(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The member that holds the images; the others are read through, to be copied later."""
    arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    name = arrays[0] if len(arrays) == 1 else "images.npy"
    if name not in arrays:
        found = ", ".join(name[:20] for name in arrays[:4]) or "no array"
        raise BadInput(f"{path}: holds {found}, expected one array or one named images")
    for info in archive.infolist():
        if info.filename != name:
            with archive.open(info) as file:
                while file.read(BLOCK):
                    pass
    return archive.getinfo(name)


def open_npz(path: str | Path) -> NpzFile:
    """Open the one array of an .npz, or the one named "images": as open_npy.

    Raises BadInput also for archives that unpack to more than LIMIT bytes.
    """
    path = Path(path)
    with _opened(path) as archive:
        info = _choose(path, archive)
        with archive.open(info) as file:
            layout = npy_layout(path, file, "fiu")
        with archive.open(info) as file:
            raw = unpack(file, layout.size)
        source = NpzFile("npz", path, raw, layout)
        source.member = info.filename
        return source


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz by name, without pickle.

    Raises BadInput if it is missing or damaged, or unpacks to more than IN_MEMORY bytes.
    """
    path = Path(path)
    with _opened(path) as archive:
        if (size := sum(info.file_size for info in archive.infolist())) > IN_MEMORY:
            raise BadInput(f"{path}: unpacks to {size} bytes, expected at most {IN_MEMORY}")
        return {
            info.filename.removesuffix(".npy"): _read_member(path, archive, info)
            for info in archive.infolist()
        }


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        shape, fortran, dtype = read_npy_header(file)
        at = file.tell()
        check_length(path, info.file_size, at + math.prod(shape) * dtype.itemsize)
        data = file.read()
        check_length(path, at + len(data), info.file_size)
        if not dtype.itemsize or not data:
            return np.zeros(shape, dtype)
        return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")
