"""Images in the files people have: .npy, .npz, NIfTI, and folders of grey PNGs."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nogaps.files import BadInput
from nogaps.formats.arrays import ImageSource, Write, open_npy, open_npz, open_regular, parsing
from nogaps.formats.nifti import open_nifti

EXPECTED = {
    "npy": "a .npy file",
    "npz": "an .npz file",
    "nifti": "a .nii or .nii.gz file",
    "png": "a folder",
}
COLOUR_TYPES = {0: "grey", 2: "colour", 3: "palette", 4: "grey with alpha", 6: "colour with alpha"}
PNG_HEADER = struct.Struct(">8s4x4sIIBB")  # signature, IHDR, width, height, depth, colour type


def kind_of(path: str | Path) -> str:
    """What a name promises: "npy", "npz", "nifti", "png" (a folder), or "" for other files."""
    name = Path(path).name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    kinds = {".npy": "npy", ".npz": "npz", ".png": "", ".gz": "", ".zip": ""}
    return kinds.get(Path(name).suffix, "png")


def open_images(path: str | Path, axis: int = -1) -> ImageSource:
    """Open .npy, .npz, .nii, .nii.gz, or a folder of PNGs, in constant memory.

    Arrays are (N,1,H,W), (N,H,W) or (H,W) of integers or floats; an .npz holds one array or one
    named "images"; PNGs are grey, 8- or 16-bit, of one size, ordered by name; NIfTI is 2-D or
    3-D, sliced along `axis`. Raises BadInput, one line, for everything else.
    """
    path = Path(path)
    if path.is_dir():
        return PngFolder(path)
    kind = kind_of(path)
    if kind == "nifti":
        return open_nifti(path, axis)
    if kind in ("npy", "npz"):
        return open_npy(path) if kind == "npy" else open_npz(path)
    open_regular(path).close()  # an absent file is named as absent
    raise BadInput(f"{path}: not a known kind, expected .npy, .npz, NIfTI or a folder of PNGs")


def check_output(source: ImageSource, output: str | Path) -> None:
    """Raise BadInput if `output` is of another kind than `source`, is `source`, or is in the way.

    A folder is only replaced if everything in it has a name that will be written again.
    """
    if kind_of(output) != source.kind:
        raise BadInput(
            f"{output}: differs in kind from the input, expected {EXPECTED[source.kind]}"
        )
    old, new = (Path(os.path.realpath(path)) for path in (source.path, output))
    if old == new or (new.exists() and new.samefile(old)):
        raise BadInput(f"{output}: is the input itself, expected another name")
    if new.exists() and new.is_dir() != (source.kind == "png"):
        found = "a folder" if new.is_dir() else "a file"
        raise BadInput(f"{output}: is {found}, expected {EXPECTED[source.kind]}")
    if isinstance(source, PngFolder):
        if old in new.parents or new in old.parents:
            raise BadInput(f"{output}: lies inside the input or around it, expected another place")
        if new.exists() and not {entry.name for entry in os.scandir(new)} <= set(source.names):
            raise BadInput(f"{output}: holds other files, expected a new or an empty folder")


class PngFolder(ImageSource):
    """The .png files of a folder, by name: grey, 8 or 16 bits, all of one size."""

    kind = "png"

    def __init__(self, path: Path) -> None:
        self.path = path
        with parsing(path, "a folder of PNGs"):
            names = (entry.name for entry in os.scandir(path))
            self.names = sorted(n for n in names if n.lower().endswith(".png") and n[0] != ".")
        if not self.names:
            raise BadInput(f"{path}: holds no .png file, expected at least one")
        height, width, bits = self._header(self.names[0])
        for name in self.names[1:]:
            if (found := self._header(name)) != (height, width, bits):
                sizes = "{}×{} with {} bits, expected {}×{} with {}".format(
                    *found, height, width, bits
                )
                raise BadInput(f"{path / name}: is {sizes} as {self.names[0]}")
        self.shape = (len(self.names), height, width)
        self.dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)

    def _header(self, name: str) -> tuple[int, int, int]:
        """Height, width and bits per pixel."""
        path = self.path / name
        with open_regular(path) as file, parsing(path, "a PNG"):
            fields = PNG_HEADER.unpack(file.read(PNG_HEADER.size))
        signature, chunk, width, height, bits, colour = fields
        if (signature, chunk) != (b"\x89PNG\r\n\x1a\n", b"IHDR") or not height * width:
            raise BadInput(f"{path}: is not a PNG, expected one")
        if colour != 0 or bits not in (8, 16):
            kind = COLOUR_TYPES.get(colour, "unknown")
            raise BadInput(f"{path}: is {kind} with {bits} bits, expected grey with 8 or 16 bits")
        return height, width, bits

    def _pixels(self, name: str) -> np.ndarray:
        from PIL import Image

        path = self.path / name
        with parsing(path, "a grey PNG"):
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()  # the checksums, which decoding skips
            with Image.open(path, formats=["PNG"]) as image:
                frames = getattr(image, "n_frames", 1)
                pixels = np.asarray(image)
            if pixels.shape != self.shape[1:] or frames != 1:
                raise BadInput(f"{path}: holds {frames} images of shape {pixels.shape}, expected 1")
        return pixels.astype(self.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See ImageSource."""
        return np.stack([self._pixels(name) for name in self.names[start:stop]])

    @contextlib.contextmanager
    def writing(self, output: str | Path) -> Iterator[Write]:
        """See ImageSource; each file has the name of the one it was made from."""
        from PIL import Image

        with _new_folder(Path(os.path.realpath(output))) as folder:

            def write(start: int, images: np.ndarray) -> None:
                for name, image in zip(self.names[start:], images, strict=False):
                    Image.fromarray(image).save(folder / name, format="PNG")

            yield write


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`."""
    room: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        new, old = room / "new", room / "old"
        new.mkdir()
        yield new
        if path.exists():
            os.rename(path, old)
        os.rename(new, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if room is not None:
            if (room / "old").exists() and not path.exists():
                os.rename(room / "old", path)
            shutil.rmtree(room, ignore_errors=True)
