"""Which reader a file of images or masks has; where outputs may be written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from nogaps.images.arrays import ImageSource, open_npy
from nogaps.images.foreign import refuse_foreign
from nogaps.images.nifti import NiftiFile, open_nifti
from nogaps.images.npz import open_npz
from nogaps.images.png import MASK, PngSource, files_within, is_junk, read_shown, some
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
NEAR = 1e-3  # of the range: values of one kind that were scaled are not exact
GREY = 0.25  # of the range of a picture: what compression and smooth edges may add to two levels
LEVELS = 1 << 16  # of a mask, at most
PICTURES = (".png", ".jpg", ".jpeg")


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


def check_output(source: ImageSource, output: str | Path, mask: str | Path | None = None) -> None:
    """Check that an output may be written.

    Args:
        source: The images whose kind it must have.
        output: Its name. A folder is only replaced if all names in it will be written again.
        mask: The file of their mask, if it has one.

    Raises:
        BadInput: It is of another kind than `source`, is `source` or `mask`, or is in the way.
    """
    if kind_of(output) != source.kind:
        raise BadInput("differs in kind from the input", EXPECTED[source.kind], path=output)
    with parsing(output, "a place to write to"):
        old, new = (Path(os.path.realpath(path)) for path in (source.path, output))
        if _same(old, new):
            raise BadInput("is the input itself", "another name", path=output)
        if mask is not None and _same(Path(os.path.realpath(mask)), new):
            raise BadInput("is the mask", "another name", path=output)
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


class MaskFile:
    """The masks of the images of a source; release the file with `close`.

    Attributes:
        stored: The file as it is read.
        shape: (N, H, W); (1, H, W) for all images; or, of several volumes, that of one volume.
        notes: How masks and images were paired, for people, where that is not plain.
    """

    def __init__(self, stored: ImageSource) -> None:
        self.stored, self.shape, self.close = stored, stored.shape, stored.close
        self.notes: list[str] = []
        self._middle = 0.5 if stored.dtype.kind == "b" else self._find_middle()

    def read(self, start: int, images: np.ndarray) -> np.ndarray:
        """Read the masks of images (n,H,W) from index `start` on.

        Returns:
            Bool, True = observed, (n, H, W); or (1, H, W) if all images have one.

        Raises:
            BadInput: It is damaged.
        """
        indices = np.arange(start, start + len(images) if self.shape[0] > 1 else start + 1)
        return self._values(indices % self.shape[0]) > self._middle

    def _values(self, indices: np.ndarray) -> np.ndarray:
        stored, (slope, inter) = self.stored.take(indices), self.stored.scaling
        return stored if (slope, inter) == (1, 0) else stored * slope + inter

    def _find_middle(self) -> float:
        """Return what lies between the two values of the mask; BadInput where there are others."""
        levels = np.zeros(0)
        for index in range(self.shape[0]):
            levels = np.union1d(levels, self._values(np.array([index])))
            if len(levels) > LEVELS or np.isnan(levels).any():
                break
        low, high = levels[0], levels[-1]
        if low == high:  # nothing is missing, or everything
            return low - 1 if low > NEAR else low + 1
        contrast = (
            self.stored.dtype.kind == "u" and high - low > np.iinfo(self.stored.dtype).max / 2
        )
        near = (GREY if contrast and isinstance(self.stored, PngSource) else NEAR) * (high - low)
        if not ((levels <= low + near) | (levels >= high - near)).all():
            held = ", ".join(f"{level:g}" for level in levels[:4])
            problem = f"holds more than two values ({held}{', …' if len(levels) > 4 else ''})"
            expected = "two: the lower is missing, the higher is observed"
            raise BadInput(problem, expected, path=self.stored.path)
        return (low + high) / 2


class _Pictures(PngSource):
    """Masks of any kind of pixels, PNG or JPEG, in the order of `names` if these are given."""

    suffixes, formats, shown = PICTURES, ("PNG", "JPEG"), True

    def pair(self, images: list[str]) -> None:
        """Take the masks of images of these names, in their order.

        Raises:
            BadInput: An image has no mask, or several.
        """
        own: dict[str, list[str]] = {}
        for name in self.names:
            own.setdefault(_key(name), []).append(name)
        if absent := [name for name in images if _key(name) not in own]:
            start = os.path.splitext(absent[0])[0]
            problem = f"holds no mask of {len(absent)} of {len(images)} images ({some(absent)})"
            expected = f"{start}.png, {start}_mask.png or mask_{start}.png"
            raise BadInput(problem, expected, path=self.path)
        for name in images:
            if len(names := own[_key(name)]) > 1:
                problem = f"holds {len(names)} masks of {name} ({some(names)})"
                raise BadInput(problem, "one", path=self.path)
        self.names = [own[_key(name)][0] for name in images]
        self.shape = (len(images), *self.shape[1:])

    def _header(self, name: str) -> tuple[int, int, int]:
        levels = read_shown(self.folder / name, self.formats)
        return *levels.shape, 8 * levels.itemsize


def _key(name: str) -> str:
    """What the names of an image and of its mask have in common."""
    stem = re.sub(MASK, "", os.path.splitext(name)[0].lower())
    parts = [re.sub(r"[^a-z0-9]+", "_", part).strip("_") for part in stem.split("/")]
    return "/".join(filter(None, parts))


def open_mask(path: str | Path, images: ImageSource) -> MaskFile:
    """Open the mask of images: a bool array, a picture or a folder of them, or a NIfTI for a NIfTI.

    Args:
        path: A .npy, or an .npz of one array or one named "mask", is (H,W), (1,H,W), (1,1,H,W),
            (N,H,W) or (N,1,H,W), True = observed, of slices as they are filled. A PNG or JPEG
            has two values, of which the lower (black) is missing; those of a folder belong to
            images of the same names, with or without "mask", or else to slices in their order.
            In a NIfTI the lower value is missing, voxel by voxel in the same space, one volume
            for all or as many as the images have.
        images: The images.

    Raises:
        BadInput: It has another type, shape or space, more than two values, or other names.
    """
    with ExitStack() as stack:
        stored = stack.enter_context(_read_as_images(Path(path), images))
        folders = [source for source in (stored, images) if source.kind == "folder"]
        if len(folders) == 2:
            stored.pair(images.names)
        if isinstance(stored, NiftiFile):
            stored.check_same_space(images)
        count, *size = stored.shape
        if list(images.shape[1:]) != size or count not in (1, images.slices, images.shape[0]):
            expected = f"{images.shape[1:]} or {images.shape}"
            if isinstance(images, NiftiFile):
                expected += ", or a NIfTI in the space of the images"
            raise BadInput(f"has shape {stored.shape}", expected, path=path)
        mask = MaskFile(stored)
        if count > 1 and len(folders) == 1:
            names = some(folders[0].names)
            mask.notes.append(f"masks and images were paired in this order: {names}")
        stack.pop_all()
        return mask


def _read_as_images(path: Path, images: ImageSource) -> ImageSource:
    if os.path.isdir(path) or path.suffix.lower() in PICTURES:
        return _Pictures(path)
    if (kind := kind_of(path)) != "nifti":
        return open_npz(path, "b", "mask") if kind == "npz" else open_npy(path, "b")
    if not isinstance(images, NiftiFile):
        problem = f"is a NIfTI, but {images.path} is not"
        raise BadInput(problem, "a bool .npy or a PNG", path=path)
    return open_nifti(path, images.plane if images.upright else None)
