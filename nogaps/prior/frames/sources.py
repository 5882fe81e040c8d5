"""The image files in folders, their images as grey levels, and which of them show one patient."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from nogaps.images.arrays import BLOCK, ImageSource, open_npy
from nogaps.images.foreign import refuse_foreign
from nogaps.images.formats import kind_of
from nogaps.images.nifti import PLANES, open_nifti
from nogaps.images.png import files_within, read_shown
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import parsing

EXPECTED = "PNG, JPG, NIfTI or .npy"
FORMATS = ("PNG", "JPEG")  # of stills
KINDS = {".png": "still", ".jpg": "still", ".jpeg": "still", ".npy": "npy"}
# what lies beside images: folders of masks or labels, and names that end or begin so
LABELS = re.compile(r"(masks?|labels?|segs?|segmentations?|annotations?)", re.IGNORECASE)
LABEL = re.compile(r"(.+[\W_](mask|label|seg)\d*|(mask|label|seg)[\W_].+)", re.IGNORECASE)
SUFFIXES = re.compile(r"(\.nii|\.gz|\.npy|\.png|\.jpe?g)+$", re.IGNORECASE)
PATIENT = re.compile(  # "sub-01" of BIDS, "patient0", "case_A"
    r"(.*?[\W_])?(sub-[a-z0-9]+|(pat|patient|subj?|subject|case|person)[\W_]?"
    r"(\d+|(?<=[\W_])[a-z]|(?-i:[A-Z])))(?=[a-z]?([\W_]|$))",
    re.IGNORECASE,
)
SLICE = re.compile(r"(.+?)[ _.-]*slice[ _.-]*\d+", re.IGNORECASE)
LAST = re.compile(r"(.*[^\W_])[\W_]+([^\W_]+)[\W_]*")  # what stands before the last word, and it
NUMBER = re.compile(r"(slc|sl|s|z|img|im|i|frame|f)?\d+", re.IGNORECASE)  # of a slice
WORD = re.compile(  # of what an image shows
    r"t[12]\w{0,3}|flair|pdw?|dwi|adc|mra?|mri?\d*|ct|anat|brain|head|image|img|im|scan|slc|sl|z"
    r"|frame|vol|volume|axial|coronal|sagittal|ax|cor|sag|(ses|session|visit|run|series|study)\d*",
    re.IGNORECASE,
)
PART = re.compile(  # of a data set
    r"(.*[\W_])?(train|training|val|valid|validation|test|testing)(data)?"
    r"|(train|val|test|fold|batch|part|split|(data)?set|site|center|class|label|ses)[\W_]*\d*",
    re.IGNORECASE,
)


def kind_of_file(path: str | Path) -> str:
    """Return what a name promises: "nifti", "npy", "still", or "" where it is not read."""
    return "nifti" if kind_of(path) == "nifti" else KINDS.get(Path(path).suffix.lower(), "")


class SourceFile(NamedTuple):
    """A file of images: its path, its name from its source's parent on, and its group."""

    path: Path
    name: str
    group: str


def list_files(sources: Sequence[str | Path]) -> tuple[list[SourceFile], dict[str, list[str]]]:
    """List the image files of folders, by name and to any depth.

    Args:
        sources: Folders or files. Links to folders are not followed within them.

    Returns:
        The files, each once, and by kind the paths of those that are left out: hidden files, files
        of other kinds, masks and labels of images, and files that a link reaches again.

    Raises:
        BadInput: A source is missing or holds no images.
    """
    files: dict[str, SourceFile] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for source in map(Path, sources):
        found = _by_kind(source)
        paths = found.pop("", [])
        if not paths:
            for path in filter(os.path.isfile, found.get("other files", ())):
                refuse_foreign(Path(path))  # with the command that converts it
            others = ", ".join(f"{len(names)} {kind}" for kind, names in found.items())
            raise BadInput(f"holds no images ({others or 'nothing'})", EXPECTED, path=source)
        root = os.path.dirname(os.path.abspath(source))
        relative = [os.path.relpath(os.path.abspath(path), root) for path in paths]
        names = [os.fsencode(r.replace(os.sep, "/")).decode("utf-8", "replace") for r in relative]
        for path, name, group in zip(paths, names, group_names(names), strict=True):
            real = os.path.realpath(path)
            if real in files:
                found["repeated files"].append(path)
            files.setdefault(real, SourceFile(Path(path), name, group))
        for kind, names in found.items():
            left_out[kind] += names
    return list(files.values()), dict(left_out)


