"""The stand-in for the course's test set: real heads with the course's mask and its traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nogaps.runtime.files import save_npy, sha256

DATA = Path(__file__).parent / "data" / "standin.npz"
KINDS = {
    "81f2b487abb8a2cb181a91c2ba30c423fa7fda790a8f149d2ceda14d6192e2a8": "course file",
    "43004f0009fd32926b958d1e7d3e5a7ed0060db5d1bfa34465cc3fce7d503725": "stand-in",
}
LEVELS = 65535  # clean frames are kept as 16-bit grey levels


def _stored(name: str) -> np.ndarray:
    with np.load(DATA, allow_pickle=False) as archive:
        return archive[name]


def clean_images() -> np.ndarray:
    """Return the truth behind the stand-in, (100,1,64,64) float32 in [0,1]."""
    return (_stored("images")[:, None] / np.float32(LEVELS)).astype(np.float32)


def subjects() -> np.ndarray:
    """Return the subject of each stand-in image, (100,) str: the groups of the bootstrap."""
    return _stored("group")


def course_mask() -> np.ndarray:
    """Return the course's mask, (64,64) bool, True = observed, 2,073 pixels missing."""
    return _stored("mask")


def corrupted_images() -> np.ndarray:
    """Return the content of the stand-in `test_set.npy`, (100,1,64,64) float32 in [0,1]."""
    return clean_images() * course_mask()


def write_test_set(path: str | Path) -> None:
    """Write the stand-in `test_set.npy`, with the same bytes on every machine."""
    save_npy(path, corrupted_images())


def kind_of(path: str | Path) -> str:
    """Tell by its sha256 which test set a file is: "course file", "stand-in" or "own file"."""
    return KINDS.get(sha256(path), "own file")
