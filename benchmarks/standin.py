"""Make the stand-in test set of the package from frames, as it was made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nogaps import standin
from nogaps.images.npz import load_npz
from nogaps.prior.frames.files import load_frames, to_size
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, save_npz

SHARE_WITH_ZERO, TINY_VALUES = 0.56, 159  # as counted in the course's file


def build(frames: str | Path, course_file: str | Path, out: str | Path = standin.DATA) -> None:
    """Make the package's data file from the stand-in split of a frame file (`prior prepare`).

    The background gets a faint noise floor, as in the course's file; about half of the images
    get one true zero at an observed pixel, and a few observed pixels values below 0.001, so that
    a mask read from one image, or by a threshold, is wrong. course_file supplies the mask only.
    """
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
    levels = np.rint(x * standin.LEVELS).astype(np.uint16)
    info = {name: values[order] for name, values in info.items()}
    save_npz(out, images=levels, mask=mask, **info)
