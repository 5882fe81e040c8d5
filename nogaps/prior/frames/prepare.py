"""Frames made of any images, taken whole; those of heads by landmarks: heads.py."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nogaps.images.nifti import check_plane
from nogaps.prior.frames.sources import SourceFile, list_files, read_slices
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import parsing, save_npz
from nogaps.runtime.progress import progress

FRAME_PIXELS = 1 << 30  # of all frames of a file; in memory twice, 1 or 2 bytes each
FITS = ("pad", "crop", "stretch")


class Prepared(NamedTuple):
    """What was written to a frame file, and what was not.

    Attributes:
        counts: Images per split.
        groups: Groups per split.
        left_out: Files left out, by kind.
        skipped: A line for each bad file left out.
    """

    counts: dict[str, int]
    groups: dict[str, int]
    left_out: dict[str, list[str]]
    skipped: list[str]


def save_frames(
    out: str | Path, images: Sequence[np.ndarray], texts: dict[str, Sequence[str]]
) -> Prepared:
    """Write a frame file; warn of groups in two splits.

    Args:
        out: The .npz.
        images: (2H,2W) uint8 or uint16, of one size.
        texts: "source_file", "group", "split" and "licence" of each image.
    """
    arrays = {name: np.array(values) for name, values in texts.items()}
    save_npz(out, images=np.stack(images), **arrays)
    pairs = set(zip(texts["group"], texts["split"], strict=True))
    splits = Counter(group for group, _ in pairs)
    if shared := sorted(group for group, n in splits.items() if n > 1):
        text = f"{len(shared)} of {len(splits)} groups lie in two splits ({', '.join(shared[:3])})"
        warnings.warn(f"{text}: scores on val are too good", stacklevel=2)
    counts = Counter(texts["split"]), Counter(split for _, split in pairs)
    return Prepared(*(dict(sorted(count.items())) for count in counts), {}, [])


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
        fit: See `fit_to`.
        plane: Of NIfTI, see `read_volume`.
        slices: Of NIfTI, "START:STOP[:STEP]", or a share around the middle.
        val_share: See `assign_splits`.
        skip_bad: Leave out files that are damaged, or of another aspect than `size` without `fit`.

    Raises:
        BadInput: No images, a bad file, an option that does not fit, more than FRAME_PIXELS in all.
    """
    target, chosen = _parse_size(size), _parse_slices(slices)
    _check_options(out, fit, plane, val_share)
    files, left_out = list_files(paths)
    most = FRAME_PIXELS // (target[0] * target[1])
    frames: list[tuple[np.ndarray, str, str]] = []  # with name and group
    skipped: list[str] = []
    for file in progress(files, "reading", delay=1):
        try:
            made = _frames_of(file, target, fit, plane, chosen)
            made = list(islice(made, most + 1 - len(frames)))
        except BadInput as error:
            skipped.append(str(error))
            if skip_bad and len(skipped) < len(files):
                continue
            raise BadInput(f"{error}; --skip-bad leaves such files out") from error
        frames += made
        if len(frames) > most:
            problem = f"comes to more than {FRAME_PIXELS} pixels in all frames"
            raise BadInput(problem, "fewer images or a smaller --size", path=file.path)
    images, names, groups = zip(*frames, strict=True)
    texts = {"split": assign_splits(groups, val_share), "licence": [""] * len(images)}
    prepared = save_frames(out, images, {**texts, "source_file": names, "group": groups})
    return prepared._replace(left_out=left_out, skipped=skipped)


def _frames_of(
    file: SourceFile,
    size: tuple[int, int],
    fit: str | None,
    plane: str | None,
    slices: slice | float,
) -> Iterator[tuple[np.ndarray, str, str]]:
    """The images of a file as frames, with name and group."""
    with parsing(file.path, "images of a size that can be changed"):
        for image in read_slices(file.path, plane, slices):
            name = f"{file.name}#{image.label}" if image.label else file.name
            yield fit_to(image.pixels, size, fit, image.spacing, name), name, file.group


def fit_to(
    image: np.ndarray,
    size: tuple[int, int],
    fit: str | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
    name: str = "image",
) -> np.ndarray:
    """Resample an image; bicubic, with anti-aliasing where it shrinks.

    Args:
        image: (H, W) integers.
        size: Rows and columns of the result.
        fit: "pad" (zeros around it), "crop" (what is too long) or "stretch".
        spacing: Height and width of its pixels, which count for its aspect.
        name: Of the image, for the message.

    Returns:
        An array of this size, of the type and within the range of `image`.

    Raises:
        BadInput: It has another aspect, and `fit` is None.
    """
    (height, width), (rows, columns) = image.shape, size
    ratio = width * spacing[1] * rows / (height * spacing[0] * columns)  # above 1: too wide
    if fit is None and abs(ratio - 1) > 1e-3:
        problem = f"{height}×{width} pixels of {spacing[0]:.3g}×{spacing[1]:.3g}"
        raise BadInput(
            f"{problem} do not fill {rows}×{columns}", "--fit pad|crop|stretch", path=name
        )
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
    frame[top : top + inner[1], left : left + inner[0]] = np.clip(
        np.rint(small), image.min(), image.max()
    )
    return frame


def assign_splits(groups: Sequence[str], val_share: float) -> list[str]:
    """Split images into "train" and "val" by whole groups.

    Args:
        groups: Of each image.
        val_share: The share of the groups, those whose names come first by sha256, that is
            "val": at least one and not all (0: none; 1: all).

    Returns:
        The split of each image.

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


def _check_options(out: str | Path, fit: str | None, plane: str | None, val_share: float) -> None:
    if Path(out).suffix.lower() != ".npz":
        raise BadInput(f"--out {out}: expected a name that ends in .npz")
    if fit not in (None, *FITS):
        raise BadInput(f"--fit {fit}: expected {', '.join(FITS)}")
    check_plane(plane)
    if not 0 <= val_share <= 1:
        raise BadInput(f"--val-share {val_share}: expected 0 to 1")


def check_preview(preview: str | Path, paths: Sequence[str | Path]) -> None:
    """Raise BadInput if a picture lies in `paths`, which would read it next time."""
    place = Path(os.path.realpath(preview))
    if any(place.is_relative_to(os.path.realpath(path)) for path in paths):
        raise BadInput(f"--preview {preview}: lies in a source, expected another place")
