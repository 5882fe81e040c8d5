"""Fill the holes of images in a file or in memory, whatever their type and range, by batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from nogaps.checkpoint import fingerprint
from nogaps.files import BadInput
from nogaps.formats import check_output, open_images
from nogaps.formats.arrays import ImageSource
from nogaps.formats.companion import half_width_file
from nogaps.formats.masks import MaskFile, open_mask
from nogaps.formats.nifti import NiftiFile
from nogaps.masks import Masks, find_masks, find_masks_in
from nogaps.progress import progress as show
from nogaps.scaling import Span, rounded

Filling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Find = Callable[[int, np.ndarray], np.ndarray]  # the mask of images that start at some index
Filled = Iterator[tuple[int, list[np.ndarray]]]  # start, [filled images, half-widths if asked]
Images = TypeVar("Images", np.ndarray, torch.Tensor)
HOLES = {"zero": "zero in every image", "nan": "NaN"}
BATCH_PIXELS = 64 * 64  # batch_size counts images of this size; of larger ones a batch has fewer


@dataclass(frozen=True)
class FillReport:
    """What was filled: missing_pixels over all images, masks counts the different ones.

    scaled: the values were not floats in [0,1] and were scaled for the network, and back. plane: of
    a NIfTI's slices, "" if there is none or it is unknown. notes: where the images are unlike those
    that the networks were trained on, for people.
    """

    images: int
    height: int
    width: int
    missing_pixels: int
    masks: int
    scaled: bool
    plane: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Stream:
    """Images and masks by batches: (start, images (n,H,W), mask (n,H,W) or (1,H,W)).

    hole: what a missing pixel is, in words.
    """

    name: str
    hole: str
    shape: tuple[int, int, int]
    batch: int
    read: Callable[[int, int], np.ndarray]
    mask: Find

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        count = self.shape[0]
        for start in range(0, count, self.batch):
            images = self.read(start, min(start + self.batch, count))
            yield start, images, self.mask(start, images)


def fill_file(
    input: str | Path,
    output: str | Path,
    imputer: Filling,
    mask: str | Path | None = None,
    missing: str = "zero",
    batch_size: int = 256,
    progress: bool = True,
    axis: int | None = None,
    uncertainty: str | Path | None = None,
    plane: str | None = None,
) -> FillReport:
    """Fill the missing pixels of a file or folder, in constant memory, into one of the same kind.

    input, output: .npy, .npz, .nii, .nii.gz, .png or a folder of PNGs (see `open_images`; axis or
    plane: of the slices of a NIfTI volume). mask: a bool .npy (H,W), (1,H,W), (1,1,H,W), (N,H,W) or
    (N,1,H,W), True = observed, or a PNG or NIfTI (see `open_mask`). Without one a pixel is missing
    where it is zero in every image that has the same mask (missing="zero", see `find_masks`) or,
    image by image, where it is NaN ("nan").

    Observed values come back bit for bit. Floats in [0,1] go to the imputer as they are; integers,
    and files with any value outside [0,1], are scaled image by image and back, so that holes lie
    between the image's lowest (or zero) and highest observed value. batch_size: images of 64×64
    at a time; of larger ones, fewer. uncertainty: a .npy for the half-widths of the intervals of a
    `Calibrated` imputer, float32, in the output's shape and stored units, 0 where observed.

    Raises BadInput: no images, no missing or no observed pixel, NaN unless they are what is
    missing, infinite values, a mask that cannot be found or does not fit, a file in the way.
    """
    if missing not in HOLES:
        raise BadInput(f"--missing {missing}: is unknown, expected zero or nan")
    if batch_size < 1:
        raise BadInput(f"batch size {batch_size}: is too small, expected at least 1")
    impute = imputer
    with ExitStack() as stack:
        source = stack.enter_context(open_images(input, axis, plane))
        check_output(source, output)
        targets = [(source, output)]
        if uncertainty is not None:
            half = half_width_file(source, uncertainty, [input, output, mask or input])
            targets += [(stack.enter_context(half), uncertainty)]
            impute = imputer.with_half_width
        batch = _batch_of(source.shape, batch_size)
        if mask is not None:
            given = open_mask(mask, source)
            stack.callback(given.close)
            find, hole = _given_mask(given, Path(output)), f"False in {mask}"
        else:
            find = _nan_mask if missing == "nan" else _zero_mask(source)
            hole = HOLES[missing]
        stream = _Stream(str(input), hole, source.shape, batch, source.read, find)
        report, masks = _survey(stream, missing)
        _write(targets, _filled(stream, impute, report.scaled), progress)
    notes = [*_notes_on_training(report, masks, imputer)]
    notes += ["the intervals are calibrated for that size and mask"] * bool(notes and uncertainty)
    notes += _notes_on_slices(source)
    return replace(report, plane=getattr(source, "plane", ""), notes=tuple(notes))


def _notes_on_training(report: FillReport, masks: set[str], imputer: Filling) -> Iterator[str]:
    """What the images have that the networks of a loaded imputer were not trained for."""
    if not hasattr(imputer, "trained_on"):  # it is no network
        return
    if (trained := imputer.trained_on) is None:
        yield "the networks do not say which size and mask they were trained for"
    elif trained.size != (report.height, report.width):
        sizes = "images of {}×{}: the networks were trained for {}×{}, under one mask"
        yield sizes.format(report.height, report.width, *trained.size)
    elif others := len(masks - {trained.mask}):
        which = "the mask is not" if len(masks) == 1 else f"{others} of {len(masks)} masks are not"
        yield f"{which} the one that the networks were trained for"


def _notes_on_slices(source: ImageSource) -> Iterator[str]:
    """How the slices of a NIfTI are unlike the heads that the shipped networks know."""
    if isinstance(source, NiftiFile) and not source.upright:
        plane = f"{source.plane} " if source.plane else ""
        yield f"{plane}slices as they are stored: --plane would turn them upright"
    if isinstance(source, NiftiFile) and source.plane not in ("", "sagittal"):
        yield f"{source.plane} slices: the shipped networks were trained on sagittal ones"


def _write(targets: list[tuple[ImageSource, str | Path]], batches: Filled, progress: bool) -> None:
    count = targets[0][0].shape[0]
    bar = show(desc="filling", total=count, delay=1, disable=not progress)
    with ExitStack() as stack, bar:
        writes = [stack.enter_context(like.writing(path)) for like, path in targets]
        for start, results in batches:
            for write, images in zip(writes, results, strict=True):
                write(start, images)
            bar.update(len(results[0]))


def fill(y: Images, mask: Images, imputer: Filling, batch_size: int = 256) -> Images:
    """Fill images in memory: a new array or tensor of y's type, dtype and device, (N,1,H,W).

    y: (N,1,H,W) integers or floats of any range; what it holds where mask is False is ignored.
    mask: bool (1,1,H,W) or (N,1,H,W), True = observed. Values, scaling and batch_size are as in
    `fill_file`. Raises BadInput for other shapes or types, no images, an image without observed
    pixel, NaN at observed pixels, infinite values.
    """
    (out,) = fill_array(as_numpy(y), as_numpy(mask), imputer, "any", batch_size)
    return torch.from_numpy(out).to(y.device, y.dtype) if isinstance(y, torch.Tensor) else out


def fill_array(
    array: np.ndarray,
    seen: np.ndarray | None,
    imputer: Filling,
    missing: str = "zero",
    batch_size: int = 256,
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
        find = _nan_mask if missing == "nan" else _by_group(find_masks(array, "y"))
    batch = _batch_of(shape, batch_size)
    stream = _Stream("y", hole, shape, batch, lambda start, stop: array[start:stop, 0], find)
    scaled = _survey(stream, missing)[0].scaled
    out = [np.empty_like(array)]
    for start, parts in _filled(stream, imputer, scaled):
        out += [np.empty(array.shape, np.float32) for _ in parts[len(out) :]]
        for whole, part in zip(out, parts, strict=True):
            whole[start : start + len(part), 0] = part
    return out


def _by_place(seen: np.ndarray) -> Find:
    """Masks (1,H,W) of all images, or (N,H,W) of each."""
    return lambda start, images: seen if len(seen) == 1 else seen[start : start + len(images)]


def _by_group(masks: Masks) -> Find:
    return lambda start, images: masks.of(start, len(images))


def as_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """An array, or a tensor of any device as one; bfloat16 becomes float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _batch_of(shape: tuple[int, int, int], batch_size: int) -> int:
    return max(1, min(batch_size, batch_size * BATCH_PIXELS // (shape[1] * shape[2])))


def _nan_mask(start: int, images: np.ndarray) -> np.ndarray:
    return ~np.isnan(images)


def _given_mask(given: MaskFile, output: Path) -> Find:
    if output.exists() and output.samefile(given.stored.path):
        raise BadInput(f"{output}: is the mask, expected another name")
    return lambda start, images: given.read(start, len(images))


def _zero_mask(source: ImageSource) -> Find:
    try:
        return _by_group(find_masks_in(source))
    except BadInput as error:
        if isinstance(source, NiftiFile) and not source.upright:
            raise BadInput(f"{error}, or the plane of which slices share one (--plane)") from error
        raise


def _survey(stream: _Stream, missing: str) -> tuple[FillReport, set[str]]:
    """Check every value and mask, and decide for all images whether they are scaled.

    Returns the fingerprints of the masks, too.
    """
    holes, scaled, masks = 0, False, set[str]()
    for start, images, mask in stream:
        seen = np.broadcast_to(mask, images.shape)
        _check_values(stream, start, images, seen, missing)
        values = images[seen]
        scaled |= images.dtype.kind != "f" or values.min() < 0 or values.max() > 1
        holes += seen.size - np.count_nonzero(seen)
        masks |= {fingerprint(torch.from_numpy(one)) for one in mask}
    if not holes and missing != "any":
        other = "" if stream.hole not in HOLES.values() else " (or a mask: --mask MASK.npy)"
        raise BadInput(f"{stream.name}: no pixel is {stream.hole}, expected missing pixels{other}")
    return FillReport(*stream.shape, int(holes), len(masks), bool(scaled)), masks


def _check_values(
    stream: _Stream, start: int, images: np.ndarray, seen: np.ndarray, missing: str
) -> None:
    """missing: "zero" allows no NaN, "nan" allows it in holes, "any" allows anything there."""
    empty = ~seen.any((1, 2))
    if empty.any():
        which = f"every pixel of image {start + int(empty.argmax())}"
        raise BadInput(f"{stream.name}: {which} is {stream.hole}, expected observed ones")
    if (np.isinf(images) & (seen if missing == "any" else True)).any():
        raise BadInput(f"{stream.name}: holds infinite values, expected finite ones")
    nan = np.isnan(images)
    if missing == "zero" and nan.any():
        raise BadInput(f"{stream.name}: holds NaN, expected numbers (or --missing nan)")
    if (nan & seen).any():
        raise BadInput(f"{stream.name}: holds NaN at observed pixels, expected numbers there")


def _filled(stream: _Stream, imputer: Filling, scaled: bool) -> Filled:
    """By batches; filled images are in the input's dtype."""
    for start, images, mask in stream:
        seen = np.broadcast_to(mask, images.shape)
        wide = np.where(seen, images, 0).astype(np.result_type(images.dtype, np.float64))
        span = Span(wide, seen) if scaled else None
        y = np.where(seen, span.down(wide), 0) if span else wide
        x_hat, *half = (part.astype(wide.dtype) for part in _impute(imputer, y, mask))
        if not np.isfinite(x_hat[~seen]).all():
            raise BadInput(f"{stream.name}: the imputer gave NaN or infinity, expected [0, 1]")
        x_hat = np.clip(x_hat, 0, 1)
        out = images.copy()
        out[~seen] = rounded(span.up(x_hat) if span else x_hat, images.dtype)[~seen]
        yield start, [out, *((span.width(part) if span else part) for part in half)]


def _impute(imputer: Filling, y: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """What the imputer, on its own device, makes of y (n,H,W) and mask (n,H,W) or (1,H,W)."""
    device, owner = torch.device("cpu"), getattr(imputer, "__self__", imputer)
    if isinstance(owner, torch.nn.Module):
        device = next((p.device for p in owner.parameters()), device)
    tensors = [
        np.array(part[:, None], dtype, order="C")  # sums depend on the order in memory
        for part, dtype in ((y, np.float32), (mask, bool))
    ]
    with torch.no_grad():
        found = imputer(*(torch.from_numpy(tensor).to(device) for tensor in tensors))
    results = found if isinstance(found, tuple) else (found,)
    if any(part.shape != tensors[0].shape for part in results):
        raise ValueError(f"the imputer gave {[*results[0].shape]} for {tensors[0].shape}")
    return [part[:, 0].float().cpu().numpy() for part in results]
