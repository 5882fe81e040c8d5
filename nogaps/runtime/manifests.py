"""What a folder of samples was made with: samples of different settings are never mixed.

A folder holds `images.npy` and `manifest.json`, the settings; unfinished work lies in `.partial/`,
batch by batch, beside a manifest of its own.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np

from nogaps.runtime.files import BadInput, atomic, load_json, load_npy, save_json

MANIFEST, IMAGES, PARTIAL = "manifest.json", "images.npy", ".partial"
MEND = "use another folder or remove it"
LATE = 60  # seconds


def is_finished(out: Path, manifest: dict) -> bool:
    """Whether `out` holds all images of these settings.

    Raises BadInput if it holds images of other settings or of unknown ones, or damaged files.
    """
    if not (out / MANIFEST).exists():
        if (out / IMAGES).exists():
            raise BadInput(f"{out / IMAGES}: no {MANIFEST} tells its settings: {MEND}")
        return False
    require_same(out, manifest)
    if not (out / IMAGES).exists():
        return False
    shape = load_npy(out / IMAGES, mmap=True).shape
    if shape[:1] != (manifest["num_samples"],):
        raise BadInput(f"{out / IMAGES}: has shape {shape}, not as {MANIFEST} says: {MEND}")
    return True


def require_same(folder: Path, manifest: dict) -> None:
    """Raise BadInput unless the manifest in `folder` has every entry of `manifest`."""
    path = folder / MANIFEST
    try:
        found = load_json(path)
    except BadInput as error:
        raise BadInput(f"{error}, expected the settings of the images here: {MEND}") from error
    pairs = [
        f"{key} {found.get(key)!r}, not {value!r}"
        for key, value in manifest.items()
        if found.get(key) != value
    ]
    if pairs:
        raise BadInput(f"{path}: made with {'; '.join(pairs)}: {MEND}")


def open_partial(partial: Path, manifest: dict) -> None:
    """Make the folder of unfinished batches, or see that it belongs to these settings."""
    if (partial / MANIFEST).exists():
        require_same(partial, manifest)
    elif batches(partial):
        raise BadInput(f"{partial}: no {MANIFEST} tells the settings of its batches: {MEND}")
    else:
        save_json(partial / MANIFEST, manifest)


def await_manifest(partial: Path, manifest: dict) -> None:
    """Where the leading process has opened `partial`: see that this one would make the same.

    Another machine may see a new file late. Raises BadInput if it does not see it within a minute.
    """
    deadline = time.monotonic() + LATE
    while not (partial / MANIFEST).exists():
        if time.monotonic() > deadline:
            raise BadInput(f"{partial}: is not seen here, expected one that all machines share")
        time.sleep(0.1)
    require_same(partial, manifest)


def batches(partial: Path) -> list[Path]:
    """Finished batches in order, without what a killed process left half-written."""
    return sorted(partial.glob("[0-9]*.npy"))


def has_batch(path: Path) -> bool:
    """Whether a batch is there; one that cannot be read is said, and made again."""
    if not path.exists():
        return False
    try:
        load_npy(path, mmap=True)
    except BadInput as error:
        warnings.warn(f"{error}: made again", stacklevel=2)
        return False
    return True


def join_batches(partial: Path, path: Path, n: int) -> None:
    """Concatenate the batches of `partial` to n images, in constant memory."""
    parts = batches(partial)
    shape = (n, *load_npy(parts[0], mmap=True).shape[1:])
    # written, not mapped into memory: a disk found full while mapped kills the process
    with atomic(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        first = 0
        for part in parts:
            images = load_npy(part)
            if images.shape[1:] != shape[1:] or first + len(images) > n:
                raise BadInput(f"{part}: has shape {images.shape}, not one of these: remove it")
            file.write(np.ascontiguousarray(images, "<f4"))
            first += len(images)
        if first != n:
            raise BadInput(f"{partial}: holds {first} images, expected {n}: remove it")
