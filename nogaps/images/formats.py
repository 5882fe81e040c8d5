"""Images in the files people have: .npy, .npz, NIfTI, grey PNGs and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nogaps.images.arrays import ImageSource, open_npy
from nogaps.images.foreign import refuse_foreign
from nogaps.images.nifti import open_nifti
from nogaps.images.npz import open_npz
from nogaps.images.png import PngSource, files_within, is_junk, some
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import parsing

READERS = {"npy": open_npy, "npz": open_npz, "png": PngSource}
EXPECTED = {
    "npy": "a .npy file",
    "npz": "an .npz file",
    "nifti": "a .nii or .nii.gz file",
    "png": "a .png file",
    "folder": "a folder",
}


def kind_of(path: str | Path) -> str:
    """Return what a name promises: "npy", "npz", "nifti", "png", "folder", or "" for others."""
    name = Path(path).name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    suffix = Path(name).suffix[1:]
    return suffix if suffix in READERS else "" if suffix in ("gz", "zip") else "folder"


def open_images(path: str | Path, plane: str | None = None) -> ImageSource:
    """Open .npy, .npz, .nii, .nii.gz, .png, or a folder of PNGs, in constant memory.

    A NIfTI is unpacked if its content is packed, whatever its name is.

    Args:
        path: Arrays are (N,1,H,W), (N,H,W) or (H,W) of integers or floats; an .npz holds one
            array or one named "images"; PNGs are grey, 8- or 16-bit, of one size, ordered by
            name, also in folders within.
        plane: NIfTI is cut into upright slices of this plane; see `open_nifti`.

    Raises:
        BadInput: It is anything else.
    """
    path = Path(path)
    kind, is_folder = kind_of(path), os.path.isdir(path)
    if is_folder:
        kind = "folder"
    else:
        refuse_foreign(path)
    if kind == "nifti":
        source = open_nifti(path, plane)
        if (slope := source.scaling[0]) > 0:
            return source
        source.close()  # its stored values are a negative
        raise BadInput(f"has scl_slope {slope:g}", "one above 0", path=path)
    if plane is not None:
        raise BadInput(f"--plane {plane}: is for NIfTI volumes", f"none for {path}")
    if is_folder:
        return PngSource(path)
    if kind in READERS:
        return READERS[kind](path)
    raise BadInput("has an unknown ending", ".npy, .npz, NIfTI, PNG or a folder of PNGs", path=path)


def check_output(source: ImageSource, output: str | Path) -> None:
    """Check that an output may be written.

    Args:
        source: The images whose kind it must have.
        output: Its name. A folder is only replaced if all names in it will be written again.

    Raises:
        BadInput: It is of another kind than `source`, is `source`, or is in the way.
    """
    if kind_of(output) != source.kind:
        raise BadInput("differs in kind from the input", EXPECTED[source.kind], path=output)
    with parsing(output, "a place to write to"):
        old, new = (Path(os.path.realpath(path)) for path in (source.path, output))
        if _same(old, new):
            raise BadInput("is the input itself", "another name", path=output)
        if new.exists() and new.is_dir() != (source.kind == "folder"):
            problem = "is a folder" if new.is_dir() else "is a file"
            raise BadInput(problem, EXPECTED[source.kind], path=output)
        if isinstance(source, PngSource) and source.kind == "folder":
            if old in new.parents or new in old.parents:
                problem = "lies inside the input or around it"
                raise BadInput(problem, "another place", path=output)
            files = set(files_within(new)) if new.exists() else set()
            if others := sorted({name for name in files if not is_junk(name)} - {*source.names}):
                problem = f"holds other files ({some(others)})"
                raise BadInput(problem, "a new or an empty folder", path=output)


def check_half_widths(path: str | Path, others: Iterable[str | Path]) -> None:
    """Raise BadInput unless `path` may name a .npy of half-widths, outside of all `others`."""
    if kind_of(path) != "npy" or os.path.isdir(path):
        raise BadInput("is not the name of a .npy file", "one for half-widths", path=path)
    real = Path(os.path.realpath(path))
    for other in others:
        taken = Path(os.path.realpath(other))
        if taken in real.parents or _same(taken, real):
            raise BadInput(f"is or lies in {other}", "another place", path=path)


def _same(first: Path, second: Path) -> bool:
    """Whether two resolved names are one file, also by a hard link."""
    return first == second or (first.exists() and second.exists() and first.samefile(second))
