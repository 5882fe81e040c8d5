"""The image files in folders: PNG, JPEG, .npy and NIfTI, with the group and split of each."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nogaps.images.formats import kind_of
from nogaps.runtime.errors import BadInput

EXPECTED = "PNG, JPG, NIfTI or .npy"
KINDS = {".png": "still", ".jpg": "still", ".jpeg": "still", ".npy": "npy"}
# OASIS as it is handed out for teaching: three folders of slices, three of their labels
OASIS = {
    "keras_png_slices_train": "train",
    "keras_png_slices_validate": "val",
    "keras_png_slices_test": "test",
}
OASIS_LABELS = "keras_png_slices_seg_"
SUFFIXES = re.compile(r"(\.nii|\.gz|\.npy|\.png|\.jpe?g)+$", re.IGNORECASE)
PATIENT = re.compile(r"sub-[A-Za-z0-9]+")  # as BIDS names files
SLICE_NAME = re.compile(r"(.+?)[ _.-]*slice[ _.-]*\d+", re.IGNORECASE)


def kind_of_file(path: Path) -> str:
    """Return what a name promises: "nifti", "npy", "still", or "" where it is not read."""
    return "nifti" if kind_of(path) == "nifti" else KINDS.get(path.suffix.lower(), "")


@dataclass(frozen=True)
class SourceFile:
    """A file of images: its path from its source on, its group, and its split or ""."""

    path: Path
    name: str
    group: str = ""
    split: str = ""

    @property
    def kind(self) -> str:
        """See `kind_of_file`."""
        return kind_of_file(self.path)


def list_files(sources: Sequence[str | Path]) -> tuple[list[SourceFile], dict[str, int]]:
    """List the image files of folders, by name and to any depth.

    Args:
        sources: Folders or files. The folders of OASIS, keras_png_slices_{train,validate,test},
            give their files a split.

    Returns:
        The files, each once, and by kind how many others are left out: hidden files, files of
        other kinds, the label images of OASIS, and files that a link reaches again.

    Raises:
        BadInput: A source is missing or holds no images.
    """
    files: dict[str, SourceFile] = {}
    left_out: Counter[str] = Counter()
    for source in map(Path, sources):
        is_folder = os.path.isdir(source)
        if not is_folder and not (os.path.lexists(source) and kind_of_file(source)):
            raise BadInput("is not a folder and not an image file", EXPECTED, path=source)
        here: Counter[str] = Counter()
        paths = list(_walk(source, here)) if is_folder else [source]
        if not paths:
            others = ", ".join(f"{n} {kind}" for kind, n in (+here).items()) or "nothing"
            raise BadInput(f"holds no images ({others})", EXPECTED, path=source)
        for file in _grouped(paths, Path(os.path.abspath(source)).parent):
            real = os.path.realpath(file.path)
            here["repeated files"] += real in files
            files.setdefault(real, file)
        left_out += here
    return list(files.values()), dict(left_out)


def _walk(source: Path, left_out: Counter[str]) -> Iterator[Path]:
    """The image files in a folder and those within, also behind links."""

    def refuse(error: OSError) -> None:
        raise BadInput(f"cannot be read ({error.strerror})", "a folder", path=error.filename)

    visited: set[str] = set()
    for folder, inner, names in os.walk(source, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(folder)) in visited:  # a link that leads back
            inner.clear()
            continue
        visited.add(real)
        left_out["hidden files"] += sum(name[0] == "." for name in (*inner, *names))
        inner[:] = sorted(name for name in inner if name[0] != ".")
        labels = os.path.basename(os.path.abspath(folder)).startswith(OASIS_LABELS)
        for path in (Path(folder, name) for name in sorted(names) if name[0] != "."):
            if labels or not kind_of_file(path):
                left_out["label images" if labels else "other files"] += 1
            else:
                yield path


def _grouped(paths: Sequence[Path], root: Path) -> Iterator[SourceFile]:
    """Files of one source with group and split.

    A group is the patient or volume that the name tells: "sub-01" of BIDS, what stands before
    "slice_7", else the stem. Folders that share such names ("p1/T1.nii", "p2/T1.nii") are groups.
    """
    rows, folders_of = [], defaultdict(set)
    for path in paths:
        name = os.path.relpath(os.path.abspath(path), root).replace(os.sep, "/")
        name = os.fsencode(name).decode("utf-8", "replace")
        folder, _, last = name.rpartition("/")
        stem = SUFFIXES.sub("", last) or last
        before = SLICE_NAME.fullmatch(stem)
        rows.append((path, name, folder, before[1] if before else stem))
        folders_of[rows[-1][-1]].add(folder)
    shared = set().union(*(folders for folders in folders_of.values() if len(folders) > 1))
    for path, name, folder, stem in rows:
        split = OASIS.get(os.path.basename(os.path.abspath(path.parent)), "")
        patient = PATIENT.match(stem)
        by_folder = folder in shared and "/" in folder and not split
        group = patient[0] if patient else folder if by_folder else stem
        yield SourceFile(path, name, group, split)
