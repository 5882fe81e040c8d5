"""NIfTI volumes as images, with nibabel (`pip install nogaps[nifti]`) to read the header."""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from nogaps.files import BadInput, check_length, open_regular, parsing
from nogaps.formats.arrays import ArrayFile, Layout, check_bomb, unpack


def _nifti_layout(path: Path, file: IO[bytes]) -> tuple[Layout, float]:
    """Layout, and the value of a stored 0."""
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
    layout = Layout(shape, header.get_data_dtype(), "F", offset)
    return layout.checked(path, "fiu", (3, 2)), header.get_slope_inter()[1] or 0.0


def open_nifti(path: str | Path, axis: int = -1) -> ArrayFile:
    """Open a 2-D or 3-D .nii or .nii.gz: (N,H,W) slices along `axis`, values as stored (unscaled).

    Raises BadInput if it is missing, damaged, of another shape or type, or nibabel is missing.
    """
    path = Path(path)
    with ExitStack() as stack, parsing(path, "a NIfTI image"):
        raw = stack.enter_context(open_regular(path))
        packed = path.name.lower().endswith(".gz")
        file = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
        layout, zero = _nifti_layout(path, file)
        if not -len(layout.shape) <= axis < len(layout.shape):
            raise BadInput(f"{path}: has no axis {axis}, expected 0, 1 or 2")
        if packed:
            check_bomb(path, layout.size, path.stat().st_size)
            file.seek(0)
            raw = unpack(file, layout.size)
        else:
            check_length(path, path.stat().st_size, layout.size)
            stack.pop_all()
        source = ArrayFile("nifti", path, raw, layout, axis)
        source.zero = zero
        return source
