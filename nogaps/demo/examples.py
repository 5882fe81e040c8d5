"""Examples of the page: real heads of the stand-in test set, in the files that people have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps import standin
from nogaps.runtime.files import save_npy


@dataclass(frozen=True)
class Example:
    """Files to upload, and a mask where one image alone does not tell it."""

    label: str
    files: list[Path]
    mask: Path | None = None


def write_examples(folder: Path) -> list[Example]:
    """Write to `folder`: a .npy of ten heads, PNGs of 16 bits, one head and its mask."""
    from PIL import Image

    heads, one, mask = (folder / name for name in ("heads.npy", "one_head.npy", "mask.npy"))
    y = standin.corrupted_images()
    save_npy(heads, y[::10])
    save_npy(one, y[5:6])
    save_npy(mask, standin.course_mask())
    pngs = []
    for k, image in enumerate(np.rint(y[3::16, 0] * standin.LEVELS).astype(np.uint16)):
        pngs.append(folder / f"head_{k}.png")
        Image.fromarray(image).save(pngs[-1])
    return [
        Example("10 heads", [heads]),
        Example(f"{len(pngs)} PNGs", pngs),
        Example("1 and its mask", [one], mask),
    ]
