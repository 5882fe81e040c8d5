"""Images in the files people have: .npy, .npz, NIfTI, grey PNGs and folders of them."""

from __future__ import annotations

import os
from pathlib import Path

from nogaps.images.arrays import ImageSource, open_npy
from nogaps.images.nifti import open_nifti
from nogaps.images.npz import open_npz
from nogaps.images.png import PngFile, PngFolder, files_within
from nogaps.runtime.files import BadInput, open_regular, parsing

EXPECTED = {
    "npy": "a .npy file",
    "npz": "an .npz file",
    "nifti": "a .nii or .nii.gz file",
    "png": "a .png file",
    "folder": "a folder",
}


def kind_of(path: str | Path) -> str:
    """What a name promises: "npy", "npz", "nifti", "png", "folder" (of PNGs), "" for others."""
    name = Path(path).name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    kinds = {".npy": "npy", ".npz": "npz", ".png": "png", ".gz": "", ".zip": ""}
    return kinds.get(Path(name).suffix, "folder")


def open_images(path: str | Path, axis: int | None = None, plane: str | None = None) -> ImageSource:
    """Open .npy, .npz, .nii, .nii.gz, .png, or a folder of PNGs, in constant memory.

    Arrays are (N,1,H,W), (N,H,W) or (H,W) of integers or floats; an .npz holds one array or one
    named "images"; PNGs are grey, 8- or 16-bit, of one size, ordered by name, also in folders
    within; NIfTI is sliced along `axis`, or by upright slices of a `plane`: see `open_nifti`.
    Raises BadInput, one line, for everything else.
    """
    path = Path(path)
    kind = "folder" if os.path.isdir(path) else kind_of(path)
    if kind == "nifti":
        source = open_nifti(path, axis, plane)
        if (slope := source.space.scaling[0]) > 0:
            return source
        source.close()  # its stored values are a negative
        raise BadInput(f"{path}: has scl_slope {slope:g}, expected one above 0")
    if plane is not None:
        raise BadInput(f"--plane {plane}: is for NIfTI volumes, expected none for {path}")
    if kind == "folder" and os.path.isdir(path):
        return PngFolder(path)
    if kind in ("npy", "npz", "png"):
        return {"npy": open_npy, "npz": open_npz, "png": PngFile}[kind](path)
    open_regular(path).close()  # an absent file is named as absent
    raise BadInput(f"{path}: not a known kind, expected .npy, .npz, NIfTI, PNG or a folder of PNGs")


def check_output(source: ImageSource, output: str | Path) -> None:
    """Raise BadInput if `output` is of another kind than `source`, is `source`, or is in the way.

    A folder is only replaced if everything in it has a name that will be written again.
    """
    if kind_of(output) != source.kind:
        raise BadInput(
            f"{output}: differs in kind from the input, expected {EXPECTED[source.kind]}"
        )
    with parsing(output, "a place to write to"):
        _check_place(source, Path(output))


def _check_place(source: ImageSource, output: Path) -> None:
    old, new = (Path(os.path.realpath(path)) for path in (source.path, output))
    there = os.path.exists(new)
    if old == new or (there and new.samefile(old)):
        raise BadInput(f"{output}: is the input itself, expected another name")
    if there and new.is_dir() != (source.kind == "folder"):
        found = "a folder" if new.is_dir() else "a file"
        raise BadInput(f"{output}: is {found}, expected {EXPECTED[source.kind]}")
    if isinstance(source, PngFolder):
        if old in new.parents or new in old.parents:
            raise BadInput(f"{output}: lies inside the input or around it, expected another place")
        if there and not set(files_within(new)) <= set(source.names):
            raise BadInput(f"{output}: holds other files, expected a new or an empty folder")
