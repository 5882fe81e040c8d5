"""Which files show one patient, as far as names and folders tell: all of them share a split."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

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


def group_names(names: Sequence[str], fixed: Sequence[bool]) -> list[str]:
    """Return the patient, or volume, of each file of one source.

    A name tells a patient as "sub-01" and "patient0" do. Else folders are patients if several
    beside each other have numbers, as "p01" and "p02". Else it is what stands before the last
    number, if that ends in a number too and files begin differently, as "10_1" and "11_1". Else
    folders whose files have the same names are patients; or every file is a group, without
    "slice_7" and words like "T1" at its end.

    Args:
        names: Paths of the files from the source's parent on, with / between.
        fixed: Whether the folder tells the split of a file, and therefore not its patient.
    """
    folders = [name.rpartition("/")[0] for name in names]
    stems = [SUFFIXES.sub("", name.rpartition("/")[2]) or name for name in names]
    patients = [match[0] if (match := PATIENT.match(stem)) else "" for stem in stems]
    numbered = _numbered_folders(set(folders))
    before = [_before_number(stem) for stem in stems]
    several = len({prefix for prefix in before if prefix}) > 1
    rest, sharing = [_without_words(stem) for stem in stems], defaultdict(set)
    for stem, folder in zip(rest, folders, strict=True):
        sharing[stem].add(folder)
    shared = set().union(*(among for among in sharing.values() if len(among) > 1))
    return [
        patient
        or (not split and numbered.get(folder))
        or (several and prefix)
        or (folder if folder in shared and "/" in folder and not split else stem)
        for patient, folder, prefix, stem, split in zip(
            patients, folders, before, rest, fixed, strict=True
        )
    ]


def _numbered_folders(folders: set[str]) -> dict[str, str]:
    """For each folder the outermost around it, or itself, that is one of several with numbers."""
    beside, around = defaultdict(set), {}
    for folder in folders:
        parts = folder.split("/")
        around[folder] = ["/".join(parts[: depth + 1]) for depth in range(1, len(parts))]
        for path in around[folder]:
            outer, _, name = path.rpartition("/")
            if len(name) > 1 and _has_number(name):  # "1" and "2" are classes, more often
                beside[outer].add(path)
    patients = set().union(*(paths for paths in beside.values() if len(paths) > 1))
    outermost = {f: [path for path in paths if path in patients] for f, paths in around.items()}
    return {folder: paths[0] for folder, paths in outermost.items() if paths}


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
    is_other = WORD.fullmatch(name) or PART.fullmatch(name)
    return any(map(str.isdigit, name)) and not is_other


@dataclass(frozen=True)
class Prepared:
    """What was written to a frame file, and what was not.

    Attributes:
        counts: Images per split.
        groups: Groups per split.
        left_out: Files left out, by kind.
        skipped: A line for each bad file left out.
    """

    counts: dict[str, int]
    groups: dict[str, int]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def count_splits(
    groups: Sequence[str], splits: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of images and of groups per split; warn of groups in two splits.

    Args:
        groups: Of each image.
        splits: Of each image.
    """
    pairs = set(zip(groups, splits, strict=True))
    shared = [group for group, n in Counter(group for group, _ in pairs).items() if n > 1]
    if shared:
        names = ", ".join(sorted(shared)[:3])
        text = f"{len(shared)} of {len(set(groups))} groups lie in two splits ({names})"
        warnings.warn(f"{text}: scores on val are too good", stacklevel=2)
    counts = Counter(splits), Counter(split for _, split in pairs)
    return tuple(dict(sorted(count.items())) for count in counts)