def _by_kind(source: Path) -> dict[str, list[str]]:
    """The files of a source by why they are left out; "" are its images."""
    found: dict[str, list[str]] = defaultdict(list)
    if not os.path.lexists(source):
        raise BadInput("is missing", "a folder or an image file", path=source)
    if not os.path.isdir(source):
        found["" if kind_of_file(source) else "other files"] = [str(source)]
        return found
    with parsing(source, "a folder"):
        for name in sorted(files_within(source)):
            found[_left_out_as(name)].append(str(source / name))
    return found


def _left_out_as(name: str) -> str:
    """Why a file of a folder is no image to train on, "" if it is one."""
    *folders, last = name.split("/")
    if any(part[0] == "." for part in (*folders, last)):
        return "hidden files"
    if not kind_of_file(name):
        return "other files"
    labels = any(map(LABELS.fullmatch, folders)) or LABEL.fullmatch(SUFFIXES.sub("", last))
    return "label images" if labels else ""


class Slice(NamedTuple):
    """One image: (H,W) uint8 or uint16, upright; its number in the file, or ""; pixel's sides."""

    pixels: np.ndarray
    label: str = ""
    spacing: tuple[float, float] = (1.0, 1.0)  # height and width, in any unit


def read_slices(path: Path, plane: str | None, slices: slice | float) -> Iterator[Slice]:
    """Read every image of a file: a picture as viewers show it, 16-bit levels as they are.

    Args:
        path: The file.
        plane: Of NIfTI, one of PLANES; None is that of a volume that is one slice, else sagittal.
        slices: Of NIfTI, of the canonical axis (left, posterior or inferior is 0), or a share of
            it around the middle.

    Raises:
        BadInput: It is damaged or holds NaN, infinite or only equal values; or a volume that is
            not the only one, or whose affine does not tell its planes.
    """
    kind = kind_of_file(path)
    if kind == "still":
        yield Slice(read_shown(path, FORMATS))
    elif kind == "npy":
        with open_npy(path) as source:
            count, levels = source.shape[0], _levels(source)
            for k in range(count):
                yield Slice(levels(source.take([k])[0]), str(k) if count > 1 else "")
    else:
        yield from _read_volume(path, plane, slices)


def _read_volume(path: Path, plane: str | None, slices: slice | float) -> Iterator[Slice]:
    with open_nifti(path) as source:
        if source.slices < source.shape[0]:
            raise BadInput(f"has shape {source.layout.shape}", "one volume", path=path)
        single = source.single()
        source.turn_to(plane or (PLANES[0] if single is None else source.plane_of(single)))
        count = source.shape[0]
        numbers, spacing = _numbers(path, count, slices), source.spacing()
        levels = _levels(source)
        for number in numbers:
            label = f"{source.plane} {number}" if count > 1 else ""
            yield Slice(levels(source.take([number])[0]), label, spacing)


