"""What the page shows of a result, and the files that can be downloaded."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from nogaps.demo.uploads import OUT, Item, Results, split_name
from nogaps.images.arrays import ArrayFile
from nogaps.images.formats import kind_of
from nogaps.runtime.files import atomic, load_npy, save_npy

SIDE = 512  # screen pixels that small images are enlarged to, each pixel a square
HOLE = np.array([31, 95, 120], np.uint8)  # colour of missing pixels
COLOURS = "magma"  # of half-widths
LEVELS = 65535


@dataclass(frozen=True)
class View:
    """One image as the page shows it: (H,W,3) uint8 each, enlarged by whole numbers."""

    before: np.ndarray
    marked: np.ndarray  # the input, with missing pixels in `HOLE`
    after: np.ndarray
    half: np.ndarray | None  # the half-widths in `COLOURS`, if there are any
    top: float  # the half-width that has the last colour


def view(item: Item, index: int) -> View:
    """Return image `index` of an item; slices of NIfTI as stored are turned by 90°."""
    stored = kind_of(item.source) == "nifti" and item.plane is None
    turn = np.rot90 if stored else np.asarray
    before, after = (turn(item.read(path, index)) for path in (item.source, item.output))
    mask = turn(item.masks[index])
    span = _range(after[mask]) if item.report.scaled else (0.0, 1.0)
    both = np.stack([np.where(mask, before, span[0]), after])
    grey = np.repeat(_levels(both, *span, 255).astype(np.uint8)[..., None], 3, -1)
    marked = np.where(mask[..., None], grey[0], HOLE)
    half, top = None, 0.0
    if item.half is not None:
        width = turn(_half_width(item, index))
        top = float(width.max())
        half = _enlarged(matplotlib.colormaps[COLOURS](width / (top or 1), bytes=True)[..., :3])
    return View(_enlarged(grey[0]), _enlarged(marked), _enlarged(grey[1]), half, top)


def colour_stops() -> list[str]:
    """Return the colours of half-widths from 0 to `View.top`, as a style sheet writes them."""
    return [to_hex(colour) for colour in matplotlib.colormaps[COLOURS](np.linspace(0, 1, 8))]


def _half_width(item: Item, index: int) -> np.ndarray:
    """Return half-widths (H,W); slices lie in their file as they do in the output."""
    widths = load_npy(item.half, mmap=True)
    with item.opened(item.output) as source:
        if not isinstance(source, ArrayFile):
            return np.array(widths[index])
        volumes = source.by_slices(widths)
    return np.array(volumes[divmod(index, volumes.shape[1])])


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return min(0, lowest) and the highest value, as images are scaled for the network."""
    low, high = min(0.0, float(values.min())), float(values.max())
    return low, high if high > low else low + 1.0


def _levels(image: np.ndarray, low: float, high: float, top: int) -> np.ndarray:
    """Return the image in levels from 0, for `low`, to `top`, for `high`."""
    return np.rint(top * np.clip((image.astype(np.float64) - low) / (high - low), 0, 1))


def _enlarged(image: np.ndarray) -> np.ndarray:
    times = max(1, SIDE // max(image.shape[:2]))
    return image.repeat(times, 0).repeat(times, 1)


def downloads(results: Results) -> dict[str, Path | None]:
    """Write the files that the user can download; of several of a kind, a .zip.

    The .npy of a .npy is the file that `nogaps fill` writes. PNGs are those of `nogaps fill` for
    PNGs. Of other integers that fit they hold the values, of floats in [0,1] those times 65,535,
    of anything else the file's range in 16 bits.

    Returns:
        "npy", "png", "own" (the input's format, None where it is one of these) and "half" (None
        without half-widths).
    """
    folder, items = results.folder / OUT, results.items
    own = [item.output for item in items if item.output.suffix.lower() not in (".npy", "")]
    half = [item.half for item in items if item.half is not None]
    pngs = [path for item in items for path in _pngs(item)]
    return {
        "npy": _bundle([_npy(item) for item in items], folder, "filled_npy"),
        "png": _bundle(pngs, folder, "filled_png"),
        "own": _bundle(own, folder, "filled") if own else None,
        "half": _bundle(half, folder, "half_widths") if half else None,
    }


def _npy(item: Item) -> Path:
    if item.output.suffix.lower() == ".npy":
        return item.output
    path = item.output.parent / f"{split_name(item.source)[0]}_filled.npy"
    with item.opened(item.output) as source:
        save_npy(path, source.read(0, source.shape[0]))
    return path


def _pngs(item: Item) -> list[Path]:
    if item.output.is_dir():
        return sorted(item.output.iterdir())
    folder, stem = item.output.parent / "png", split_name(item.source)[0]
    folder.mkdir()
    with item.opened(item.output) as source:
        images = source.read(0, source.shape[0])
    if images.dtype.kind == "u" and images.dtype.itemsize <= 2:
        pixels = images.astype(images.dtype.newbyteorder("="))
    else:
        ends = _range(images) if item.report.scaled else (0, 1)
        pixels = _levels(images, *ends, LEVELS).astype(np.uint16)
    paths, digits = [], len(str(len(images) - 1))
    for k, image in enumerate(pixels):
        number = f"_{k:0{digits}d}" if len(images) > 1 else ""
        paths.append(folder / f"{stem}_filled{number}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def _bundle(paths: Sequence[Path], folder: Path, name: str) -> Path:
    """Return the one file, or a .zip of several, by their names where these differ."""
    if len(paths) == 1:
        return paths[0]
    differ = len({path.name for path in paths}) == len(paths)
    with atomic(folder / f"{name}.zip") as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in paths:
            member = path.name if differ else path.relative_to(folder).as_posix()
            archive.writestr(zipfile.ZipInfo(member), path.read_bytes())  # a fixed date
    return folder / f"{name}.zip"
