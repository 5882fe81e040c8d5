"""Read and write arrays and JSON: validated when read, never half-written when written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nogaps.errors import BadInput as BadInput


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success.

    A crash leaves either the old file or the new one under the final name, never half of one.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:40]}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror})") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


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


def load_json(path: str | Path) -> dict:
    """Read a JSON object.

    Raises BadInput if the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(Path(path).read_text())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not JSON") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def load_npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """Read one .npy array (`mmap=True`: memory-mapped, read-only).

    Raises BadInput if the file is missing, damaged, pickled or not .npy.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from error
    if start != b"\x93NUMPY":
        raise BadInput(f"{path}: is not a .npy file")
    try:
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except Exception as error:  # numpy evaluates the header as Python: anything can come of it
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: is damaged or holds pickled objects ({reason[:80]})") from error


def load_images(path: str | Path) -> np.ndarray:
    """Read images from a .npy file.

    Returns (N,1,H,W) float32 in [0,1]. Raises BadInput for any other shape, a type that is not
    floating point, values outside [0,1], NaN, or no images at all.
    """
    array = load_npy(path)
    if array.ndim != 4 or array.shape[1] != 1 or 0 in array.shape:
        raise BadInput(f"{path}: has shape {array.shape}, expected (N, 1, H, W)")
    if array.dtype.kind != "f":
        raise BadInput(f"{path}: has dtype {array.dtype}, expected float32")
    if not np.isfinite(array).all():
        raise BadInput(f"{path}: holds NaN or infinite values, expected finite ones in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise BadInput(f"{path}: values in [{low:.3g}, {high:.3g}], expected [0, 1]")
    return np.ascontiguousarray(array, dtype=np.float32)


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