def _numbers(path: Path, count: int, slices: slice | float) -> range:
    """The numbers of the chosen slices, of `count`."""
    if count == 1:
        return range(1)
    if isinstance(slices, slice):
        numbers = range(count)[slices]
    else:
        taken = max(1, round(slices * count))
        numbers = range((count - taken) // 2, (count + taken) // 2)
    if not numbers:
        raise BadInput(f"has {count} slices", f"--slices within 0:{count}", path=path)
    return numbers


def _levels(source: ImageSource) -> Callable[[np.ndarray], np.ndarray]:
    """How stored values become grey levels: uint8 as they are, others uint16.

    The highest of the file becomes 65535; 0, or the lowest if that is below, becomes 0.
    """
    slope, inter = source.scaling
    if source.dtype == np.uint8 and slope > 0 and not inter:
        return np.asarray
    low, high = sorted(slope * end + inter for end in _range(source))
    zero = min(0.0, low)
    if not 0 < high - zero < np.inf:
        raise BadInput(f"holds values from {low:g} to {high:g}", "an image", path=source.path)

    def levels(values: np.ndarray) -> np.ndarray:
        share = (values.astype(np.float64) * slope + inter - zero) / (high - zero)
        return np.rint(65535 * share).astype(np.uint16)

    return levels


def _range(source: ImageSource) -> tuple[float, float]:
    """Lowest and highest stored value; BadInput for NaN and infinite ones."""
    count, height, width = source.shape
    step = max(1, BLOCK // (height * width))
    ends: list[float] = []
    for start in range(0, count, step):
        values = source.read(start, start + step)
        if not np.isfinite(values).all():
            raise BadInput("holds NaN or infinite values", "finite ones", path=source.path)
        ends += [float(values.min()), float(values.max())]
    return min(ends), max(ends)


def group_names(names: Sequence[str]) -> list[str]:
    """Return the patient, or volume, of each file of one source.

    A name tells a patient as "sub-01" and "patient0" do. Else folders are patients if several
    beside each other have numbers, as "p01" and "p02". Else it is what stands before the last
    number, if that ends in a number too and files begin differently, as "10_1" and "11_1". Else
    folders whose files have the same names are patients; or every file is a group, without
    "slice_7" and words like "T1" at its end.

    Args:
        names: Paths of the files from the source's parent on, with / between.
    """
    folders = [name.rpartition("/")[0] for name in names]
    stems = [SUFFIXES.sub("", name.rpartition("/")[2]) or name for name in names]
    before, short = ([part(stem) for stem in stems] for part in (_before_number, _without_words))
    numbered, shared = _numbered_folders(set(folders)), _sharing_folders(short, folders)
    several = len({prefix for prefix in before if prefix}) > 1
    return [
        (match[0] if (match := PATIENT.match(stem)) else "")
        or numbered[folder]
        or (several and prefix)
        or (folder if folder in shared else rest)
        for stem, folder, prefix, rest in zip(stems, folders, before, short, strict=True)
    ]


def _sharing_folders(stems: Sequence[str], folders: Sequence[str]) -> set[str]:
    """Folders of a source, without itself, that have files of the same names."""
    pairs = set(zip(stems, folders, strict=True))
    places = Counter(stem for stem, _ in pairs)
    return {folder for stem, folder in pairs if places[stem] > 1 and "/" in folder}


def _numbered_folders(folders: set[str]) -> dict[str, str]:
    """For each folder the outermost around it, or itself, that is one of several with numbers."""
    around = {}
    for folder in folders:
        inner = PurePosixPath(folder)
        around[folder] = [
            path
            for path in (*reversed(inner.parents), inner)
            # "1" and "2" are classes, more often
            if len(path.parts) > 1 and len(path.name) > 1 and _has_number(path.name)
        ]
    beside = Counter(path.parent for path in set().union(*around.values()))
    return {
        folder: str(next((path for path in paths if beside[path.parent] > 1), ""))
        for folder, paths in around.items()
    }


def _before_number(stem: str) -> str:
    """What stands before the number of a slice, if it has a number itself."""
    match = LAST.fullmatch(stem)
    if not match or SLICE.fullmatch(stem) or not NUMBER.fullmatch(match[2]):
        return ""
    prefix = _without_words(match[1])
    return prefix if _has_number(re.split(r"[\W_]", prefix)[-1]) else ""


def _without_words(stem: str) -> str:
    """The name without what it says of the image at its end: "IXI002-T1_slice_7" is "IXI002"."""
    stem = match[1] if (match := SLICE.fullmatch(stem)) else stem
    short = stem
    while (match := LAST.fullmatch(short)) and WORD.fullmatch(match[2]):
        short = match[1]
    return short if _has_number(short) else stem


def _has_number(name: str) -> bool:
    """Whether it may name a patient."""
    return any(map(str.isdigit, name)) and not (WORD.fullmatch(name) or PART.fullmatch(name))
