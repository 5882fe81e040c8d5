"""How an array lies in a file, and whether its type and sizes are those of images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nogaps.runtime.errors import BadInput

LEAST = 4  # rows and columns of an image: fewer are another axis, as of colours
SHAPES = {4: "(N, 1, H, W)", 3: "(N, H, W)", 2: "(H, W)"}


class Layout(NamedTuple):
    """How an array lies in a file: `offset` bytes of header, then its values, in C or F order."""

    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def check_layout(path: Path, layout: Layout, kinds: str, shapes: dict[int, str]) -> None:
    """Raise BadInput for a type or shape that no array of images has.

    Args:
        path: The file.
        layout: Of its array.
        kinds: The types that may be, numpy's letters.
        shapes: In words, by how many axes there are.
    """
    shape, kind = layout.shape, layout.dtype.kind
    if len(shape) not in shapes or (shapes is SHAPES and len(shape) == 4 and shape[1] != 1):
        expected = " or ".join(dict.fromkeys(shapes.values()))
        if len(shape) == 4 and shape[-1] == 1:
            expected += ": save np.moveaxis(y, -1, 1)"
        raise BadInput(f"has shape {shape}", expected, path=path)
    if min(shape) < 1:
        raise BadInput(f"is empty, shape {shape}", "at least one image", path=path)
    if kind not in kinds:
        expected = "bool, True = observed" if kinds == "b" else "integers or floats"
        raise BadInput(f"has dtype {str(layout.dtype)[:40]}", expected, path=path)
    if shapes is SHAPES and kinds != "b":
        check_axes(path, shape)


def check_axes(path: str | Path, shape: tuple[int, ...]) -> None:
    """Raise BadInput where the sizes of an array do not tell which axes are rows and columns.

    Args:
        path: Of the array, or its name.
        shape: (N, 1, H, W), (N, H, W) or (H, W), as far as it can be told.
    """
    last, first = "np.moveaxis(y, -1, 0)[:, None]", "y[:, None]"
    if min(shape[-2:]) < LEAST:
        problem = "which means images of {}×{} pixels".format(*shape[-2:])
        expected = f"at least {LEAST}×{LEAST}"
        if len(shape) == 3 and shape[1] >= LEAST:
            expected = f"(N, 1, H, W): if the images come last, save {last}"
    elif len(shape) == 3 and shape[0] == shape[1] > 1:
        problem = "which does not tell whether the images come first or last"
        expected = f"(N, 1, H, W): save {first} if they come first, {last} if last"
    else:
        return
    raise BadInput(f"has shape {shape}, {problem}", expected, path=path)
