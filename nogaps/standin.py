"""The stand-in for the course's test set: real heads with the course's mask and its traps."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from nogaps.files import BadInput, load_images, save_npy, save_npz, sha256
from nogaps.formats.archives import load_npz

DATA = Path(__file__).parent / "data" / "standin.npz"
COURSE_SHA256 = "81f2b487abb8a2cb181a91c2ba30c423fa7fda790a8f149d2ceda14d6192e2a8"
LEVELS = 65535  # clean frames are kept as 16-bit grey levels
SHARE_WITH_ZERO, TINY_VALUES = 0.56, 159  # as counted in the course's file


def clean_images() -> np.ndarray:
    """The truth behind the stand-in, (100,1,64,64) float32 in [0,1]."""
    with np.load(DATA, allow_pickle=False) as archive:
        return (archive["images"][:, None] / np.float32(LEVELS)).astype(np.float32)


def subjects() -> np.ndarray:
    """Subject of each stand-in image, (100,) str: the groups of the bootstrap."""
    with np.load(DATA, allow_pickle=False) as archive:
        return archive["group"]


def course_mask() -> np.ndarray:
    """The course's mask, (64,64) bool, True = observed, 2,073 pixels missing."""
    with np.load(DATA, allow_pickle=False) as archive:
        return archive["mask"]


def corrupted_images() -> np.ndarray:
    """The content of the stand-in `test_set.npy`, (100,1,64,64) float32 in [0,1]."""
    return clean_images() * course_mask()


def write_test_set(path: str | Path) -> None:
    """Write the stand-in `test_set.npy`, bit for bit the same on every machine."""
    save_npy(path, corrupted_images())


def kind_of(path: str | Path) -> str:
    """Which test set a file is, by sha256: "course file", "stand-in" or "own file"."""
    found = sha256(path)
    if found == COURSE_SHA256:
        return "course file"
    buffer = io.BytesIO()
    np.save(buffer, corrupted_images(), allow_pickle=False)
    return "stand-in" if found == hashlib.sha256(buffer.getvalue()).hexdigest() else "own file"


def build(frames: str | Path, course_file: str | Path, out: str | Path = DATA) -> None:
    """Make the package's data file from the stand-in split of a frame file (`prior prepare`).

    The background gets a faint noise floor, as in the course's file; about half of the images
    get one true zero at an observed pixel, and a few observed pixels values below 0.001, so that
    a mask read from one image, or by a threshold, is wrong. course_file supplies the mask only.
    """
    from nogaps.prior.heads import load_frames, to_size

    x, _ = load_frames(frames, "standin")
    x = to_size(x)[:, 0].numpy()
    mask = (load_images(course_file) != 0).any((0, 1))
    content = load_npz(frames)
    keep = content["split"] == "standin"
    info = {name: content[name][keep] for name in ("group", "source_file", "licence")}
    if not keep.any():
        raise BadInput(f"{frames}: no frames of the split 'standin'")
    rng = np.random.default_rng(2048)
    order = rng.permutation(len(x))
    x = np.maximum(x[order], rng.uniform(0.003, 0.008, x.shape))
    dark = np.argwhere((x < 0.008) & mask)
    rng.shuffle(dark)
    x[tuple(dark[:TINY_VALUES].T)] = rng.uniform(1e-4, 1e-3, TINY_VALUES)
    for k in rng.permutation(len(x))[: round(SHARE_WITH_ZERO * len(x))]:
        darkest = np.argsort(np.where(mask, x[k], 2), axis=None)[:100]
        x[k].flat[rng.choice(darkest)] = 0
    levels = np.rint(x * LEVELS).astype(np.uint16)
    info = {name: values[order] for name, values in info.items()}
    save_npz(out, images=levels, mask=mask, **info)
