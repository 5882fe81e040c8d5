"""Fill uploaded files as `nogaps fill` does, and keep the results for the page."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nogaps import standin
from nogaps.filling.files import FillReport, fill_file
from nogaps.images.arrays import ImageSource
from nogaps.images.formats import kind_of, open_images
from nogaps.imputers.loading import TrainedEnsemble, load_imputer, weights_file
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import save_npy

MOST_PIXELS = 1 << 24  # of all images together: 4,096 of 64×64, a minute or two on two cores
PNGS, OUT = "PNGs", "filled"  # folders of the uploaded PNGs, and of the results
Tell = Callable[[int, int], None]  # gets the number of filled images and of all images


@dataclass(frozen=True)
class Example:
    """Files to upload, and a mask for one image alone, whose zeros do not tell its mask."""

    label: str
    files: list[Path]
    mask: Path | None = None


def write_examples(folder: Path) -> list[Example]:
    """Write real heads of the stand-in test set to `folder`, in the formats that people have."""
    heads, head, mask = (folder / name for name in ("heads.npy", "one_head.npy", "mask.npy"))
    y = standin.corrupted_images()
    save_npy(heads, y[::10])
    save_npy(head, y[5:6])
    save_npy(mask, standin.course_mask())
    pngs = []
    for k, image in enumerate(np.rint(y[3::16, 0] * standin.LEVELS).astype(np.uint16)):
        pngs.append(folder / f"head_{k}.png")
        Image.fromarray(image).save(pngs[-1])
    return [
        Example("10 heads", [heads]),
        Example(f"{len(pngs)} PNGs", pngs),
        Example("1 and its mask", [head], mask),
    ]


@dataclass(frozen=True)
class Item:
    """One uploaded file, or the folder of all uploaded PNGs, and its result."""

    source: Path
    output: Path  # of the same kind
    half: Path | None  # a .npy of half-widths of intervals, if the imputer is calibrated
    level: float  # the share of values that the intervals hold, e.g. 0.9
    masks: np.ndarray  # bool (N,H,W), True = observed
    plane: str | None  # of upright slices; None for slices as stored, and for other files
    report: FillReport

    def opened(self, path: Path) -> ImageSource:
        """Open `source` or `output`, which hold the same images."""
        return open_images(path, plane=self.plane)

    def read(self, path: Path, index: int) -> np.ndarray:
        """Return image `index` (H,W) of `source` or `output`."""
        with self.opened(path) as images:
            return images.read(index, index + 1)[0]

    def name(self, index: int) -> str:
        """Return the name of the file that holds image `index`."""
        if not self.source.is_dir():
            return self.source.name
        with self.opened(self.source) as images:
            return images.names[index]


@dataclass(frozen=True)
class Results:
    """What one click has filled; all files lie in `folder`."""

    folder: Path
    items: tuple[Item, ...]

    @property
    def images(self) -> int:
        """The number of images in all items."""
        return sum(item.report.images for item in self.items)

    def locate(self, number: int) -> tuple[Item, int]:
        """Return the item, and the index in it, of image `number`, counted from 0 over all."""
        return [(item, k) for item in self.items for k in range(item.report.images)][number]

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Watched:
    """A `FillingMethod` that fills as an imputer, and keeps the masks it gets.

    After every batch it calls `tell` with the number of images filled so far.
    """

    def __init__(self, imputer: TrainedEnsemble, tell: Callable[[int], None]) -> None:
        self.imputer, self.tell = imputer, tell
        self.device, self.identity = imputer.device, imputer.identity
        self.trained_on = imputer.trained_on
        self.masks: list[np.ndarray] = []  # bool (n,H,W) each

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return x_hat (N,1,H,W)."""
        return self._watch(self.imputer, y, mask)

    def with_half_width(
        self, y: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x_hat and half-widths, (N,1,H,W) each."""
        return self._watch(self.imputer.with_half_width, y, mask)

    def _watch(self, fill: Callable[..., Any], y: torch.Tensor, mask: torch.Tensor) -> Any:
        filled = fill(y, mask)
        self.masks.append(mask.expand(y.shape)[:, 0].cpu().numpy())
        self.tell(sum(map(len, self.masks)))
        return filled


class Filler:
    """Fills uploads with one model; its networks are loaded once for each quality.

    Args:
        model: Run folder, weights file or Hub id; None for the shipped imputer.
        folder: Where the results lie.
        quality: The quality to load at once; if the model is invalid, this raises BadInput.
        revision: Revision of a Hub id.
    """

    def __init__(
        self,
        model: str | Path | None,
        folder: Path,
        quality: str = "best",
        revision: str | None = None,
    ) -> None:
        self.folder = folder
        self.imputer = cache(partial(load_imputer, weights_file(model, revision), pick_device()))
        if (imputer := self.imputer(quality)).has_calibration:
            _ = imputer.calibration  # raises where it is damaged: now, not at the first upload

    def fill(
        self,
        uploads: Sequence[Path],
        mask: Path | None = None,
        missing: str = "zero",
        quality: str = "best",
        plane: str | None = None,
        tell: Tell = lambda done, total: None,
    ) -> Results:
        """Fill every file; all PNGs are filled together, as one folder.

        Args:
            uploads: .npy, .npz, PNG and NIfTI files of different names.
            mask, missing: As in `fill_file`.
            quality: "best" or "fast".
            plane: The plane of the slices of the NIfTI files.
            tell: Called after every batch.

        Raises:
            BadInput: A file cannot be filled; no result is left then.
        """
        folder = Path(tempfile.mkdtemp(prefix="filled-", dir=self.folder))
        try:
            sources, items, done = _sources(uploads, folder), list[Item](), 0
            total = _count(sources)
            for source in sources:
                watched = Watched(
                    self.imputer(quality), lambda more, done=done: tell(done + more, total)
                )
                items.append(_filled(source, folder, watched, mask, missing, plane))
                done += items[-1].report.images
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Results(folder, tuple(items))


def _filled(
    source: Path, folder: Path, watched: Watched, mask: Path | None, missing: str, plane: str | None
) -> Item:
    stem, suffix = split_name(source)
    plane = plane if kind_of(source) == "nifti" else None
    calibrated = watched.imputer.has_calibration
    output = folder / OUT / source.name / f"{stem}_filled{suffix}"
    half = output.with_name(f"{stem}_half_width.npy") if calibrated else None
    options = {"mask": mask, "missing": missing, "plane": plane, "uncertainty": half}
    report = fill_file(source, output, watched, progress=False, **options)
    level = watched.imputer.calibration.level if calibrated else 0.0
    return Item(source, output, half, level, np.concatenate(watched.masks), plane, report)


def split_name(path: Path) -> tuple[str, str]:
    """Return the stem and suffix of a file, ".nii.gz" being one suffix; a folder has none."""
    if path.is_dir():
        return path.name, ""
    suffix = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    return path.name.removesuffix(suffix), suffix


def _sources(uploads: Sequence[Path], folder: Path) -> list[Path]:
    """Return what to fill: each file, and one folder that holds all PNGs."""
    if not uploads:
        raise BadInput("no file", ".npy, .npz, PNG or NIfTI, or one of the examples")
    name, count = Counter(path.name for path in uploads).most_common(1)[0]
    if count > 1:
        raise BadInput(f"was uploaded {count} times", "files of different names", path=name)
    pngs = [path for path in uploads if path.suffix.lower() == ".png"]
    for path in pngs:
        (folder / PNGS).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / PNGS / path.name)
    return [path for path in uploads if path not in pngs] + ([folder / PNGS] if pngs else [])


def _count(sources: Sequence[Path]) -> int:
    """Return the number of images; raise BadInput if they have too many pixels."""
    count = pixels = 0
    for source in sources:
        with open_images(source) as images:
            count += images.shape[0]
            pixels += math.prod(images.shape)
        if pixels > MOST_PIXELS:
            limit = f"at most {MOST_PIXELS:,} here (`nogaps fill` has no limit)"
            raise BadInput(f"brings the pixels to {pixels:,}", limit, path=source)
    return count
