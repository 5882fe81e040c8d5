"""NIfTI volumes as images, by nibabel (`pip install nogaps[nifti]`)."""

from __future__ import annotations

import gzip
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from nogaps.images.arrays import ArrayFile, Layout, check_unpacked, check_values, unpack
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import check_length, open_regular, parsing

PLANES = ("sagittal", "coronal", "axial")  # by the axis they cut: right, anterior, superior
# upright slices: where the axes slice, row and column point, in nibabel's letters
UPRIGHT = {"sagittal": "RIA", "coronal": "AIR", "axial": "SPR"}
GZIP, HEADER = b"\x1f\x8b", 1024  # first bytes of a packed file; bytes that tell a header


def check_plane(plane: str | None) -> None:
    """Raise BadInput unless `plane` is one of PLANES, or None."""
    if plane not in (None, *PLANES):
        raise BadInput(f"--plane {plane}: expected {', '.join(PLANES)}")


class NiftiFile(ArrayFile):
    """The slices of a NIfTI as stored (unscaled), those of one volume after those of the other.

    Attributes:
        space: (I, J, K), voxels of one volume.
        affine: Of voxels to RAS+, (4, 4).
        oriented: Whether the file has an affine; nibabel supplies one where it has not.
        upright: If not, they lie as they are stored: along the axis of length 1, if there is one,
            else along the last.
    """

    def __init__(self, path: Path, raw: IO[bytes], layout: Layout, image: Any) -> None:
        self.space = (*layout.shape, 1)[:3]
        self.affine = image.affine
        header = image.header
        self.oriented = bool(header["sform_code"] or header["qform_code"])
        self.scaling = (float(image.dataobj.slope), float(image.dataobj.inter))
        axis = 2 if (single := self.single()) is None else single
        self._turn = _stored_order(axis)
        super().__init__("nifti", path, raw, layout)
        with suppress(BadInput):  # slices as they lie need no affine
            self.plane = self.plane_of(axis)

    def single(self) -> int | None:
        """Return the axis along which a volume is one slice, if there is just one."""
        flat = [axis for axis, count in enumerate(self.space) if count == 1]
        return flat[0] if len(flat) == 1 else None

    def plane_of(self, axis: int) -> str:
        """Return the one of PLANES that slices along a stored axis show.

        Raises:
            BadInput: The affine does not tell the axes apart.
        """
        return PLANES[int(self._orientation()[axis, 0])]

    def turn_to(self, plane: str) -> None:
        """Make the images upright slices of a plane, along the closest stored axes.

        The top of an image is superior, or anterior; its right is anterior, or the patient's
        right; slice 0 is left, posterior or inferior.

        Raises:
            BadInput: The volume is one slice of another plane, or its affine does not tell.
        """
        from nibabel.orientations import axcodes2ornt, ornt_transform

        if (single := self.single()) is not None and (own := self.plane_of(single)) != plane:
            raise BadInput(f"is one {own} slice", f"--plane {own}", path=self.path)
        self._turn = ornt_transform(self._orientation(), axcodes2ornt(UPRIGHT[plane]))
        self.plane, self.upright = plane, True
        self._set_shape()

    def _orientation(self) -> np.ndarray:
        """Per stored axis its closest canonical axis and direction, (3, 2)."""
        from nibabel import io_orientation

        if not self.oriented:
            problem = "does not tell its orientation (sform_code and qform_code are 0)"
            raise BadInput(problem, "no --plane: slices as they are stored", path=self.path)
        with parsing(self.path, "a NIfTI image with an affine"):
            axes = io_orientation(self.affine)
            lost = np.isnan(axes[:, 0])
            if lost.sum() == 1 and self.space[int(lost.argmax())] == 1:  # one slice: no normal
                axes[lost] = 3 - axes[~lost, 0].sum(), 1
            elif lost.any():
                raise ValueError("its affine does not tell the axes apart")
            return axes

    def by_slices(self, stored: np.ndarray) -> np.ndarray:
        """See ArrayFile."""
        from nibabel import apply_orientation

        volumes = stored.reshape((*self.space, -1), order="F")
        return np.moveaxis(apply_orientation(volumes, self._turn), 3, 0)

    def as_stored(self, images: np.ndarray) -> np.ndarray:
        """See ImageSource."""
        from nibabel.orientations import apply_orientation, ornt_transform

        volumes = np.moveaxis(images.reshape(-1, self.slices, *images.shape[1:]), 0, 3)
        back = ornt_transform(_stored_order(0), self._turn)
        return apply_orientation(volumes, back).reshape(self.layout.shape, order="F")

    def spacing(self) -> tuple[float, float]:
        """Return the height and width of a pixel, in the units of the affine.

        Raises:
            BadInput: One is not above 0.
        """
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        height, width = (float(sizes[self._turn[:, 0] == axis][0]) for axis in (1, 2))
        if not (0 < height < np.inf and 0 < width < np.inf):
            raise BadInput(f"has voxels of {height:g}×{width:g}", "sizes above 0", path=self.path)
        return height, width

    def check_same_space(self, other: NiftiFile) -> None:
        """Raise BadInput unless voxels of one index lie at one place, to a hundredth of a voxel."""
        if self.space != other.space:
            expected = f"{other.space} as {other.path}"
            raise BadInput(f"has {self.space} voxels", expected, path=self.path)
        apart = (np.abs(self.affine - other.affine)[:3] @ (*self.space, 1)).max()
        sizes = np.linalg.norm(other.affine[:3, :3], axis=0)
        if not apart <= sizes[sizes > 0].min(initial=np.inf) / 100:
            problem = f"lies up to {apart:g} away from {other.path}"
            raise BadInput(problem, "the same affine", path=self.path)


