"""Head slices framed like the test set: skull top at row 8, occiput to forehead 57 of 64 columns.

The landmarks of each slice stand in an index (CSV): `source_file`, `flip_left_right` (mirror so
that the nose points right), `skull_top_row`, `occiput_col`, `forehead_col` (pixels of the mirrored
slice), `group` (a subject, or near-duplicates) and `split` (train, val, standin).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from scipy import ndimage

from nogaps.images.png import read_shown
from nogaps.prior.frames import Prepared, save_frames
from nogaps.prior.frames.sources import FORMATS
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import open_regular, parsing

INDEX_FILE = 1 << 24  # bytes of an index, at most
FARTHEST = 10_000  # pixels of a slice that a landmark may lie away from its corner
SIZE = 64  # of the test set's images
FRAME = 128  # frames are kept at twice that size, for warping
TOP_ROW, HEAD_COLUMNS = 8.0, 57.0  # where the head lies, in pixels of a 64×64 image
LANDMARKS = ("flip_left_right", "skull_top_row", "occiput_col", "forehead_col")


def read_index(path: str | Path) -> list[dict[str, str]]:
    """Read the rows of an index of head slices.

    Raises:
        BadInput: It is not such a CSV.
    """
    with open_regular(path) as file, parsing(path, "a CSV index"):
        data = file.read(INDEX_FILE + 1)
        if len(data) > INDEX_FILE:
            raise ValueError(f"more than {INDEX_FILE} bytes")
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    if not rows:
        raise BadInput("has no rows", "one per slice", path=path)
    for number, row in enumerate(rows, 2):
        missing = [n for n in ("source_file", *LANDMARKS, "group", "split") if row.get(n) is None]
        if missing:
            raise BadInput(f"row {number} lacks {', '.join(missing)}", "all", path=path)
    return rows


def read_slice(path: str | Path) -> np.ndarray:
    """Read a PNG or JPEG as (H, W) uint8 grey levels, as viewers show it.

    Raises:
        BadInput: It is missing, damaged, or has 16 bits.
    """
    pixels = read_shown(path, FORMATS)
    if pixels.dtype != np.uint8:
        raise BadInput("has 16 bits", "8 bits of grey", path=path)
    return pixels


def _frame(row: dict[str, str], source: Path, index: str | Path) -> np.ndarray:
    """The slice of one row, framed: (128, 128) uint8."""
    image, name = read_slice(source / row["source_file"]), row["source_file"]
    try:
        flip, top, occiput, forehead = (float(row[landmark]) for landmark in LANDMARKS)
        possible = all(abs(at) <= FARTHEST for at in (top, occiput, forehead))
    except ValueError:
        possible = False
    if not possible or forehead <= occiput:
        expected = "numbers within the image, forehead_col above occiput_col"
        raise BadInput(f"{name}: its landmarks are impossible", expected, path=index)
    frame = frame_slice(image[:, ::-1] if flip else image, top, occiput, forehead)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def frame_slice(image: np.ndarray, top: float, occiput: float, forehead: float) -> np.ndarray:
    """Resample one slice so that its head lies where the test set's heads lie.

    A Gaussian filter keeps frequencies that 64×64 cannot hold from folding back.

    Args:
        image: (H, W), any range.
        top: The row of the skull's top, in its pixels.
        occiput, forehead: The columns of the back of the head and, above it, of the forehead.

    Returns:
        (128, 128) float64 in the range of the input; 0 outside the slice.
    """
    scale = (forehead - occiput) / HEAD_COLUMNS
    smooth = ndimage.gaussian_filter(image.astype(np.float64), max(0.0, scale / 4 - 0.5))
    position = (np.arange(FRAME) + 0.5) / 2
    rows = top + (position - TOP_ROW) * scale
    columns = (occiput + forehead) / 2 + (position - (SIZE - 1) / 2) * scale
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(smooth, grid, order=1, mode="constant", cval=0.0)


def prepare(source: str | Path, index: str | Path, out: str | Path) -> Prepared:
    """Frame every slice that an index lists.

    Args:
        source: The folder that its `source_file` names start from.
        index: The CSV.
        out: The .npz to write, with images (N,128,128) uint8.

    Raises:
        BadInput: A wrong index, or a bad image.
    """
    rows = read_index(index)
    images = [_frame(row, Path(source), index) for row in rows]
    names = ("split", "licence", "source_file", "group")
    texts = {name: [row.get(name) or "" for row in rows] for name in names}
    return save_frames(out, images, texts)
