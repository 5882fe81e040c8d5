"""Head slices framed like the test set: skull top at row 8, occiput to forehead 57 of 64 columns.

The landmarks of each slice stand in an index (CSV): `source_file`, `flip_left_right` (mirror so
that the nose points right), `skull_top_row`, `occiput_col`, `forehead_col` (pixels of the mirrored
slice), `group` (a subject, or near-duplicates) and `split` (train, val, standin).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nogaps.images.framing import frame_slice
from nogaps.images.npz import load_npz
from nogaps.prior.frames.sources import read_still
from nogaps.runtime.files import BadInput, open_regular, parsing, save_npz

INDEX_FILE = 1 << 24  # bytes of an index, at most
FARTHEST = 10_000  # pixels of a slice that a landmark may lie away from its corner
LANDMARKS = ("flip_left_right", "skull_top_row", "occiput_col", "forehead_col")


def read_index(path: str | Path) -> list[dict[str, str]]:
    """Rows of an index of head slices. Raises BadInput if it is no such CSV."""
    with open_regular(path) as file, parsing(path, "a CSV index"):
        data = file.read(INDEX_FILE + 1)
        if len(data) > INDEX_FILE:
            raise ValueError(f"more than {INDEX_FILE} bytes")
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    if not rows:
        raise BadInput(f"{path}: has no rows, expected one per slice")
    for number, row in enumerate(rows, 2):
        missing = [n for n in ("source_file", *LANDMARKS, "group", "split") if row.get(n) is None]
        if missing:
            raise BadInput(f"{path}: row {number} lacks {', '.join(missing)}, expected all")
    return rows


def read_slice(path: Path) -> np.ndarray:
    """One PNG or JPG slice as (H,W) uint8 grey levels. Raises BadInput if it is unreadable."""
    pixels = read_still(path).pixels
    if pixels.dtype != np.uint8:
        raise BadInput(f"{path}: has 16 bits, expected 8 bits of grey")
    return pixels


def _frame_row(row: dict[str, str], source: Path, index: str | Path) -> np.ndarray:
    image = read_slice(source / row["source_file"])
    try:
        flip, top, occiput, forehead = (float(row[name]) for name in LANDMARKS)
    except ValueError as error:
        raise BadInput(f"{index}: {row['source_file']}: a landmark is not a number") from error
    if not all(abs(at) <= FARTHEST for at in (top, occiput, forehead)):
        raise BadInput(f"{index}: {row['source_file']}: a landmark lies far outside, expected not")
    if forehead <= occiput:
        raise BadInput(f"{index}: {row['source_file']}: forehead_col must exceed occiput_col")
    frame = frame_slice(image[:, ::-1] if flip else image, top, occiput, forehead)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def prepare(source: str | Path, index: str | Path, out: str | Path) -> dict[str, int]:
    """Frame every slice that `index` lists and write them to the .npz `out`.

    The file holds images (N,128,128) uint8 and, per image, source_file, group, split and
    licence. Returns the number of frames per split.
    """
    rows = read_index(index)
    images = np.stack([_frame_row(row, Path(source), index) for row in rows])
    text = {name: np.array([row[name] for row in rows]) for name in ("source_file", "group")}
    splits = np.array([row["split"] for row in rows])
    licence = np.array([row.get("licence") or "" for row in rows])
    save_npz(out, images=images, split=splits, licence=licence, **text)
    return {str(name): int((splits == name).sum()) for name in np.unique(splits)}


def load_frames(
    paths: str | Path | Sequence[str | Path], split: str = "train"
) -> tuple[torch.Tensor, list[str]]:
    """Frames of one split, from files that `prepare` or `prepare_images` wrote.

    Returns (N,1,2H,2W) float32 in [0,1], 128×128 for heads, each image divided by its 99.7th
    percentile (which matches the test set's range) and clipped, and the group of each image,
    prefixed by its file. Raises BadInput for no such file, no frames, or frames of two sizes.
    """
    frames, groups = [], []
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    for path in paths:
        images, names = _read_frames(path, split)
        frames.append(unit_range(images))
        if frames[-1].shape[2:] != frames[0].shape[2:]:
            found, first = ("×".join(map(str, x.shape[2:])) for x in (frames[-1], frames[0]))
            raise BadInput(f"{path}: holds frames of {found}, expected {first} as the first file")
        groups += [f"{Path(path).stem}/{name}" for name in names]
    if not groups:
        names = ", ".join(map(str, paths))
        raise BadInput(f"{names}: no frame is in {split!r}, expected some (prepare's --val-share)")
    return torch.cat(frames), groups


def _read_frames(path: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N,2H,2W) of one split, and their groups (N,)."""
    content = load_npz(path)
    names = content.get("group", content.get("subject"))
    images, splits = content.get("images"), content.get("split")
    sound = images is not None and images.ndim == 3 and images.dtype.kind in "ui"
    sound = sound and min(images.shape[1:]) > 1
    for labels in (names, splits):
        sound = sound and labels is not None and labels.dtype.kind == "U"
        sound = sound and labels.shape == images.shape[:1]
    if not sound:
        raise BadInput(f"{path}: is no frame file, expected one of `nogaps prior prepare`")
    keep = splits == split
    return images[keep], names[keep]


def load_val(paths: Sequence[str | Path]) -> torch.Tensor:
    """Val images (N,1,64,64) of frame files, those of a file that is given twice once."""
    return to_size(load_frames(sorted(set(map(str, paths))), "val")[0])


def unit_range(images: np.ndarray) -> torch.Tensor:
    """(N,H,W) of any range to (N,1,H,W) float32: divided by the 99.7th percentile, clipped."""
    x = images.astype(np.float32)
    top = np.percentile(x, 99.7, axis=(1, 2), keepdims=True)
    return torch.from_numpy(np.clip(x / np.maximum(top, 1e-6), 0, 1)[:, None])


def to_size(frames: torch.Tensor) -> torch.Tensor:
    """Frames (N,1,2H,2W) to the size of training images, (N,1,H,W), by 2x2 averaging."""
    return torch.nn.functional.avg_pool2d(frames, 2)
