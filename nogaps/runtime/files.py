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
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from nogaps.runtime.errors import BadInput

ABANDONED = 3600.0  # age in seconds at which a temporary file counts as abandoned
IN_MEMORY = 1 << 32  # bytes of an array that is read whole
HEADER, JSON_FILE = 10_000, 1 << 24  # most bytes of a .npy header (numpy's limit), of a JSON file


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn errors of the operating system into BadInput: "`path`: cannot be written (reason)"."""
    try:
        yield
    except OSError as error:
        # numpy's own "n requested and m written" has no number: the disk is full
        reason = error.strerror or f"{error}: is the disk full?"
        raise BadInput(f"cannot be written ({reason})", path=path) from error


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success.

    A crash, of the process or of the machine, leaves either the old file or the new one under the
    final name, never half of one. What a killed process left half-written is removed when the same
    file is written again an hour later.

    Raises:
        BadInput: The file cannot be written, as on a full disk.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # root could replace /dev/null
        raise BadInput("is not a regular file", "a file or a new name", path=path)
    start = f".{path.stem[:40]}.nogaps-"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in _abandoned(path.parent, start, path.suffix):
            old.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=start, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            flush_to_disk(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _abandoned(folder: Path, start: str, suffix: str = "") -> list[Path]:
    """Temporary files or folders to which nobody has written for an hour."""
    paths = folder.glob(f"{glob.escape(start)}????????{glob.escape(suffix)}")
    return [path for path in paths if path.stat().st_mtime < time.time() - ABANDONED]


def flush_to_disk(path: Path) -> None:
    """Wait until the bytes of a file are on the disk, before a rename can reach it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """`atomic` for a folder: yield a new one beside `path`, which takes its place on success.

    Two renames: if a process is killed between them, the folder that was there is hidden until the
    next call for the same `path` puts it back.
    """
    path = Path(path)
    previous, start = path.with_name(f".{path.name}.previous"), f".{path.name[:40]}.nogaps-"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if previous.exists() and not path.exists():
            previous.rename(path)
        for old in _abandoned(path.parent, start):
            shutil.rmtree(old, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=start, dir=path.parent))
        try:
            yield new
            new.chmod(0o755)
            for file in filter(Path.is_file, new.rglob("*")):
                flush_to_disk(file)
            if path.exists():
                shutil.rmtree(previous, ignore_errors=True)
                path.rename(previous)
            new.rename(path)
            shutil.rmtree(previous, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)


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
    """Turn whatever a parser makes of invalid bytes into BadInput."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except Exception as error:  # parsers raise nearly anything on hostile bytes
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        problem = f"is damaged ({reason})"
        if isinstance(error, OSError) and error.errno:
            problem = f"cannot be read ({error.strerror})"
        raise BadInput(problem, expected, path=path) from error


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file to read its bytes.

    Raises:
        BadInput: The file is missing, unreadable or not a regular file.
    """
    with parsing(path, "a file"):
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would wait for ever
            raise BadInput("is not a regular file", "a file", path=path)
        return open(path, "rb")


def load_json(path: str | Path) -> dict:
    """Read a JSON object of at most JSON_FILE bytes.

    Raises:
        BadInput: The file is missing, too long or not a JSON object.
    """
    with open_regular(path) as file, parsing(path, "a JSON file"):
        data = file.read(JSON_FILE + 1)
    if len(data) > JSON_FILE:
        raise BadInput("is too long", f"JSON of at most {JSON_FILE} bytes", path=path)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput("is not JSON", "a JSON object", path=path) from error
    if not isinstance(value, dict):
        raise BadInput(f"holds a JSON {type(value).__name__}", "an object", path=path)
    return value


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a .npy; `file` then stands at the values.

    numpy's own reader takes all the memory that a header asks for before it looks at it.

    Returns:
        The shape, whether it is in Fortran order, and the dtype.

    Raises:
        ValueError: The header is invalid; numpy may raise other errors.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    first = version == (1, 0)
    prefix = file.read(2 if first else 4)
    length = int.from_bytes(prefix, "little")
    if length > HEADER:
        raise ValueError(f"a header of {length} bytes")
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(io.BytesIO(prefix + file.read(length)))
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    return shape, fortran, dtype


def check_length(length: int, declared: int) -> None:
    """Raise ValueError if the file is longer or shorter than its header says."""
    if length != declared:
        raise ValueError(f"it has {length} bytes, its header declares {declared}")


def load_npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """Read one .npy array.

    Args:
        path: The file.
        mmap: Map it into memory, read-only, instead of reading it.

    Raises:
        BadInput: The file is missing, damaged, pickled or not .npy, or has more than IN_MEMORY
            bytes and is not mapped.
    """
    with open_regular(path) as file, parsing(path, "a .npy array"):
        if file.read(6) != b"\x93NUMPY":
            raise BadInput("is not a .npy file", "a .npy array", path=path)
        file.seek(0)
        shape, _, dtype = read_npy_header(file)
        size = os.fstat(file.fileno()).st_size
        check_length(size, file.tell() + math.prod(shape) * dtype.itemsize)
        if size > IN_MEMORY and not mmap:
            raise BadInput(f"has {size} bytes", f"at most {IN_MEMORY}", path=path)
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


def load_images(path: str | Path) -> np.ndarray:
    """Read images from a .npy file.

    Returns:
        (N,1,H,W) float32 in [0,1].

    Raises:
        BadInput: The array has another shape, is not of floating point, or holds no images, NaN,
            or values outside [0,1] or below the range of float32.
    """
    array = load_npy(path)
    if array.ndim != 4 or array.shape[1] != 1 or 0 in array.shape:
        fix = ": save x[:, None]" if array.ndim == 3 else ""
        raise BadInput(f"has shape {array.shape}", f"(N, 1, H, W){fix}", path=path)
    if array.dtype.kind != "f":
        raise BadInput(f"has dtype {array.dtype}", "float32 in [0, 1]", path=path)
    if not np.isfinite(array).all():
        raise BadInput("holds NaN or infinite values", "finite ones in [0, 1]", path=path)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise BadInput(f"holds values in [{low:.3g}, {high:.3g}]", "[0, 1]", path=path)
    images = np.ascontiguousarray(array, dtype=np.float32)
    if np.count_nonzero(images) != np.count_nonzero(array):  # a 0 would count as missing
        smallest = np.finfo(np.float32).smallest_subnormal
        raise BadInput(f"holds values below {smallest:.1g}", "float32", path=path)
    return images


def samples_file(path: str | Path) -> Path:
    """Return the file itself, or `images.npy` inside a folder that `nogaps sample` wrote."""
    return Path(path) / "images.npy" if os.path.isdir(path) else Path(path)


def sha256(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
