"""Frames made of any images, taken whole; those of heads by landmarks: heads.py."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nogaps.images.nifti import check_plane
from nogaps.prior.frames.groups import Prepared, count_splits
from nogaps.prior.frames.slices import Slice, read_files
from nogaps.prior.frames.sources import SourceFile, list_files
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, parsing, save_npz

FRAME_PIXELS = 1 << 30  # of all frames of a file; in memory twice, 1 or 2 bytes each
FITS = ("pad", "crop", "stretch")
COLUMNS, ROWS, CELL = 6, 4, 128  # of a preview; CELL: screen pixels of an image, at least


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
            65535 is the highest value of a volume, an array, or a group of PNGs.
        size: "64" or "256x128" (H×W) of the training images.
        fit: See `fit_to`.
        plane: Of NIfTI, see `read_volume`.
        slices: Of NIfTI, "START:STOP[:STEP]", or a share around the middle.
        val_share: See `assign_splits`.
        skip_bad: Leave out files that are damaged, or of another size than most of their folder.

    Raises:
        BadInput: No images, a bad file, an option that does not fit, images of another aspect
            than `size` without `fit`, more than FRAME_PIXELS in all.
    """
    target, chosen = _parse_size(size), _parse_slices(slices)
    _check_options(out, fit, plane, val_share)
    files, left_out = list_files(paths)
    frames: list[_Frame] = []
    bad: dict[SourceFile, BadInput] = {}
    for file, image in read_files(files, plane, chosen):
        if isinstance(image, BadInput):
            bad[file] = image
            continue
        frames.append(_frame(file, image, target, fit))
        if len(frames) * target[0] * target[1] > FRAME_PIXELS:
            problem = f"comes to more than {FRAME_PIXELS} pixels in all frames"
            raise BadInput(problem, "fewer images or a smaller --size", path=file.path)
    frames = [frame for frame in frames if frame.file not in bad]
    skipped = [str(error) for error in bad.values()]
    if bad and not (skip_bad and frames):
        many = f"{len(bad)} of {len(files)} files cannot be used"
        raise BadInput(f"{skipped[0]}; {many}, --skip-bad leaves such files out")
    given, groups = [frame.file.split for frame in frames], [frame.file.group for frame in frames]
    splits = assign_splits(groups, given, val_share)
    _save_frames(out, frames, splits)
    return Prepared(*count_splits(groups, splits), left_out, skipped)


@dataclass(frozen=True)
class _Frame:
    file: SourceFile
    name: str
    pixels: np.ndarray
    top: int


def _frame(file: SourceFile, image: Slice, size: tuple[int, int], fit: str | None) -> _Frame:
    name = f"{file.name}#{image.label}" if image.label else file.name
    with parsing(file.path, "an image of a size that can be changed"):
        pixels = fit_to(image.pixels, size, fit, image.spacing, name)
    return _Frame(file, name, pixels, image.top)


def _save_frames(out: str | Path, frames: Sequence[_Frame], splits: Sequence[str]) -> None:
    """16-bit frames are scaled by the highest value of their group: never slice by slice."""
    tops: dict[str, int] = defaultdict(int)
    deep = [frame for frame in frames if frame.pixels.dtype == np.uint16]
    for frame in deep:
        tops[frame.file.group] = max(tops[frame.file.group], frame.top, 1)
    images = np.empty((len(frames), *frames[0].pixels.shape), np.uint16 if deep else np.uint8)
    for k, frame in enumerate(frames):
        top = 255 if frame.pixels.dtype == np.uint8 else tops[frame.file.group]
        images[k] = np.rint(frame.pixels * (65535 / top)) if deep else frame.pixels
    save_npz(
        out,
        images=images,
        source_file=np.array([frame.name for frame in frames]),
        group=np.array([frame.file.group for frame in frames]),
        split=np.array(splits),
        licence=np.full(len(frames), ""),
    )


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


def assign_splits(groups: Sequence[str], given: Sequence[str], val_share: float) -> list[str]:
    """Split images into "train" and "val" by whole groups.

    Args:
        groups: Of each image.
        given: Its split, "" where there is none. If "val" is among them, only images without a
            split are assigned; if not, those of "train" as well.
        val_share: The share of the groups, those whose names come first by sha256, that is
            "val": at least one and not all (0: none; 1: all).

    Returns:
        The split of each image.

    Raises:
        BadInput: There is only one group to split.
    """
    kept = {s for s in given if s} if "val" in given else {"test"}
    fixed = {group: split for group, split in zip(groups, given, strict=True) if split in kept}
    names = sorted(set(groups) - set(fixed), key=lambda g: hashlib.sha256(g.encode()).digest())
    count = round(val_share * len(names))
    if val_share not in (0, 1):
        count = min(max(1, count), len(names) - 1)
        if len(names) == 1 and "val" not in given:
            problem, expected = "is the only group", "two to split, or --val-share 0 or 1"
            raise BadInput(problem, expected, path=names[0])
    fixed |= {name: "val" if k < count else "train" for k, name in enumerate(names)}
    return [s if s in kept else fixed[g] for g, s in zip(groups, given, strict=True)]


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
    """Raise BadInput unless `preview` is a .png outside `paths`, which would read it next time."""
    if Path(preview).suffix.lower() != ".png":
        raise BadInput(f"--preview {preview}: expected a name that ends in .png")
    place = Path(os.path.realpath(preview))
    for path in map(Path, map(os.path.realpath, paths)):
        if path == place or path in place.parents:
            raise BadInput(f"--preview {preview}: lies in a source, expected another place")


def save_preview(frames: str | Path, preview: str | Path) -> None:
    """Draw evenly spaced images of a frame file, as training sees them, with name and split.

    Args:
        frames: The frame file.
        preview: The PNG to write: at most COLUMNS × ROWS images, those of "train" named in
            yellow, of other splits in cyan.
    """
    import matplotlib.pyplot as plt

    from nogaps.figures import show_rows
    from nogaps.prior.frames.files import to_size, unit_range

    with np.load(frames, allow_pickle=False) as archive:
        images, names, splits = (archive[name] for name in ("images", "source_file", "split"))
    columns = min(COLUMNS, len(images))
    rows = min(ROWS, len(images) // columns)
    at = np.linspace(0, len(images) - 1, rows * columns).round().astype(int).reshape(rows, columns)
    x = {f"{r[0]} to {r[-1]}": to_size(unit_range(images[r])) for r in at}
    height, width = next(iter(x.values())).shape[-2:]
    zoom = -(-max(CELL, height) // width)
    counts = ", ".join(f"{n} {split}" for split, n in sorted(Counter(splits.tolist()).items()))
    title = f"{Path(frames).name}: {len(images)} images of {height}×{width} ({counts})"
    figure = show_rows(x, title, columns, zoom=zoom)
    for axis, name, split in zip(figure.axes, names[at.flat], splits[at.flat], strict=False):
        text = str(name)[-zoom * width // 5 :].encode("ascii", "replace").decode()
        style = {"fontsize": 6, "color": "yellow" if split == "train" else "cyan", "va": "top"}
        style["bbox"] = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1}
        axis.text(0.02, 0.98, text, transform=axis.transAxes, parse_math=False, **style)
    with atomic(preview) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)
