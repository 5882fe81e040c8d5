"""Read and write arrays and JSON: validated when read, never half-written when written."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from nogaps.runtime.errors import BadInput as BadInput
from nogaps.runtime.locks import try_lock

IN_MEMORY = 1 << 32  # bytes of an array that is read whole
HEADER, JSON_FILE = 10_000, 1 << 24  # bytes of a .npy header, as numpy has it, and of a JSON file


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success.

    A crash, of the process or of the machine, leaves either the old file or the new one under the
    final name, never half of one. What a killed process left half-written is removed when the same
    file is written again. Raises BadInput if it cannot be written, as on a full disk.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):  # root could replace /dev/null
        raise BadInput(f"{path}: cannot be written (not a regular file), expected one or none")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _new_beside(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        temporary.chmod(0o644)
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        # numpy's own "n requested and m written" has no number: the disk is full
        reason = error.strerror or f"{error}: is the disk full?"
        raise BadInput(f"{path}: cannot be written ({reason})") from error
    finally:
        if handle is not None:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def _new_beside(path: Path) -> tuple[int | None, Path]:
    """A new temporary file beside `path`, and the descriptor that keeps it locked.

    The lock tells that its writer lives; without locks (None) nobody removes what is left behind.
    """
    start = f".{path.stem[:40]}.nogaps-"
    for old in path.parent.glob(f"{glob.escape(start)}????????{glob.escape(path.suffix)}"):
        _remove_if_left(old)
    while True:
        handle, name = tempfile.mkstemp(prefix=start, suffix=path.suffix, dir=path.parent)
        try:
            if try_lock(handle, Path(name)):
                return handle, Path(name)
        except OSError:
            os.close(handle)
            return None, Path(name)
        os.close(handle)  # another process took it for one that was left


def _remove_if_left(path: Path) -> None:
    """Remove a temporary file unless the process that writes it lives."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR)
        try:
            if try_lock(handle, path):
                path.unlink()
        finally:
            os.close(handle)


def _to_disk(path: Path) -> None:
    """Wait until the bytes are on the disk: a name must not get there before them."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """`atomic` for a folder: yields a new one beside `path`, which takes its place on success.

    Two renames: if a process is killed between them, the folder that was there is hidden until the
    next call for the same `path` puts it back.
    """
    path, room = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        room, lock = _new_room(path)
        (room / "new").mkdir()
        yield room / "new"
        for file in (room / "new").rglob("*"):
            if file.is_file():
                _to_disk(file)
        if path.exists():
            os.rename(path, room / "old")
        os.rename(room / "new", path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if room is not None:
            _clear(room, path)
            if lock is not None:
                os.close(lock)


def _new_room(path: Path) -> tuple[Path, int | None]:
    """A new hidden folder beside `path`, and the descriptor that keeps it locked, if any.

    What killed processes left there is cleared away first.
    """
    start = f".{path.name[:40]}.nogaps-"
    for old in path.parent.glob(f"{glob.escape(start)}????????"):
        with contextlib.suppress(OSError):
            handle = os.open(old, os.O_RDONLY)
            try:
                if try_lock(handle, old):
                    _clear(old, path)
            finally:
                os.close(handle)
    room = Path(tempfile.mkdtemp(prefix=start, dir=path.parent))
    try:
        handle = os.open(room, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return room, None
    with contextlib.suppress(OSError):
        try_lock(handle, room)
    return room, handle


def _clear(room: Path, path: Path) -> None:
    """Remove a hidden folder; what `path` was goes back if nothing has taken its place."""
    if (room / "old").exists() and not path.exists():
        os.rename(room / "old", path)
    shutil.rmtree(room, ignore_errors=True)


def save_npy(path: str | Path, array: np.ndarray) -> None:
    """Write `array` to `path` in .npy format, atomically and without pickle."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def save_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write named arrays to a compressed .npz, atomically and without pickle."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def save_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def parsing(path: str | Path, expected: str) -> Iterator[None]:
    """Turn whatever a parser makes of bad bytes into BadInput."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except Exception as error:  # parsers raise nearly anything on hostile bytes
        if isinstance(error, OSError) and error.errno:
            raise BadInput(
                f"{path}: cannot be read ({error.strerror}), expected {expected}"
            ) from error
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise BadInput(f"{path}: is damaged ({reason}), expected {expected}") from error


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file to read its bytes; BadInput if it is absent, unreadable or not a regular file."""
    with parsing(path, "a file"):
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would wait for ever
            raise BadInput(f"{path}: is not a regular file, expected one")
        return open(path, "rb")


