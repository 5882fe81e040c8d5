"""Fill the holes of images in a file or in memory, whatever their type and range, by batches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from nogaps.filling.method import Filling, FillingMethod, as_method
from nogaps.filling.sharding import Filled, Shards
from nogaps.filling.survey import (
    HOLES,
    FillReport,
    Survey,
    Surveyed,
    mask_of,
    notes_on_slices,
    notes_on_training,
)
from nogaps.images.arrays import ImageSource
from nogaps.images.formats import check_half_widths, check_output, open_images
from nogaps.images.mask_files import MaskFile, open_mask
from nogaps.images.scaling import Span, rounded
from nogaps.masks import shared_mask_of
from nogaps.runtime import processes
from nogaps.runtime.files import BadInput
from nogaps.runtime.progress import progress as show

Find = Callable[[int, np.ndarray], np.ndarray]  # the mask of images that start at some index
Images = TypeVar("Images", np.ndarray, torch.Tensor)
BATCH_PIXELS = 64 * 64  # batch_size counts images of this size; of larger ones a batch has fewer
BATCH, CPU_BATCH = 256, 32  # unless told; on a CPU more take more memory and time


@dataclass(frozen=True)
class _Stream:
    """Images and masks by batches: (start, images (n,H,W), mask (n,H,W) or (1,H,W)).

    hole: what a missing pixel is, in words; mask: None until it is found.
    """

    name: str
    hole: str
    shape: tuple[int, int, int]
    batch: int
    read: Callable[[int, int], np.ndarray]
    mask: Find | None

    def batches(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Those of images start to stop-1."""
        stop = self.shape[0] if stop is None else stop
        for first in range(start, stop, self.batch):
            images = self.read(first, min(first + self.batch, stop))
            yield first, images, self.mask(first, images)


def fill_file(
    input: str | Path,
    output: str | Path,
    imputer: FillingMethod | Filling,
    mask: str | Path | None = None,
    missing: str = "zero",
    batch_size: int | None = None,
    progress: bool = True,
    axis: int | None = None,
    uncertainty: str | Path | None = None,
    plane: str | None = None,
) -> FillReport:
    """Fill the missing pixels of a file or folder, in constant memory, into one of the same kind.

    input, output: .npy, .npz, .nii, .nii.gz, .png or a folder of PNGs (see `open_images`; axis or
    plane: of the slices of a NIfTI volume). mask: a bool .npy (H,W), (1,H,W), (1,1,H,W), (N,H,W) or
    (N,1,H,W), True = observed, or a PNG or NIfTI (see `open_mask`). Without one a pixel is missing
    where it is zero in every image (missing="zero", see `shared_mask_of`) or, image by image, where
    it is NaN ("nan").

    Observed values come back bit for bit. Floats in [0,1] go to the imputer as they are; integers,
    and files with any value outside [0,1], are scaled image by image and back, so that holes lie
    between the image's lowest (or zero) and highest observed value. batch_size: images of 64×64
    at a time, 256 or on a CPU 32 unless told; of larger ones, fewer. uncertainty: a .npy for
    the half-widths of the intervals of a calibrated imputer, float32, in the output's shape and
    stored units, 0 where observed.

    Many images are filled shard by shard if the imputer has an identity: an interrupted call is
    continued by the same call, and several processes (see `processes`) that all call this share
    the work. The output has the same bits however that was (on the CPU with as many threads).

    Raises BadInput: no images, no missing or no observed pixel, NaN unless they are what is
    missing, infinite values, a mask that cannot be found or does not fit, a file in the way.
    """
    if missing not in HOLES:
        raise BadInput(f"--missing {missing}: is unknown, expected zero or nan")
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch size {batch_size}: is too small, expected at least 1")
    method = as_method(imputer)
    with ExitStack() as stack:
        source = stack.enter_context(open_images(input, axis, plane))
        check_output(source, output)
        targets = [(source.dtype, partial(source.save, output))]
        if uncertainty is not None:
            check_half_widths(uncertainty, [input, output, mask or input])
            targets += [(np.dtype("f4"), partial(source.save_half_widths, uncertainty))]
        batch = _batch_of(source.shape, batch_size, method)
        if mask is not None:
            given = open_mask(mask, source)
            stack.callback(given.close)
            find, hole = _given_mask(given, Path(output)), f"False in {mask}"
        else:
            find, hole = _nan_mask if missing == "nan" else None, HOLES[missing]
        stream = _Stream(str(input), hole, source.shape, batch, source.read, find)
        intervals = uncertainty is not None
        survey = partial(_survey_file, stream, missing, source, method, intervals)
        fill_part = partial(_filled_as, stream=stream, method=method, half_width=intervals)
        shards = Shards(output, source.shape[0], batch, len(targets))
        alone = processes.count() == 1
        who = None if alone and shards.few else method.identity
        if alone and who is None:
            found = survey()
            _write(targets, source.shape, fill_part(found), progress)
            return found.report
        if who is None:
            raise ValueError("several processes can only share the work of a loaded imputer")
        settings = {"imputer": who, "device": method.device.type, "type": source.dtype.str}
        settings |= {"missing": missing, "batch": batch, "outputs": len(targets)}
        join = partial(_write, targets, source.shape, progress=progress, what="joining")
        return shards.fill(settings, survey, fill_part, join, progress)


