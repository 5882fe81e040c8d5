"""A .npy of half-widths beside a file of images: same shape, its own type."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nogaps.images.arrays import ArrayFile, ImageSource, Layout
from nogaps.images.formats import kind_of
from nogaps.runtime.files import BadInput


def half_width_file(
    source: ImageSource, path: str | Path, others: Iterable[str | Path]
) -> ArrayFile:
    """A file like `source` for half-widths: its `writing(path)` makes a .npy, float32, same shape.

    A folder of PNGs counts as (N,H,W). Raises BadInput if `path` is no name for a .npy, or is or
    lies in one of `others`.
    """
    _check_name(Path(path), others)
    array = isinstance(source, ArrayFile)
    shape, order = (source.layout.shape, source.layout.order) if array else (source.shape, "C")
    raw = tempfile.TemporaryFile()  # noqa: SIM115  ArrayFile closes it
    header = {"descr": "<f4", "fortran_order": order == "F", "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(raw, header)
    layout = Layout(tuple(shape), np.dtype("<f4"), order, raw.tell())
    raw.truncate(layout.size)  # sparse: only the header is ever read from it
    views = {"view": source.view} if array else {}
    return ArrayFile("npy", source.path, raw, layout, **views)


def _check_name(path: Path, others: Iterable[str | Path]) -> None:
    if kind_of(path) != "npy" or os.path.isdir(path):
        raise BadInput(f"{path}: is not the name of a .npy file, expected one for half-widths")
    real = Path(os.path.realpath(path))
    for other in map(Path, others):
        taken = Path(os.path.realpath(other))
        if taken in (real, *real.parents) or (
            os.path.exists(path) and os.path.exists(taken) and path.samefile(taken)
        ):
            raise BadInput(f"{path}: is or lies in {other}, expected another place")
