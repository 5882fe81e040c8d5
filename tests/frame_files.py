"""Frame files made of small images, as the tests of `nogaps prior prepare` need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nogaps.prior.frames.prepare import prepare_images


def read_frames(out: Path) -> dict[str, np.ndarray]:
    with np.load(out, allow_pickle=False) as archive:
        return dict(archive)


def small(sources: list[Path], out: Path, **options: object) -> dict[str, np.ndarray]:
    """The frame file for training images of 8×8, of one group or several."""
    prepare_images(sources, out, **{"size": "8", "val_share": 0.0, **options})
    return read_frames(out)
