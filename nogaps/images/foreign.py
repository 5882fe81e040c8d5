"""Files that are not what their names promise, or not of a format that is read: what to do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import open_regular

READ = {  # by their first bytes
    ".npy": rb"\x93NUMPY",
    ".npz": rb"PK\x03\x04.{26}[^\0]{1,90}\.npy",
    ".png": rb"\x89PNG",
    ".nii": rb".{344}n\+1\0|.{4}n\+2\0",
}
PICTURES = {  # Pillow converts them
    ".jpg": rb"\xff\xd8\xff",
    ".tif": rb"II\*\0|MM\0\*",
    ".gif": rb"GIF8",
    ".bmp": rb"BM.{4}\0{4}",
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

    Raises:
        BadInput: It is missing, has another format than its name promises, or one that is not
            read; the line has the command that renames or converts it.
    """
    with open_regular(path) as file:
        start = file.read(348)
    name, suffix = path.name.lower(), SAME.get(path.suffix.lower(), path.suffix.lower())
    suffix = ".nii" if name.endswith(".nii.gz") else suffix
    for kind, pattern in (READ | PICTURES).items():
        if re.match(pattern, start, re.DOTALL):
            if kind != suffix:
                command = shlex.join(["mv", str(path), str(path.with_suffix(kind))])
                raise BadInput(f"is {kind} by its content", f"that name: {command}", path=path)
            if kind in READ:
                return
            _refuse(path, kind, _pillow(path, TO_NPY if kind == ".tif" else TO_PNG))
    if start[128:132] == b"DICM" or suffix in DICOM:
        _refuse(path, "DICOM", shlex.join(["dcm2niix", "-o", ".", str(path.parent)]))
    for ending in VOLUMES:
        if name.endswith(ending):
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
