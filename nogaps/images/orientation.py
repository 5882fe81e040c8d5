"""How the axes of a NIfTI volume lie in a head, and views of it by slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import parsing

PLANES = ("sagittal", "coronal", "axial")  # by the axis they cut: right, anterior, superior
View = Callable[[np.ndarray], np.ndarray]  # a stored array as (volumes, slices, rows, columns)


def check_plane(plane: str | None) -> None:
    """Raise BadInput unless `plane` is one of PLANES, or None."""
    if plane not in (None, *PLANES):
        raise BadInput(f"--plane {plane}: expected {', '.join(PLANES)}")


@dataclass(frozen=True)
class Space:
    """Where the volumes of a NIfTI lie. shape: (I,J,K) of one of them; header: nibabel's."""

    path: Path
    shape: tuple[int, int, int]
    header: Any

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept: what values are is slope * stored + intercept."""
        slope, inter = self.header.get_slope_inter()
        return 1.0 if slope is None else float(slope), float(inter or 0)

    @property
    def affine(self) -> np.ndarray:
        """Of voxels to RAS+, (4,4). Raises BadInput if the header's is none."""
        with parsing(self.path, "a NIfTI image with an affine"):
            return self.header.get_best_affine()

    def orientation(self) -> np.ndarray:
        """Per stored axis its closest canonical axis and direction, (3,2) int.

        Raises BadInput if the affine does not tell the axes apart.
        """
        from nibabel import io_orientation

        affine = self.affine
        with parsing(self.path, "a NIfTI image with an affine"):
            found = io_orientation(affine)
            lost = np.isnan(found[:, 0])
            if lost.sum() == 1 and self.shape[int(lost.argmax())] == 1:  # flat: it has no normal
                found[lost] = 3 - found[~lost, 0].sum(), 1
            if np.isnan(found).any():
                raise ValueError("its affine does not tell the axes apart")
            return found.astype(int)

    def single(self) -> int | None:
        """The axis along which a volume is one slice, if there is just one."""
        flat = [k for k, n in enumerate(self.shape) if n == 1]
        return flat[0] if len(flat) == 1 else None

    def plane_of(self, axis: int) -> str:
        """The plane that slices along a stored axis show. Raises BadInput as `orientation`."""
        return PLANES[self.orientation()[axis, 0]]

    def _axes(self, plane: str) -> tuple[int, int, int]:
        """Stored axes that slices of a plane cut, and that become their rows and columns."""
        if (single := self.single()) is not None and (own := self.plane_of(single)) != plane:
            raise BadInput(f"{self.path}: is one {own} slice, expected --plane {own}")
        canonical = self.orientation()[:, 0].tolist()
        columns, rows = (a for a in range(3) if a != PLANES.index(plane))
        cut = PLANES.index(plane)
        return canonical.index(cut), canonical.index(rows), canonical.index(columns)

    def upright(self, plane: str) -> View:
        """By slices of a plane, turned to the closest canonical axes.

        The top of an image is superior, or anterior; its right is anterior, or the patient's
        right; slice 0 is left, posterior or inferior. Raises BadInput if the volume is one slice
        of another plane, or its affine does not tell.
        """
        axes = self._axes(plane)
        cut, rows, columns = (bool(self.orientation()[axis, 1] < 0) for axis in axes)
        return self._view(axes, (cut, not rows, columns))  # rows go down, axes up

    def stored(self, axis: int) -> View:
        """By slices along a stored axis, as they are."""
        rows, columns = (k for k in range(3) if k != axis)
        return self._view((axis, rows, columns), (False, False, False))

    def _view(self, axes: tuple[int, int, int], backwards: tuple[bool, bool, bool]) -> View:
        flips = tuple(np.s_[::-1] if back else np.s_[:] for back in backwards)

        def view(array: np.ndarray) -> np.ndarray:
            volumes = array.reshape((*self.shape, -1), order="F")
            return volumes.transpose(3, *axes)[(np.s_[:], *flips)]

        return view

    def spacing(self, plane: str) -> tuple[float, float]:
        """Height and width of a pixel of `upright` slices. Raises BadInput unless above 0."""
        _, rows, columns = self._axes(plane)
        sizes = np.linalg.norm(self.affine[:3], axis=0)
        kept = sizes[sorted((rows, columns))]
        if not (np.isfinite(kept).all() and (kept > 0).all()):
            found = "×".join(f"{size:g}" for size in kept)
            raise BadInput(f"{self.path}: has voxels of {found}, expected sizes above 0")
        return float(sizes[rows]), float(sizes[columns])

    def check_same(self, other: Space) -> None:
        """Raise BadInput unless voxels of one index lie at one place, to a hundredth of a voxel."""
        if self.shape != other.shape:
            found = f"{self.shape} voxels, expected {other.shape}"
            raise BadInput(f"{self.path}: has {found} as {other.path}")
        corners = np.array(np.meshgrid(*((0, n - 1) for n in self.shape))).reshape(3, -1)
        corners = np.vstack([corners, np.ones(corners.shape[1])])
        apart = np.abs((self.affine - other.affine) @ corners).max()
        sizes = np.linalg.norm(other.affine[:3, :3], axis=0)
        if not apart <= sizes[sizes > 0].min(initial=np.inf) / 100:
            found = f"lies up to {apart:g} away from {other.path}"
            raise BadInput(f"{self.path}: {found}, expected the same affine")
