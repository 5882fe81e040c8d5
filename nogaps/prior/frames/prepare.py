"""Frames made of any images, taken whole; those of heads by landmarks: heads.py."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from nogaps.images.nifti import check_plane
from nogaps.prior.frames import Prepared, save_frames
from nogaps.prior.frames.sources import SourceFile, list_files, read_slices
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import parsing
from nogaps.runtime.progress import progress

FRAME_PIXELS = 1 << 30  # of all frames of a file; in memory twice, 1 or 2 bytes each
Frame = tuple[np.ndarray, str, str]  # with name and group
FITS = ("pad", "crop", "stretch")


def prepare_images(
    paths: Sequence[str | Path],
    out: str | Path,
    size: str = "64",
    fit: str | None = None,
    plane: str | None = None,
    slices: str = "0.2",
    val_share: float = 0.1,
    skip_bad: bool = False,
) -> Prepared:
    """Write the images in folders and files to a frame file, whole.

    Args:
        paths: See `list_files`.
        out: The .npz. Its images are (N,2H,2W) uint8 if all that was read is, else uint16, where
            65535 is the highest value of a volume or an array; PNGs keep their values.
        size: "64" or "256x128" (H×W) of the training images.
        fit, val_share: See `fit_to`, `assign_splits`.
        plane, slices: See `read_slices`; slices as "START:STOP[:STEP]" or "SHARE".
        skip_bad: Leave out files that are damaged, or of another aspect than `size` without `fit`.

    Raises:
        BadInput: No images, a bad file, an option that does not fit, more than FRAME_PIXELS in all.
    """
    if Path(out).suffix.lower() != ".npz":
        raise BadInput(f"--out {out}: expected a name that ends in .npz")
    if fit not in (None, *FITS):
        raise BadInput(f"--fit {fit}: expected {', '.join(FITS)}")
    if not 0 <= val_share <= 1:
        raise BadInput(f"--val-share {val_share}: expected 0 to 1")
    check_plane(plane)
    target, chosen = _parse_size(size), _parse_slices(slices)
    files, left_out = list_files(paths)

    def frames_of(file: SourceFile) -> Iterator[Frame]:
        with parsing(file.path, "images of a size that can be changed"):
            for image in read_slices(file.path, plane, chosen):
                name = f"{file.name}#{image.label}" if image.label else file.name
                yield fit_to(image.pixels, target, fit, image.spacing, name), name, file.group

    most = FRAME_PIXELS // (target[0] * target[1])
    frames, skipped = _read_all(files, frames_of, most, skip_bad)
    images, names, groups = zip(*frames, strict=True)
    texts = {"split": assign_splits(groups, val_share), "licence": [""] * len(images)}
    prepared = save_frames(out, images, {**texts, "source_file": names, "group": groups})
    return prepared._replace(left_out=left_out, skipped=skipped)


def _read_all(
    files: list[SourceFile],
    frames_of: Callable[[SourceFile], Iterator[Frame]],
    most: int,
    skip_bad: bool,
) -> tuple[list[Frame], list[str]]:
    """At most `most` frames of the files, and a line for each bad file left out."""
    frames: list[Frame] = []
    skipped: list[str] = []
    for file in progress(files, "reading", delay=1):
        try:
            made = list(islice(frames_of(file), most + 1 - len(frames)))
        except BadInput as error:
            skipped.append(str(error))
            if skip_bad and len(skipped) < len(files):
                continue
            raise BadInput(f"{error}; --skip-bad leaves such files out") from error
        frames += made
        if len(frames) > most:
            problem = f"comes to more than {FRAME_PIXELS} pixels in all frames"
            raise BadInput(problem, "fewer images or a smaller --size", path=file.path)
    return frames, skipped


def fit_to(
    image: np.ndarray,
    size: tuple[int, int],
    fit: str | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
    name: str = "image",
) -> np.ndarray:
    """Resample an image, within its range; bicubic, with anti-aliasing where it shrinks.

    Args:
        image: (H, W) integers.
        size: Rows and columns of the result.
        fit: "pad" (zeros around it), "crop" (what is too long) or "stretch".
        spacing: Height and width of its pixels, which count for its aspect.
        name: Of the image, for the message.

    Raises:
        BadInput: It has another aspect, and `fit` is None.
    """
    (height, width), (rows, columns) = image.shape, size
    ratio = width * spacing[1] * rows / (height * spacing[0] * columns)  # above 1: too wide
    if fit is None and abs(ratio - 1) > 1e-3:
        problem = f"{height}×{width} pixels of {spacing[0]:.3g}×{spacing[1]:.3g} do not fill "
        raise BadInput(f"{problem}{rows}×{columns}", "--fit pad|crop|stretch", path=name)
    inner, box = (columns, rows), (0.0, 0.0, width, height)
    if fit == "crop":
        x, y = max(0, 1 - 1 / ratio) * width / 2, max(0, 1 - ratio) * height / 2
        box = (x, y, width - x, height - y)
    elif fit == "pad":
        inner = max(1, round(columns * min(1, ratio))), max(1, round(rows / max(1, ratio)))
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    small = np.asarray(picture.resize(inner, Image.Resampling.BICUBIC, box))
    top, left = (rows - inner[1]) // 2, (columns - inner[0]) // 2
    frame = np.zeros(size, image.dtype)
    small = np.rint(small).clip(image.min(), image.max())
    frame[top : top + inner[1], left : left + inner[0]] = small
    return frame


def assign_splits(groups: Sequence[str], val_share: float) -> list[str]:
    """Return the split of each image, "train" or "val", by whole groups.

    Args:
        groups: Of each image.
        val_share: The share of the groups, those whose names come first by sha256, that is
            "val": at least one and not all (0: none; 1: all).

    Raises:
        BadInput: There is only one group to split.
    """
    names = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    count = round(val_share * len(names))
    if val_share not in (0, 1):
        if len(names) == 1:
            problem, expected = "is the only group", "two to split, or --val-share 0 or 1"
            raise BadInput(problem, expected, path=names[0])
        count = min(max(1, count), len(names) - 1)
    val = set(names[:count])
    return ["val" if group in val else "train" for group in groups]


def _parse_size(text: str) -> tuple[int, int]:
    """Size of the frames, twice that of the training images."""
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    height, width = (int(n) for n in (match[1], match[2] or match[1])) if match else (0, 0)
    if not (min(height, width) >= 8 and max(height, width) <= 2048):
        raise BadInput(f"--size {text}: expected H or HxW, from 8 to 2048")
    return 2 * height, 2 * width


def _parse_slices(text: str) -> slice | float:
    try:
        if ":" not in text and 0 < float(text) <= 1:
            return float(text)
        start, stop, step = (int(n) if n else None for n in [*text.split(":"), "1"][:3])
        if ":" in text and text.count(":") < 3 and (step is None or step > 0):
            return slice(start, stop, step)
    except ValueError:
        pass
    raise BadInput(f"--slices {text}: expected START:STOP[:STEP], or a share from 0 to 1")


def check_preview(preview: str | Path, paths: Sequence[str | Path]) -> None:
    """Raise BadInput if a picture lies in `paths`, which would read it next time."""
    place = Path(os.path.realpath(preview))
    if any(place.is_relative_to(os.path.realpath(path)) for path in paths):
        raise BadInput(f"--preview {preview}: lies in a source, expected another place")
