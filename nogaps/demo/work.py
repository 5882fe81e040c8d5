"""What the page does with files: fills them as `nogaps fill` does, and keeps the results."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nogaps.filling.files import FillReport, fill_file
from nogaps.images.arrays import ImageSource
from nogaps.images.formats import kind_of, open_images
from nogaps.imputers.loading import QUALITIES, load_imputer, weights_file
from nogaps.imputers.uncertainty import calibration_file, load_calibrated
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput

MOST_PIXELS = 1 << 24  # of all images together: 4,096 of 64×64, a minute or two on two cores
PNGS, OUT = "PNGs", "filled"  # folders: of uploaded PNGs, which are filled together; of results
WORDS = {  # of the command line, and of the page
    "--mask MASK.npy": "under “Options”",
    "--missing nan": "“NaN” under “Options”",
    "(--plane)": "(under “Options”)",
    "--plane would": "a plane, under “Options”, would",
    "--plane ": "the plane ",
}
Tell = Callable[[int, int], None]  # how many images are filled so far, of how many


@dataclass(frozen=True)
class Item:
    """One input and what was made of it.

    source, output: files, or folders of PNGs. half: a .npy of half-widths of intervals that hold
    the share `level`, or None. mask: bool, (N,H,W) or (1,H,W), True = observed. plane: of upright
    slices, None for slices as they are stored, and for other files.
    """

    source: Path
    output: Path
    half: Path | None
    level: float
    mask: np.ndarray
    plane: str | None
    report: FillReport

    def opened(self, path: Path) -> ImageSource:
        """source or output, with the same images."""
        return open_images(path, plane=self.plane)

    def name(self, index: int) -> str:
        """Name of the file that holds image `index`."""
        if not self.source.is_dir():
            return self.source.name
        with self.opened(self.source) as images:
            return images.names[index]


@dataclass(frozen=True)
class Results:
    """What one click has filled; everything lies in `room`."""

    room: Path
    items: tuple[Item, ...]

    @property
    def images(self) -> int:
        """How many images there are in all items."""
        return sum(item.report.images for item in self.items)

    def locate(self, number: int) -> tuple[Item, int]:
        """Item and index within it of image `number`, counted from 0 over all items."""
        for item in self.items:
            if number < item.report.images:
                return item, number
            number -= item.report.images
        raise IndexError(number)

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.room, ignore_errors=True)


class Watched(torch.nn.Module):
    """An imputer that fills as before, keeps the masks it sees, and tells how far it has come.

    done: images filled before, of `total`.
    """

    def __init__(self, imputer: torch.nn.Module, tell: Tell, done: int, total: int) -> None:
        super().__init__()
        self.imputer, self.tell, self.done, self.total = imputer, tell, done, total
        self.trained_on = getattr(imputer, "trained_on", None)  # for the notes of a report
        self.masks: list[np.ndarray] = []

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x_hat (N,1,H,W) of y and mask, as any imputer."""
        return self._seen(y, mask, self.imputer)

    def with_half_width(
        self, y: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_hat and half-widths, (N,1,H,W) each, of a `Calibrated` imputer."""
        return self._seen(y, mask, self.imputer.with_half_width)

    def _seen(self, y: torch.Tensor, mask: torch.Tensor, fill: Callable) -> object:
        found = fill(y, mask)
        self.masks.append(np.broadcast_to(mask[:, 0].cpu().numpy(), (len(y), *y.shape[-2:])))
        self.done += len(y)
        self.tell(self.done, self.total)
        return found

    def mask(self) -> np.ndarray:
        """All masks so far, (N,H,W), or (1,H,W) if they are one."""
        first = self.masks[0][:1]
        same = all((masks == first).all() for masks in self.masks)
        return first if same else np.concatenate(self.masks)


class Filler:
    """Fills uploads with one model; its networks are loaded once for each quality.

    model, revision: as `weights_file` takes them; folder: where work lies. Raises BadInput for a
    bad model.
    """

    def __init__(
        self,
        model: str | Path | None,
        folder: Path,
        quality: str = "best",
        revision: str | None = None,
    ) -> None:
        self.model, self.folder = weights_file(model, revision), folder
        self.imputers: dict[str, torch.nn.Module] = {}
        self.imputer(quality)

    def imputer(self, quality: str) -> torch.nn.Module:
        """The imputer, `Calibrated` where there is a calibration for it."""
        if quality not in self.imputers:
            imputer = load_imputer(self.model, pick_device(), quality)
            if hasattr(imputer, "members") and calibration_file(self.model).exists():
                imputer = load_calibrated(imputer, self.model)
            self.imputers[quality] = imputer
        return self.imputers[quality]

    def fill(
        self,
        uploads: Sequence[Path],
        mask: Path | None = None,
        missing: str = "zero",
        quality: str = QUALITIES[-1],
        plane: str | None = None,
        tell: Tell = lambda done, total: None,
    ) -> Results:
        """Fill every file; PNGs are taken together, as one folder. Arguments are as in `fill_file`.

        plane: of the NIfTI files among them. tell: called with how many images are filled, and how
        many there are. Raises BadInput, a line for the page that names files without their folders.
        """
        room = Path(tempfile.mkdtemp(prefix="filled-", dir=self.folder))
        try:
            sources = _sources(uploads, room)
            total, items = _count(sources), list[Item]()
            for source in sources:
                done = sum(item.report.images for item in items)
                watched = Watched(self.imputer(quality), tell, done, total)
                options = {"mask": mask, "missing": missing, "plane": plane}
                if kind_of(source) != "nifti":
                    options["plane"] = None
                items.append(_filled(source, room, watched, **options))
        except BaseException as error:
            shutil.rmtree(room, ignore_errors=True)
            if not isinstance(error, BadInput):
                raise
            folders = [room / PNGS, room, *(path.parent for path in (*uploads, mask or room))]
            raise BadInput(for_page(str(error), folders)) from error
        return Results(room, tuple(items))


def _filled(
    source: Path, room: Path, imputer: Watched, plane: str | None, **options: object
) -> Item:
    stem, suffix = split_name(source)
    calibration = getattr(imputer.imputer, "calibration", None)
    output = room / OUT / source.name / f"{stem}_filled{suffix}"
    half = output.with_name(f"{stem}_half_width.npy") if calibration else None
    options |= {"plane": plane, "progress": False, "uncertainty": half}
    report = fill_file(source, output, imputer, **options)
    level = calibration.level if calibration else 0.0
    return Item(source, output, half, level, imputer.mask(), plane, report)


def split_name(path: Path) -> tuple[str, str]:
    """Stem and suffix of a file, ".nii.gz" counting as one; a folder has no suffix."""
    if path.is_dir():
        return path.name, ""
    suffix = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    return path.name.removesuffix(suffix), suffix


def _sources(uploads: Sequence[Path], room: Path) -> list[Path]:
    """What to fill: each file, and one folder with all PNGs."""
    if not uploads:
        raise BadInput("no file: expected .npy, .npz, PNG or NIfTI, or one of the examples")
    name, count = Counter(path.name for path in uploads).most_common(1)[0]
    if count > 1:
        raise BadInput(f"{name}: stands {count} times, expected files of different names")
    pngs = [path for path in uploads if path.suffix.lower() == ".png"]
    for path in pngs:
        (room / PNGS).mkdir(exist_ok=True)
        shutil.copyfile(path, room / PNGS / path.name)
    return [path for path in uploads if path not in pngs] + ([room / PNGS] if pngs else [])


def _count(sources: Sequence[Path]) -> int:
    """How many images there are; BadInput if they are too many pixels."""
    count = pixels = 0
    for source in sources:
        with open_images(source) as images:
            count += images.shape[0]
            pixels += math.prod(images.shape)
        if pixels > MOST_PIXELS:
            expected = f"expected at most {MOST_PIXELS:,} here (`nogaps fill` has no limit)"
            raise BadInput(f"{source}: brings the pixels to {pixels:,}, {expected}")
    return count


def for_page(text: str, folders: Sequence[Path]) -> str:
    """A message of the command line in the page's words: no path of the server, no options."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    for option, words in WORDS.items():
        text = text.replace(option, words)
    return text
