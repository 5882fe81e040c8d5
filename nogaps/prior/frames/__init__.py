"""Frame files, which `nogaps prior prepare` writes: the images that the prior is trained on."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nogaps.images.npz import load_npz
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import save_npz

HALVED = 8  # twice by the first stage, once by the denoiser


class Prepared(NamedTuple):
    """What was written to a frame file, and what was not."""

    counts: dict[str, int]  # images per split
    groups: dict[str, int]  # groups per split
    left_out: dict[str, list[str]]  # files left out, by kind
    skipped: list[str]  # a line for each bad file left out


def save_frames(
    out: str | Path, images: Sequence[np.ndarray], texts: dict[str, Sequence[str]]
) -> Prepared:
    """Write a frame file, a .npz; warn of groups in two splits.

    Args:
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


def load_frames(
    paths: str | Path | Sequence[str | Path], split: str = "train"
) -> tuple[torch.Tensor, list[str]]:
    """Load the frames of one split.

    Args:
        paths: One file or several that `prepare` or `prepare_images` wrote.
        split: "train", "val", or another one that the files name.

    Returns:
        The frames (N,1,2H,2W) float32 by `unit_range`, 128×128 for heads, and the group of each,
        prefixed by its file.

    Raises:
        BadInput: Not such a file, no frames in the split, or frames of two sizes.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    parts = [_read(path, split) for path in paths]
    first, groups = parts[0][0].shape[1:], []
    for path, (images, names) in zip(paths, parts, strict=True):
        if images.shape[1:] != first:
            size, expected = ("×".join(map(str, shape)) for shape in (images.shape[1:], first))
            raise BadInput(f"holds frames of {size}", f"{expected} as the first file", path=path)
        groups += [f"{Path(path).stem}/{name}" for name in names]
    if not groups:
        names = ", ".join(map(str, paths))
        raise BadInput(f"no frame is in {split!r}", "some (prepare's --val-share)", path=names)
    return torch.cat([unit_range(images) for images, _ in parts if len(images)]), groups


def _read(path: str | Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N,2H,2W) of one split, and their groups (N,)."""
    content, empty = load_npz(path), np.empty(0)
    images, splits = content.get("images", empty), content.get("split", empty)
    groups = content.get("group", content.get("subject", empty))
    valid = images.ndim == 3 and images.dtype.kind in "ui" and min(images.shape[1:]) > 1
    valid &= all(x.dtype.kind == "U" and x.shape == images.shape[:1] for x in (groups, splits))
    if not valid:
        raise BadInput("is not a frame file", "one of `nogaps prior prepare`", path=path)
    keep = splits == split
    return images[keep], groups[keep]


def load_val(paths: Sequence[str | Path]) -> torch.Tensor:
    """Load the val images (N,1,H,W) of frame files; a file that is given twice counts once."""
    return to_size(load_frames(sorted(set(map(str, paths))), "val")[0])


def load_training(paths: Sequence[str | Path]) -> tuple[torch.Tensor, torch.Tensor]:
    """Load the train frames (N,1,2H,2W) and the val images (M,1,H,W) of frame files.

    Raises:
        BadInput: As `load_frames`; or H and W are not such that both stages can halve them.
    """
    train, val = load_frames(paths)[0], load_val(paths)
    height, width = val.shape[2:]
    if height % HALVED or width % HALVED:
        expected = f"multiples of {HALVED}: `nogaps prior prepare --size`"
        raise BadInput(f"holds images of {height}×{width} to train on", expected, path=paths[0])
    return train, val


def load_some(path: str | Path, most: int) -> torch.Tensor:
    """Load evenly spaced images (N,1,H,W) of a frame file, of any split, at most `most`."""
    images = load_npz(path)["images"]
    at = np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)
    return to_size(unit_range(images[at]))


def unit_range(images: np.ndarray) -> torch.Tensor:
    """Divide each image by its 99.7th percentile, which matches the test set's range, and clip.

    Images (N,H,W) of any range become (N,1,H,W) float32 in [0,1].
    """
    x = images.astype(np.float32)
    # float64 with numpy 1
    top = np.percentile(x, 99.7, axis=(1, 2), keepdims=True).astype(np.float32)
    return torch.from_numpy(np.clip(x / np.maximum(top, 1e-6), 0, 1)[:, None])


def to_size(frames: torch.Tensor) -> torch.Tensor:
    """Average 2×2 pixels: frames (N,1,2H,2W) to the size of training images, (N,1,H,W)."""
    return torch.nn.functional.avg_pool2d(frames, 2)