def _stored_order(axis: int) -> np.ndarray:
    """The orientation in nibabel's terms, (3, 2), that puts `axis` first and turns nothing."""
    order = [axis, *(k for k in range(3) if k != axis)]
    return np.array([(order.index(k), 1) for k in range(3)])


def _load(path: Path, file: IO[bytes]) -> Any:
    """Read the header by nibabel, whatever the name of the file is."""
    try:
        import nibabel
    except ImportError as error:
        raise BadInput("needs nibabel", "pip install nogaps[nifti]", path=path) from error
    from nibabel.imageglobals import logger

    logger.setLevel("CRITICAL")  # it reports every field of a header that it corrects for itself
    start = file.read(HEADER)
    file.seek(0)
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        if kind.header_class.may_contain_header(start):
            return kind.from_stream(file)
    raise ValueError("no NIfTI header")


def open_nifti(path: str | Path, plane: str | None = None) -> NiftiFile:
    """Open a .nii or .nii.gz: (N, H, W) slices, values as stored (unscaled).

    Args:
        path: The file, packed by gzip or not. Of several volumes, along the fourth and further
            axes, all slices of one follow those of the other.
        plane: One of PLANES, for slices that are upright; see `NiftiFile.turn_to`. None is for
            slices as they are stored.

    Raises:
        BadInput: It is missing, damaged, of another shape or type, nibabel is missing, or the
            file does not tell its planes.
    """
    path = Path(path)
    check_plane(plane)
    with ExitStack() as stack, parsing(path, "a NIfTI image"):
        raw = stack.enter_context(open_regular(path))
        packed = raw.read(2) == GZIP
        raw.seek(0)
        file = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
        image = _load(path, file)
        stored = image.dataobj
        layout = Layout(stored.dtype, int(stored.offset), tuple(map(int, stored.shape)), "F")
        if not 2 <= len(layout.shape) <= 7:
            expected = "(I, J), (I, J, K) or (I, J, K, volumes)"
            raise BadInput(f"has shape {layout.shape}", expected, path=path)
        check_values(path, layout, "fiu")
        if packed:
            check_unpacked(path, layout.size)
            file.seek(0)
            raw = stack.enter_context(tempfile.TemporaryFile())
            unpack(file, raw, layout.size)
        elif (size := path.stat().st_size) < layout.size:  # bytes after the values hurt nobody
            check_length(size, layout.size)
        source = NiftiFile(path, raw, layout, image)
        if plane:
            source.turn_to(plane)
        stack.pop_all()
        return source
