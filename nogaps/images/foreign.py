"""Files that are not what their names promise, or not of a format that is read: what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import open_regular

READ = {".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04", ".png": b"\x89PNG"}  # by their first bytes
PICTURES = {  # Pillow converts them
    ".jpg": (b"\xff\xd8\xff",),
    ".tif": (b"II*\0", b"MM\0*"),
    ".gif": (b"GIF8",),
    ".bmp": (b"BM",),
}
SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
VOLUMES = (".hdr", ".img", ".hdr.gz", ".img.gz", ".mgz", ".mgh", ".mnc")  # nibabel does
DICOM = (".dcm", ".dicom", ".ima")  # dcm2niix does
TO_PNG = "[Image.open(p).convert('L').save(p.with_suffix('.png')) for p in {}]"
TO_NPY = (  # may hold several images, of 16 bits or floats
    "import numpy as np; from PIL import ImageSequence as S; "
    "[np.save(p.with_suffix('.npy'), [np.array(i.convert('F')) for i in S.Iterator(Image.open(p))])"
    " for p in {}]"
)


def refuse_foreign(path: Path) -> None:
    """Look at the name and the first bytes of a file.

    Args:
        path: The file.

    Raises:
        BadInput: It is missing, has another format than its name promises, or one that is not
            read; the line has the command that renames or converts it.
    """
    with open_regular(path) as file:
        start = file.read(132)
    suffix = SAME.get(path.suffix.lower(), path.suffix.lower())
    for kind, magics in (READ | PICTURES).items():
        if start.startswith(magics):
            if kind != suffix:
                command = shlex.join(["mv", str(path), str(path.with_suffix(kind))])
                raise BadInput(f"is {kind} by its content", f"that name: {command}", path=path)
            if kind in PICTURES:
                _refuse(path, kind, _pillow(path, TO_NPY if kind == ".tif" else TO_PNG))
    if start[128:] == b"DICM" or suffix in DICOM:
        _refuse(path, "DICOM", shlex.join(["dcm2niix", "-o", ".", str(path.parent)]))
    for ending in VOLUMES:
        if path.name.lower().endswith(ending):
            whole = str(path)[: -len(ending)] + ".nii.gz"
            _refuse(path, ending, shlex.join(["nib-convert", str(path), whole]))


def _refuse(path: Path, kind: str, command: str) -> None:
    expected = f".npy, .npz, NIfTI or PNG; to convert it: {command}"
    raise BadInput(f"is {kind}", expected, path=path)


def _pillow(path: Path, code: str) -> str:
    """The command that converts all files of this ending in its folder."""
    files = f"Path({str(path.parent)!r}).glob({'*' + path.suffix!r})"
    return shlex.join(
        ["python", "-c", f"from pathlib import Path; from PIL import Image; {code.format(files)}"]
    )
