"""The image files in folders: PNG, JPEG, .npy and NIfTI, with the group and split of each."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nogaps.images.foreign import refuse_foreign
from nogaps.images.formats import kind_of
from nogaps.prior.frames.groups import SUFFIXES, group_names
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
# what lies beside images: folders of masks or labels, and names that end or begin so
LABELS = re.compile(r"(masks?|labels?|segs?|segmentations?|annotations?)", re.IGNORECASE)
LABEL = re.compile(r"(.+[\W_](mask|label|seg)\d*|(mask|label|seg)[\W_].+)", re.IGNORECASE)


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


def list_files(sources: Sequence[str | Path]) -> tuple[list[SourceFile], dict[str, list[str]]]:
    """List the image files of folders, by name and to any depth.

    Args:
        sources: Folders or files. The folders of OASIS, keras_png_slices_{train,validate,test},
            give their files a split.

    Returns:
        The files, each once, and by kind the paths of those that are left out: hidden files, files
        of other kinds, masks and labels of images, and files that a link reaches again.

    Raises:
        BadInput: A source is missing or holds no images.
    """
    files: dict[str, SourceFile] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for source in map(Path, sources):
        is_folder = os.path.isdir(source)
        if not is_folder and not (os.path.lexists(source) and kind_of_file(source)):
            _explain([source] if os.path.isfile(source) else [])
            raise BadInput("is not a folder and not an image file", EXPECTED, path=source)
        here: dict[str, list[str]] = defaultdict(list)
        paths = list(_walk(source, here)) if is_folder else [source]
        if not paths:
            _explain(map(Path, here["other files"]))
            others = ", ".join(f"{len(n)} {kind}" for kind, n in here.items() if n) or "nothing"
            raise BadInput(f"holds no images ({others})", EXPECTED, path=source)
        for file in _grouped(paths, Path(os.path.abspath(source)).parent):
            real = os.path.realpath(file.path)
            if real in files:
                here["repeated files"].append(str(file.path))
            files.setdefault(real, file)
        for kind, names in here.items():
            left_out[kind] += names
    return list(files.values()), {kind: names for kind, names in left_out.items() if names}


def _explain(paths: Iterable[Path]) -> None:
    """Raise BadInput with the command that converts one of these files, where there is one."""
    for path in filter(Path.is_file, paths):
        refuse_foreign(path)


def _walk(source: Path, left_out: dict[str, list[str]]) -> Iterator[Path]:
    """The image files in a folder and those within, also behind links."""

    def refuse(error: OSError) -> None:
        raise BadInput(f"cannot be read ({error.strerror})", "a folder", path=error.filename)

    visited: set[str] = set()
    for folder, inner, names in os.walk(source, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(folder)) in visited:  # a link that leads back
            inner.clear()
            continue
        visited.add(real)
        hidden = [name for name in (*inner, *names) if name[0] == "."]
        left_out["hidden files"] += [os.path.join(folder, name) for name in hidden]
        inner[:] = sorted(name for name in inner if name[0] != ".")
        within = os.path.relpath(folder, source).split(os.sep)
        oasis = os.path.basename(os.path.abspath(folder)).startswith(OASIS_LABELS)
        labels = oasis or any(map(LABELS.fullmatch, within))
        for path in (Path(folder, name) for name in sorted(names) if name[0] != "."):
            if not kind_of_file(path):
                left_out["other files"].append(str(path))
            elif labels or LABEL.fullmatch(SUFFIXES.sub("", path.name)):
                left_out["label images"].append(str(path))
            else:
                yield path


def _grouped(paths: Sequence[Path], root: Path) -> Iterator[SourceFile]:
    """Files of one source with group and split."""
    relative = [os.path.relpath(os.path.abspath(path), root) for path in paths]
    names = [os.fsencode(r.replace(os.sep, "/")).decode("utf-8", "replace") for r in relative]
    splits = [OASIS.get(os.path.basename(os.path.abspath(path.parent)), "") for path in paths]
    groups = group_names(names, [bool(split) for split in splits])
    yield from map(SourceFile, paths, names, groups, splits)
