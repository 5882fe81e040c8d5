"""People's own images, found in folders and read one by one: PNG, JPG, .npy and NIfTI."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nogaps.images.arrays import check_pixels
from nogaps.images.formats import kind_of
from nogaps.prior.frames.volumes import Slice, read_array, read_volume
from nogaps.runtime.files import BadInput, open_regular, parsing
from nogaps.runtime.progress import progress

STILLS = (".png", ".jpg", ".jpeg")
EXPECTED = "expected PNG, JPG, NIfTI or .npy"
# OASIS as it is handed out for teaching: three folders of slices, three of their labels
OASIS = {"keras_png_slices_train": "train", "keras_png_slices_test": "test"}
OASIS["keras_png_slices_validate"] = "val"
OASIS_LABELS = "keras_png_slices_seg_"
SUFFIXES = re.compile(r"(\.nii|\.gz|\.npy|\.png|\.jpe?g)+$", re.IGNORECASE)
PATIENT = re.compile(r"sub-[A-Za-z0-9]+")  # as BIDS names files
SLICE_NAME = re.compile(r"(.+?)[ _.-]*slice[ _.-]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class SourceFile:
    """A file of images: its path from its source on, its group, and its split or ""."""

    path: Path
    name: str
    group: str = ""
    split: str = ""


def kind_of_file(name: str) -> str:
    """What a file's name promises: "nifti", "npy", "still", or "" where it is not read."""
    if Path(name).suffix.lower() in STILLS:
        return "still"
    kind = kind_of(name)
    return kind if kind in ("nifti", "npy") else ""


def list_files(sources: Sequence[str | Path]) -> tuple[list[SourceFile], dict[str, int]]:
    """Image files of `sources` (folders or files), and how many files are left out, by kind.

    Folders are searched to any depth, by name; a file reached twice, by a link, counts once. Left
    out: hidden files, other files, and the label images of OASIS, whose folders
    keras_png_slices_{train,validate,test} give their files a split.
    Raises BadInput for a source that is absent or holds no images.
    """
    files: dict[str, SourceFile] = {}
    left_out: Counter[str] = Counter()
    for source in map(Path, sources):
        is_folder = os.path.isdir(source)
        if not is_folder and not (os.path.lexists(source) and kind_of_file(source.name)):
            raise BadInput(f"{source}: is no folder and no image file, {EXPECTED}")
        here: Counter[str] = Counter()
        found = list(_walk(source, here)) if is_folder else [source]
        if not found:
            others = ", ".join(f"{n} {kind}" for kind, n in (+here).items()) or "nothing"
            raise BadInput(f"{source}: holds no images ({others}), {EXPECTED}")
        for file in _grouped(found, Path(os.path.abspath(source)).parent):
            here["repeated files"] += (real := os.path.realpath(file.path)) in files
            files.setdefault(real, file)
        left_out += here
    return list(files.values()), dict(left_out)


def _walk(source: Path, left_out: Counter[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise BadInput(f"{error.filename}: cannot be read ({error.strerror}), expected a folder")

    visited: set[str] = set()
    for folder, inner, names in os.walk(source, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(folder)) in visited:  # a link that leads back
            inner.clear()
            continue
        visited.add(real)
        left_out["hidden files"] += sum(name[0] == "." for name in inner)
        inner[:] = sorted(name for name in inner if name[0] != ".")
        labels = os.path.basename(os.path.abspath(folder)).startswith(OASIS_LABELS)
        for name in sorted(names):
            if name[0] == ".":
                left_out["hidden files"] += 1
            elif labels or not kind_of_file(name):
                left_out["label images" if labels else "other files"] += 1
            else:
                yield Path(folder, name)


def _grouped(paths: Sequence[Path], root: Path) -> Iterator[SourceFile]:
    """Files of one source with group and split.

    A group is the patient or volume that the name tells: "sub-01" of BIDS, what stands before
    "slice_7", else the stem. Folders that share such names ("p1/T1.nii", "p2/T1.nii") are groups.
    """
    rows, homes = [], defaultdict(set)
    for path in paths:
        name = os.path.relpath(os.path.abspath(path), root).replace(os.sep, "/")
        name = os.fsencode(name).decode("utf-8", "replace")
        folder, _, last = name.rpartition("/")
        stem = SUFFIXES.sub("", last) or last
        before = SLICE_NAME.fullmatch(stem)
        rows.append((path, name, folder, before[1] if before else stem))
        homes[rows[-1][-1]].add(folder)
    shared = set().union(*(folders for folders in homes.values() if len(folders) > 1))
    for path, name, folder, stem in rows:
        split = OASIS.get(os.path.basename(os.path.abspath(path.parent)), "")
        patient = PATIENT.match(stem)
        by_folder = folder in shared and "/" in folder and not split
        group = patient[0] if patient else folder if by_folder else stem
        yield SourceFile(path, name, group, split)


def read_files(
    files: Sequence[SourceFile], plane: str | None, slices: slice | float
) -> Iterator[tuple[SourceFile, Slice | BadInput]]:
    """Every image of every file, or in the place of an image what is wrong with its file.

    plane, slices: see `read_volume`. Wrong: damage, another shape or type, NaN, more than
    IMAGE_PIXELS in an image, or a PNG or JPG of another size than most in its folder.
    """
    sizes = _common_sizes(files)
    for file in progress(files, "reading", delay=1):
        path, kind = file.path, kind_of_file(file.path.name)
        try:
            if kind == "still":
                yield file, read_still(path, sizes.get(path.parent))
                continue
            images = read_array(path) if kind == "npy" else read_volume(path, plane, slices)
            for image in images:
                yield file, image
        except BadInput as error:
            yield file, error


def _common_sizes(files: Sequence[SourceFile]) -> dict[Path, tuple[int, int]]:
    """The size (H,W) that most of the stills in a folder have, by folder."""
    sizes: dict[Path, Counter[tuple[int, int]]] = defaultdict(Counter)
    for file in files:
        if kind_of_file(file.path.name) == "still":
            with contextlib.suppress(BadInput), _picture(file.path) as picture:  # told when read
                sizes[file.path.parent][picture.height, picture.width] += 1
    return {folder: found.most_common(1)[0][0] for folder, found in sizes.items()}


@contextlib.contextmanager
def _picture(path: Path) -> Iterator[Image.Image]:
    with open_regular(path) as file, parsing(path, "a PNG or JPG image"):
        try:
            picture = Image.open(file, formats=["PNG", "JPEG"])
        except UnidentifiedImageError as error:
            raise BadInput(f"{path}: is not an image, expected a PNG or JPG") from error
        with picture:
            yield picture


def read_still(path: Path, size: tuple[int, int] | None = None) -> Slice:
    """Grey levels of a PNG or JPG: uint16 where the file has 16 bits of grey, else uint8.

    Raises BadInput if it is damaged, or not of this size (H,W).
    """
    with _picture(path) as picture:
        found = picture.height, picture.width
        check_pixels(path, *found)
        if size not in (None, found):
            common = f"{size[0]}×{size[1]} as most of its folder"
            raise BadInput(f"{path}: is {found[0]}×{found[1]}, expected {common}")
        if getattr(picture, "n_frames", 1) != 1:
            raise BadInput(f"{path}: holds {picture.n_frames} images, expected one")
        picture.verify()  # the checksums, which decoding skips
    with _picture(path) as picture:
        if picture.mode.startswith("I"):
            pixels = np.asarray(picture).astype(np.uint16)
            return Slice(pixels, int(pixels.max()))
        return Slice(np.asarray(picture.convert("L")), 255)
