"""NIfTI volumes as images, with nibabel (`pip install nogaps[nifti]`) to read the header."""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from nogaps.images.arrays import ArrayFile, Layout, check_bomb, unpack
from nogaps.images.orientation import Space, check_plane
from nogaps.runtime.files import BadInput, check_length, open_regular, parsing

SHAPES = {n: "(I, J), (I, J, K) or (I, J, K, volumes)" for n in range(2, 8)}


class NiftiFile(ArrayFile):
    """The slices of a NIfTI, those of one volume after those of the other.

    axis: the stored one that they cut, unless upright: turned to show a plane; plane: which one
    they show, "" if the file does not tell.
    """

    space: Space
    axis: int
    plane: str
    upright: bool


def _header(path: Path, file: IO[bytes]) -> tuple[Layout, Space]:
    try:
        from nibabel import Nifti1Header, Nifti2Header
    except ImportError as error:
        raise BadInput(f"{path}: needs nibabel, expected: pip install nogaps[nifti]") from error
    start = file.read(Nifti2Header.sizeof_hdr)
    for kind, magic in ((Nifti1Header, b"n+1"), (Nifti2Header, b"n+2")):
        if len(start) >= kind.sizeof_hdr:
            header = kind(start[: kind.sizeof_hdr], check=False)
            if header["sizeof_hdr"] == kind.sizeof_hdr and header["magic"].item()[:3] == magic:
                break
    else:
        raise ValueError("no NIfTI header")
    shape, offset = tuple(map(int, header.get_data_shape())), header.get_data_offset()
    if offset < kind.sizeof_hdr:
        raise ValueError(f"data at byte {offset}, inside the header")
    layout = Layout(shape, header.get_data_dtype(), "F", offset).checked(path, "fiu", SHAPES)
    return layout, Space(path, (*shape, 1)[:3], header)


def _plane_of(space: Space, axis: int) -> str:
    try:
        return space.plane_of(axis)
    except BadInput:  # only who asks for a plane needs to know
        return ""


def open_nifti(path: str | Path, axis: int | None = None, plane: str | None = None) -> NiftiFile:
    """Open a .nii or .nii.gz: (N,H,W) slices, values as stored (unscaled).

    plane: one of PLANES, for slices that are upright (see `Space.upright`). Without it slices are
    as stored, along `axis`; None is the axis of length 1, if there is one, else the last. A file
    of several volumes, along the fourth and further axes, has all slices of each, one volume
    after the other.

    Raises BadInput if it is missing, damaged, of another shape or type, or nibabel is missing, and
    for a plane that the file does not tell.
    """
    path = Path(path)
    check_plane(plane)
    with ExitStack() as stack, parsing(path, "a NIfTI image"):
        raw = stack.enter_context(open_regular(path))
        packed = path.name.lower().endswith(".gz")
        file = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
        layout, space = _header(path, file)
        single = space.single()
        axis = axis if axis is not None else -1 if single is None else single
        if not -3 <= axis < 3:
            raise BadInput(f"{path}: has no axis {axis}, expected 0, 1 or 2")
        view = space.upright(plane) if plane else space.stored(axis % 3)
        if packed:
            check_bomb(path, layout.size, path.stat().st_size)
            file.seek(0)
            raw = unpack(file, layout.size)
        else:
            check_length(path, path.stat().st_size, layout.size)
            stack.pop_all()
        source = NiftiFile("nifti", path, raw, layout, view)
        source.space, source.zero, source.axis = space, space.scaling[1], axis
        source.plane, source.upright = plane or _plane_of(space, axis % 3), bool(plane)
        return source
