"""PNGs as images, one file or a folder of them, read and written by Pillow."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nogaps.images.arrays import ImageSource, check_pixels, mapped_anew
from nogaps.images.foreign import refuse_foreign
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, atomic_folder, open_regular, parsing

MASK = r"(?<![a-z])masks?(?![a-z])"  # in a name, or in that of a folder: masks/1.png, 1_mask.png
BITS = {"L": 8, "I;16": 16, "I": 16}  # of Pillow's modes of grey levels
JUNK = {".ds_store", "thumbs.db", "desktop.ini", ".directory"}  # what file managers leave


@contextlib.contextmanager
def open_picture(path: str | Path, formats: tuple[str, ...] = ("PNG",)) -> Iterator[Image.Image]:
    """Open a picture of one of Pillow's formats; its pixels are not decoded yet.

    Raises:
        BadInput: It is missing, damaged, of another format, or has more than IMAGE_PIXELS.
    """
    expected = f"a {' or '.join(formats)}"
    with open_regular(path) as file, parsing(path, expected):
        try:
            picture = Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            refuse_foreign(Path(path))
            raise BadInput(f"is not {expected}", "one", path=path) from error
        with picture:
            check_pixels(path, picture.height, picture.width)
            yield picture


def read_levels(path: str | Path, formats: tuple[str, ...], shown: bool) -> np.ndarray:
    """Read the grey levels of a picture, (H, W): uint16 if it has 16 bits of grey, else uint8.

    Args:
        path: The file; see `open_picture`.
        formats: See `open_picture`.
        shown: Whether they are those that viewers show: as EXIF turns it, colours as grey, black if
            transparent; else as they are stored.
    """
    with open_picture(path, formats) as picture:
        picture.verify()  # the checksums, which decoding skips
    with open_picture(path, formats) as picture:
        grey = _as_shown(picture) if shown else picture
        grey = grey if grey.mode in BITS else grey.convert("L")
        return np.asarray(grey).astype(f"u{BITS[grey.mode] // 8}")


def read_shown(path: str | Path, formats: tuple[str, ...]) -> np.ndarray:
    """Read a picture as viewers show it; see `read_levels`."""
    return read_levels(path, formats, shown=True)


def _as_shown(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if BITS.get(picture.mode) == 16 or not picture.has_transparency_data:
        return picture
    black = Image.new("RGBA", picture.size, "black")
    return Image.alpha_composite(black, picture.convert("RGBA"))


class PngSource(ImageSource):
    """One grey PNG, or those in a folder and in the folders within; 8 or 16 bits, of one size.

    Attributes:
        names: Of the files, relative to `folder`, in their order, of which numbers are a part;
            hidden ones do not count.
        others: Names of the other files in the folder.
    """

    suffixes: tuple[str, ...] = (".png",)
    formats: tuple[str, ...] = ("PNG",)
    shown = False  # as `read_levels` has it

    def __init__(self, path: Path) -> None:
        self.path, self.kind = path, "folder" if path.is_dir() else "png"
        self.folder, self.names, self.others = path.parent, [path.name], list[str]()
        if self.kind == "folder":
            self._list()
        first = self._header(self.names[0])
        for name in self.names[1:]:
            if (other := self._header(name)) != first:
                problem, expected = map("{0[0]}×{0[1]} with {0[2]} bits".format, (other, first))
                expected += f" as {self.names[0]}"
                raise BadInput(f"is {problem}", expected, path=self.folder / name)
        self.slices, self.dtype = len(self.names), np.dtype(f"u{first[2] // 8}")
        self.shape = (self.slices, *first[:2])

    def _list(self) -> None:
        with parsing(self.path, "a folder of PNGs"):
            names = sorted(files_within(self.path), key=in_order)
        shown = [name for name in names if not is_junk(name) and "/." not in f"/{name}"]
        self.folder = self.path
        self.names = [name for name in shown if name.lower().endswith(self.suffixes)]
        self.others = [name for name in shown if name not in set(self.names)]
        if not self.names:
            for file in filter(Path.is_file, (self.path / name for name in names)):
                refuse_foreign(file)
            held = f" ({len(self.others)} others: {some(self.others)})" if self.others else ""
            problem = f"holds no {self.suffixes[0]} file{held}"
            raise BadInput(problem, "at least one", path=self.path)
        if not self.shown:
            self._check_names()

    def _check_names(self) -> None:
        """Raise BadInput where some of the images are masks, by their names."""
        masks = [name for name in self.names if re.search(MASK, name.lower())]
        images = [name for name in self.names if name not in set(masks)]
        if masks and images:
            expected = "the masks in a folder of their own (--mask FOLDER)"
            places = [{os.path.dirname(name) for name in names} for names in (images, masks)]
            if all(len(place) == 1 for place in places) and "" not in set.union(*places):
                own, other = (self.path / place.pop() for place in places)
                expected = f"{own} with --mask {other}" if own != other else expected
            problem = f"holds masks among its images ({some(masks)})"
            raise BadInput(problem, expected, path=self.path)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self.names[index]

    def _header(self, name: str) -> tuple[int, int, int]:
        """Height, width and bits per pixel."""
        path = self.folder / name
        with open_picture(path) as picture:
            if picture.mode not in BITS:
                problem = f"has pixels of type {picture.mode}"  # as "RGB", or "P" for a palette
                raise BadInput(problem, "grey with 8 or 16 bits", path=path)
            return picture.height, picture.width, BITS[picture.mode]

    def take(self, indices: Iterable[int]) -> np.ndarray:
        """See ImageSource."""
        names = [self.names[index] for index in indices]
        images = np.empty((len(names), *self.shape[1:]), self.dtype)
        for image, name in zip(images, names, strict=True):
            with parsing(self.folder / name, "a PNG that does not change"):
                image[:] = read_levels(self.folder / name, self.formats, self.shown)
        return images

    def save(self, output: str | Path, images: np.ndarray) -> None:
        """See ImageSource; each file has the name of the one that it was made from."""
        if self.kind == "png":
            with atomic(output) as temporary:
                Image.fromarray(images[0]).save(temporary, format="PNG")
            return
        with atomic_folder(Path(os.path.realpath(output))) as folder:
            for index, name in enumerate(self.names):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mapped_anew(images)[index]).save(folder / name, format="PNG")


def is_junk(name: str) -> bool:
    """Whether a file manager left this file, of a name with / between."""
    last = name.split("/")[-1].lower()
    return last in JUNK or last.startswith("._")


def in_order(name: str) -> list[tuple[int, str]]:
    """Return what sorts names by the numbers in them: img_2 comes before img_10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts] + [(-1, name)]


def some(names: list[str]) -> str:
    """Return the first names of a list, as text."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def files_within(folder: str | Path) -> Iterator[str]:
    """List the files in a folder and the folders within; links to folders are not followed.

    Returns:
        Names relative to `folder`, with / between; a link to a folder counts as a file.

    Raises:
        OSError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