def _filled_as(
    found: Surveyed,
    start: int = 0,
    stop: int | None = None,
    *,
    stream: _Stream,
    method: FillingMethod,
    half_width: bool,
) -> Filled:
    """Images start to stop-1, filled."""
    if found.mask is not None:
        stream = replace(stream, mask=_by_place(found.mask[None]))
    return _filled(stream, method, half_width, found.report.scaled, start, stop)


def _write(
    targets: list[tuple[np.dtype, Callable[[np.ndarray], None]]],
    shape: tuple[int, int, int],
    batches: Filled,
    progress: bool,
    what: str = "filling",
) -> None:
    """Collect all batches in temporary files, then save each file: targets are (type, save)."""
    bar = show(desc=what, total=shape[0], delay=1, disable=not progress)
    with ExitStack() as stack, bar:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in targets]
        for start, results in batches:
            for (dtype, _), file, images in zip(targets, files, results, strict=True):
                file.seek(start * images[0].size * dtype.itemsize)
                file.write(images.astype(dtype).tobytes())
            bar.update(len(results[0]))
        for (dtype, save), file in zip(targets, files, strict=True):
            file.flush()
            save(np.memmap(file, dtype, "r", 0, shape))


def fill(
    y: Images, mask: Images, imputer: FillingMethod | Filling, batch_size: int | None = None
) -> Images:
    """Fill images in memory: a new array or tensor of y's type, dtype and device, (N,1,H,W).

    y: (N,1,H,W) integers or floats of any range; what it holds where mask is False is ignored.
    mask: bool (1,1,H,W) or (N,1,H,W), True = observed. Values, scaling and batch_size are as in
    `fill_file`. Raises BadInput for other shapes or types, no images, an image without observed
    pixel, NaN at observed pixels, infinite values.
    """
    method = as_method(imputer)
    (out,) = fill_array(as_numpy(y), as_numpy(mask), method, "any", batch_size)
    return torch.from_numpy(out).to(y.device, y.dtype) if isinstance(y, torch.Tensor) else out


def fill_array(
    array: np.ndarray,
    seen: np.ndarray | None,
    method: FillingMethod,
    missing: str = "zero",
    batch_size: int | None = None,
    half_width: bool = False,
) -> list[np.ndarray]:
    """`fill_file` in memory, to the same bits: [x_hat] of the type and shape of array (N,1,H,W).

    seen: bool (1,1,H,W) or (N,1,H,W), True = observed; None: found by what `missing` says, "zero"
    or "nan". "any": what is missing may hold anything, also NaN. An imputer that returns
    half-widths as well adds them to the list, float32. Raises BadInput as `fill_file`.
    """
    if array.ndim != 4 or array.shape[1] != 1 or 0 in array.shape or array.dtype.kind not in "fiu":
        found = f"shape {array.shape} and dtype {array.dtype}"
        raise BadInput(f"y: has {found}, expected (N,1,H,W) integers or floats")
    shape, hole = (len(array), *array.shape[2:]), HOLES.get(missing, "missing")
    if seen is not None:
        if seen.shape not in (array.shape, (1, *array.shape[1:])) or seen.dtype.kind != "b":
            found = f"shape {seen.shape} and dtype {seen.dtype}"
            raise BadInput(f"mask: has {found}, expected (1,1,H,W) or (N,1,H,W) bool, as y")
        find, hole = _by_place(seen[:, 0]), "False in the mask"
    else:
        find = _nan_mask if missing == "nan" else _by_place(shared_mask_of(_InMemory(array))[None])
    batch = _batch_of(shape, batch_size, method)
    stream = _Stream("y", hole, shape, batch, lambda start, stop: array[start:stop, 0], find)
    scaled = _survey(stream, missing).report.scaled
    out = [np.empty_like(array)]
    for start, parts in _filled(stream, method, half_width, scaled):
        out += [np.empty(array.shape, np.float32) for _ in parts[len(out) :]]
        for whole, part in zip(out, parts, strict=True):
            whole[start : start + len(part), 0] = part
    return out


