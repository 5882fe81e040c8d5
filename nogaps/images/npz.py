"""Arrays in .npz archives: one of them as images, or all of them in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from nogaps.images.arrays import BLOCK, ArrayFile, check_unpacked, npy_layout, unpack
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import IN_MEMORY, check_length, open_regular, parsing

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others unpack to any size in one step


class NpzFile(ArrayFile):
    """The array `member` of an .npz; everything else in the archive is carried over."""

    member: str

    @contextmanager
    def _packed(self, temporary: Path, output: Path) -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(self.path) as old, zipfile.ZipFile(temporary, "w") as new:
            for info in old.infolist():
                entry = zipfile.ZipInfo(info.filename)  # a fixed date: same input, same bytes
                entry.compress_type = info.compress_type
                with new.open(entry, "w", force_zip64=True) as file:
                    if info.filename == self.member:
                        yield file
                    else:
                        with old.open(info) as other:
                            shutil.copyfileobj(other, file, BLOCK)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members are few bytes, and of different names."""
    with (
        parsing(path, "an .npz archive"),
        open_regular(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        members = archive.infolist()
        check_unpacked(path, sum(info.file_size for info in members))
        if len({info.filename for info in members}) < len(members):
            raise ValueError("two members have the same name")
        if not {info.compress_type for info in members} <= METHODS:
            raise ValueError("compressed by another method than deflate")
        yield archive


def open_npz(path: str | Path, kinds: str = "fiu", name: str = "images") -> NpzFile:
    """Open the one array of an .npz, or the one of this name, as `open_npy` does.

    Raises:
        BadInput: As `open_npy`; or several arrays, or more than LIMIT bytes in all.
    """
    path = Path(path)
    with _opened(path) as archive, ExitStack() as stack:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
        member = arrays[0] if len(arrays) == 1 else f"{name}.npy"
        if member not in arrays:
            names = ", ".join(array[:20] for array in arrays[:4]) or "no array"
            raise BadInput(f"holds {names}", f"one array or one named {name}", path=path)
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        with archive.open(member) as file:
            layout = npy_layout(path, file, kinds)
        check_length(archive.getinfo(member).file_size, layout.size)
        raw = stack.enter_context(tempfile.TemporaryFile())
        with archive.open(member) as file:
            unpack(file, raw, layout.size)
        source = NpzFile("npz", path, raw, layout)
        source.member = member
        stack.pop_all()
        return source


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz by name, without pickle.

    Raises:
        BadInput: It is missing or damaged, or unpacks to more than IN_MEMORY bytes.
    """
    path = Path(path)
    with _opened(path) as archive:
        if (size := sum(info.file_size for info in archive.infolist())) > IN_MEMORY:
            raise BadInput(f"unpacks to {size} bytes", f"at most {IN_MEMORY}", path=path)
        with np.load(path, allow_pickle=False) as arrays:
            members = {name: arrays[name] for name in arrays.files}
    return {name: array for name, array in members.items() if isinstance(array, np.ndarray)}
