"""Fill the images of a file or folder in constant memory, alone or shared by several processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.filling import Filling, FillingMethod, as_method
from nogaps.filling.arrays import fill_batch, images_at_a_time
from nogaps.filling.survey import MISSING, FillReport, Masks, nan_masks, same_mask, survey
from nogaps.images.arrays import ImageSource
from nogaps.images.formats import (
    MaskFile,
    check_half_widths,
    check_output,
    open_images,
    open_mask,
)
from nogaps.masks import shared_mask_of
from nogaps.runtime import batches, processes
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, load_npy, save_npy

FEW = 8  # batches that are not worth keeping when one process is interrupted
MASK = "mask.npy"  # in the folder of unfinished work: the mask that was found


@dataclass(frozen=True)
class _Job:
    """What is filled, and how."""

    source: ImageSource
    given: MaskFile | None
    missing: str
    method: FillingMethod
    half_width: bool
    batch: int

    @property
    def masks(self) -> Masks | None:
        """The masks; None if the one mask of all images must be found first."""
        if self.given is not None:
            return self.given.read
        return nan_masks if self.missing == "nan" else None

    def settings(self, folder: Path) -> dict:
        """Check all images: what the result depends on, and the report; keep a mask in folder."""
        masks, given = self.masks, self.given
        if masks is None:
            mask = shared_mask_of(self.source)
            masks = same_mask(mask)
            save_npy(folder / MASK, mask)
        name = "" if given is None else str(given.stored.path)
        checked = (masks, self.missing, name, self.batch, self.method, self.half_width)
        report, digest = survey(self.source, *checked)
        notes = [*report.notes, *(() if given is None else given.notes)]
        return {
            "imputer": self.method.identity,
            "device": self.method.device.type,
            "type": self.source.dtype.str,
            "batch": self.batch,
            "half_widths": self.half_width,
            "data": digest,
            "report": {**vars(report), "notes": notes},
        }

    def arrays(self, folder: Path) -> list[batches.StoredArray]:
        """The unfinished arrays: filled images and, if asked for, half-widths."""
        count, *size = self.source.shape
        dtypes = {"images": self.source.dtype}
        if self.half_width:
            dtypes["half_widths"] = np.dtype(np.float32)
        return [
            batches.StoredArray(folder / f"{name}.raw", count, tuple(size), dtype)
            for name, dtype in dtypes.items()
        ]

    def fill(self, folder: Path, scaled: bool, progress: bool) -> None:
        """Fill what is left to do, into the unfinished arrays."""
        masks = self.masks or same_mask(load_npy(folder / MASK))

        def make(start: int, stop: int) -> list[np.ndarray]:
            images = self.source.read(start, stop)
            return fill_batch(images, masks(start, images), self.method, scaled, self.half_width)

        batches.make_batches(folder, self.arrays(folder), self.batch, make, "filling", progress)

    def save(self, folder: Path, output: str | Path, uncertainty: str | Path | None) -> None:
        """Write the finished arrays as a file of the input's kind, and the half-widths."""
        arrays = self.arrays(folder)
        images, *half = (np.memmap(a.path, a.dtype, "r", 0, self.source.shape) for a in arrays)
        for widths in half:
            with atomic(uncertainty) as temporary, open(temporary, "wb") as file:
                shape = self.source.as_stored(widths).shape
                file.write(batches.npy_header(shape, widths.dtype))
                file.writelines(self.source.blocks(widths))
        self.source.save(output, images)


def fill_file(
    input: str | Path,
    output: str | Path,
    imputer: FillingMethod | Filling,
    mask: str | Path | None = None,
    missing: str = "zero",
    batch_size: int | None = None,
    progress: bool = True,
    uncertainty: str | Path | None = None,
    plane: str | None = None,
) -> FillReport:
    """Fill the missing pixels of a file or folder, in constant memory, into one of the same kind.

    Observed values come back bit for bit. Floats in [0,1] go to the imputer as they are; integers,
    and files with any value outside [0,1], are scaled image by image and back, so that holes lie
    between the image's lowest (or zero) and highest observed value.

    Work of many batches is kept when it is interrupted, if the imputer is a network: the same call
    continues it. Several processes that all make this call share the work, to the same bits.

    Args:
        input: .npy, .npz, .nii, .nii.gz, .png or a folder of PNGs; see `open_images`.
        output: A file or folder of the same kind.
        imputer: What fills, `x_hat = imputer(y, mask)`.
        mask: A bool array, a picture, a folder of them or a NIfTI, True = observed; see
            `open_mask`. It is compared with the images, see `MaskCheck`.
        missing: Without a mask: a pixel is missing where it is zero in every image ("zero", see
            `shared_mask_of`) or, image by image, where it is NaN ("nan").
        batch_size: Images of 64×64 at a time, else 256, on a CPU 32; of larger ones, fewer.
        progress: Whether progress is shown.
        uncertainty: A .npy for the half-widths of the intervals, float32, in the output's shape and
            stored units, 0 where observed.
        plane: Of a NIfTI's slices; see `open_images`.

    Raises:
        BadInput: No images, no missing or no observed pixel, NaN unless it is what is missing,
            infinite values, a mask that cannot be found or does not fit, a file in the way.
    """
    if missing not in MISSING:
        raise BadInput(f"--missing {missing}: is unknown", "zero or nan")
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch size {batch_size}: is too small", "at least 1")
    method, given = as_method(imputer), None
    with ExitStack() as stack:
        with processes.main_process_first():
            source = stack.enter_context(open_images(input, plane))
            if mask is not None:
                given = stack.enter_context(closing(open_mask(mask, source)))
            check_output(source, output, mask)
            if uncertainty is not None:
                check_half_widths(uncertainty, [input, output, mask or input])
        batch = images_at_a_time(source.shape, batch_size, method.device)
        job = _Job(source, given, missing, method, uncertainty is not None, batch)
        with _workplace(job, Path(output)) as (folder, report):
            job.fill(folder, report.scaled, progress)
            if processes.is_main():
                job.save(folder, output, uncertainty)
        return report


@contextmanager
def _workplace(job: _Job, output: Path) -> Iterator[tuple[Path, FillReport]]:
    """Survey the images, and yield the folder of unfinished work: a lasting one where it counts."""
    real = Path(os.path.realpath(output))
    folder = real.with_name(f".{real.name}.partial")
    kept = job.source.shape[0] > FEW * job.batch or folder.exists()
    if processes.count() == 1 and (not kept or job.method.identity is None):
        with tempfile.TemporaryDirectory() as room:
            yield Path(room), FillReport(**job.settings(Path(room))["report"])
        return
    if job.method.identity is None:
        raise ValueError("several processes can only share the work of a network")
    with batches.unfinished(folder, lambda: job.settings(folder)) as settings:
        yield folder, FillReport(**settings["report"])