def _by_place(seen: np.ndarray) -> Find:
    """Masks (1,H,W) of all images, or (N,H,W) of each."""
    return lambda start, images: seen if len(seen) == 1 else seen[start : start + len(images)]


class _InMemory(ImageSource):
    """Images (N,1,H,W) of an array that errors call y."""

    def __init__(self, array: np.ndarray) -> None:
        self.path, self.array = Path("y"), array
        self.shape = (len(array), *array.shape[2:])

    def read(self, start: int, stop: int) -> np.ndarray:
        """See ImageSource."""
        return self.array[start:stop, 0]


def as_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """An array, or a tensor of any device as one; bfloat16 becomes float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _batch_of(shape: tuple[int, int, int], size: int | None, method: FillingMethod) -> int:
    size = size or (CPU_BATCH if method.device.type == "cpu" else BATCH)
    return max(1, min(size, size * BATCH_PIXELS // (shape[1] * shape[2])))


def _nan_mask(start: int, images: np.ndarray) -> np.ndarray:
    return ~np.isnan(images)


def _given_mask(given: MaskFile, output: Path) -> Find:
    if output.exists() and output.samefile(given.stored.path):
        raise BadInput(f"{output}: is the mask, expected another name")
    return lambda start, images: given.read(start, len(images))


def _survey(stream: _Stream, missing: str, source: ImageSource | None = None) -> Surveyed:
    """Read everything once: check it, decide whether it is scaled, and find masks not given."""
    survey, mask = Survey(stream.name, stream.hole, missing), None
    if stream.mask is None:  # the mask is found first
        mask = mask_of(source)
        stream = replace(stream, mask=_by_place(mask[None]))
    for start, images, seen in stream.batches():
        survey.look(start, images, seen)
        survey.count(seen, len(images))
    return survey.done(stream.shape, mask)


def _survey_file(
    stream: _Stream, missing: str, source: ImageSource, method: FillingMethod, intervals: bool
) -> Surveyed:
    """`_survey`, and what people should know of the file."""
    found = _survey(stream, missing, source)
    notes = [*notes_on_training(found.report, found.kinds, method)]
    notes += ["the intervals are calibrated for that size and mask"] * bool(notes and intervals)
    notes += notes_on_slices(source)
    plane = getattr(source, "plane", "")
    return replace(found, report=replace(found.report, plane=plane, notes=tuple(notes)))


def _filled(
    stream: _Stream,
    method: FillingMethod,
    half_width: bool,
    scaled: bool,
    start: int = 0,
    stop: int | None = None,
) -> Filled:
    """By batches; filled images are in the input's dtype."""
    call = method.with_half_width if half_width else method
    for first, images, mask in stream.batches(start, stop):
        seen = np.broadcast_to(mask, images.shape)
        wide = np.where(seen, images, 0).astype(np.result_type(images.dtype, np.float64))
        span = Span(wide, seen) if scaled else None
        y = np.where(seen, span.down(wide), 0) if span else wide
        x_hat, *half = (part.astype(wide.dtype) for part in _impute(call, method.device, y, mask))
        if not np.isfinite(x_hat[~seen]).all():
            raise BadInput(f"{stream.name}: the imputer gave NaN or infinity, expected [0, 1]")
        x_hat = np.clip(x_hat, 0, 1)
        out = images.copy()
        out[~seen] = rounded(span.up(x_hat) if span else x_hat, images.dtype)[~seen]
        yield first, [out, *((span.width(part) if span else part) for part in half)]


def _impute(
    call: Callable, device: torch.device, y: np.ndarray, mask: np.ndarray
) -> list[np.ndarray]:
    """What an imputer, on its own device, makes of y (n,H,W) and mask (n,H,W) or (1,H,W)."""
    tensors = [
        np.array(part[:, None], dtype, order="C")  # sums depend on the order in memory
        for part, dtype in ((y, np.float32), (mask, bool))
    ]
    with torch.no_grad():
        found = call(*(torch.from_numpy(tensor).to(device) for tensor in tensors))
    results = found if isinstance(found, tuple) else (found,)
    if any(part.shape != tensors[0].shape for part in results):
        raise ValueError(f"the imputer gave {[*results[0].shape]} for {tensors[0].shape}")
    return [part[:, 0].float().cpu().numpy() for part in results]