def load_json(path: str | Path) -> dict:
    """Read a JSON object.

    Raises BadInput if the file is missing or is not a JSON object, or longer than JSON_FILE.
    """
    with open_regular(path) as file, parsing(path, "a JSON file"):
        data = file.read(JSON_FILE + 1)
    if len(data) > JSON_FILE:
        raise BadInput(f"{path}: is too long, expected JSON of at most {JSON_FILE} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not JSON") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran's order, and dtype; `file` then stands at the values.

    numpy's own reader takes all the memory that a header says it needs, before it looks at it.
    Raises ValueError, or what else numpy makes of a header.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    one = version == (1, 0)
    prefix = file.read(2 if one else 4)
    length = int.from_bytes(prefix, "little")
    if length > HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = io.BytesIO(prefix + file.read(length))
    read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(header)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if min(shape, default=0) < 0 or bool in map(type, shape):
        raise ValueError(f"shape {shape}")
    return shape, fortran, dtype


def check_length(path: str | Path, found: int, declared: int) -> None:
    """Raise ValueError if the file is longer or shorter than its header says."""
    if found != declared:
        raise ValueError(f"it has {found} bytes, its header declares {declared}")


def load_npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """Read one .npy array (`mmap=True`: memory-mapped, read-only).

    Raises BadInput if the file is missing, damaged, pickled or not .npy, or has more than
    IN_MEMORY bytes and is not mapped.
    """
    with open_regular(path) as file, parsing(path, "a .npy array"):
        if file.read(6) != b"\x93NUMPY":
            raise BadInput(f"{path}: is not a .npy file, expected one")
        file.seek(0)
        shape, _, dtype = read_npy_header(file)
        size = os.fstat(file.fileno()).st_size
        check_length(path, size, file.tell() + math.prod(shape) * dtype.itemsize)
        if size > IN_MEMORY and not mmap:
            raise BadInput(f"{path}: has {size} bytes, expected at most {IN_MEMORY}")
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


def load_images(path: str | Path) -> np.ndarray:
    """Read images from a .npy file.

    Returns (N,1,H,W) float32 in [0,1]. Raises BadInput for any other shape, a type that is not
    floating point, values outside [0,1] or too small for float32, NaN, or no images at all.
    """
    array = load_npy(path)
    if array.ndim != 4 or array.shape[1] != 1 or 0 in array.shape:
        mend = ": save x[:, None]" if array.ndim == 3 else ""
        raise BadInput(f"{path}: has shape {array.shape}, expected (N, 1, H, W){mend}")
    if array.dtype.kind != "f":
        raise BadInput(f"{path}: has dtype {array.dtype}, expected float32 in [0, 1]")
    if not np.isfinite(array).all():
        raise BadInput(f"{path}: holds NaN or infinite values, expected finite ones in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise BadInput(f"{path}: values in [{low:.3g}, {high:.3g}], expected [0, 1]")
    images = np.ascontiguousarray(array, dtype=np.float32)
    if np.count_nonzero(images) != np.count_nonzero(array):  # a 0 would count as missing
        least = np.finfo(np.float32).smallest_subnormal
        raise BadInput(f"{path}: holds values below {least:.1g}, expected float32")
    return images


def samples_file(path: str | Path) -> Path:
    """The file itself, or `images.npy` of a folder of `sample`."""
    return Path(path) / "images.npy" if os.path.isdir(path) else Path(path)


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
