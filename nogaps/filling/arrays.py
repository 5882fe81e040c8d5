"""Fill images in memory, whatever their type and range, batch by batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nogaps.filling import Filling, FillingMethod, as_method
from nogaps.filling.survey import nan_masks, same_mask, split, survey
from nogaps.images.arrays import ImageSource
from nogaps.masks import shared_mask_of
from nogaps.runtime.errors import BadInput

BATCH_PIXELS = 64 * 64  # a batch size counts images of this size; of larger ones there are fewer
BATCH, CPU_BATCH = 256, 32  # on a CPU more images take more memory and time


def fill_array(
    y: np.ndarray,
    mask: np.ndarray | None,
    imputer: FillingMethod | Filling,
    missing: str = "zero",
    batch_size: int | None = None,
    half_width: bool = False,
) -> list[np.ndarray]:
    """Fill images in memory, to the same bits as `fill_file` fills them in a file.

    Args:
        y: Images (N,1,H,W), integers or floats of any range.
        mask: Bool (1,1,H,W) or (N,1,H,W), True = observed; or None.
        imputer, missing, batch_size: As in `fill_file`.
        half_width: Whether the half-widths of the intervals are returned as well.

    Returns:
        [x_hat] of the type and shape of y, or [x_hat, half-widths float32].
    """
    if y.ndim != 4 or y.shape[1] != 1 or 0 in y.shape or y.dtype.kind not in "fiu":
        problem = f"has shape {y.shape} and dtype {y.dtype}"
        raise BadInput(problem, "(N,1,H,W) integers or floats", path="y")
    source, method = _Memory(y), as_method(imputer)
    if mask is None:
        masks = nan_masks if missing == "nan" else same_mask(shared_mask_of(source))
    else:
        every, one = mask[:, 0], same_mask(mask[0, 0])
        masks = one if len(mask) == 1 else lambda start, part: every[start : start + len(part)]
    batch = images_at_a_time(source.shape, batch_size, method.device)
    name = "" if mask is None else "mask"
    report, _ = survey(source, masks, missing, name, batch, method, half_width)
    out = [np.empty_like(y), *[np.empty(y.shape, np.float32)] * half_width]
    for start in range(0, len(y), batch):
        images = y[start : start + batch, 0]
        parts = fill_batch(images, masks(start, images), method, report.scaled, half_width)
        for whole, part in zip(out, parts, strict=True):
            whole[start : start + batch, 0] = part
    return out


class _Memory(ImageSource):
    """Images (N,1,H,W) of an array, which errors call y."""

    def __init__(self, y: np.ndarray) -> None:
        self.path, self.y, self.dtype = Path("y"), y, y.dtype
        self.shape = (len(y), *y.shape[2:])

    def read(self, start: int, stop: int) -> np.ndarray:
        """See ImageSource."""
        return self.y[start:stop, 0]


class Span:
    """Each image's range, from min(0, lowest) to the highest observed value, mapped to [0,1].

    Everything is divided by the largest magnitude first, as high - low may overflow.

    Args:
        values: Images (n, H, W), float.
        observed: Which pixels count, bool (n, H, W).
    """

    def __init__(self, values: np.ndarray, observed: np.ndarray) -> None:
        axes = {"axis": (1, 2), "keepdims": True, "where": observed}
        self.low = values.min(**axes, initial=0)
        self.high = values.max(**axes, initial=-np.inf)
        largest = np.maximum(-self.low, np.abs(self.high))
        self.unit = np.where(largest > 0, largest, 1)
        span = self.high / self.unit - self.low / self.unit
        self.span = np.where(span > 0, span, 1)

    def down(self, values: np.ndarray) -> np.ndarray:
        """Map stored values to [0,1]."""
        return (values / self.unit - self.low / self.unit) / self.span

    def up(self, values: np.ndarray) -> np.ndarray:
        """Map [0,1] to values between the lowest and the highest."""
        stored = self.unit * (self.low / self.unit + values * self.span)
        return np.clip(stored, self.low, self.high)

    def width(self, values: np.ndarray) -> np.ndarray:
        """Map a length in [0,1] to one of stored values, at most float32's largest."""
        with np.errstate(over="ignore"):
            return np.minimum(values * self.span * self.unit, np.finfo(np.float32).max)


def rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values as `dtype`; integers are rounded and kept within what the type can hold."""
    if dtype.kind == "f":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    top = values.dtype.type(info.max)
    if int(top) > info.max:  # 2**63 - 1 is not a float64
        top = np.nextafter(top, values.dtype.type(0))
    return np.clip(np.rint(values), info.min, top).astype(dtype)


def images_at_a_time(
    shape: tuple[int, int, int], batch_size: int | None, device: torch.device
) -> int:
    """Return how many images (N,H,W) a device fills at a time; batch_size: as in `fill_file`."""
    size = batch_size or (CPU_BATCH if device.type == "cpu" else BATCH)
    return max(1, min(size, size * BATCH_PIXELS // (shape[1] * shape[2])))


def fill_batch(
    images: np.ndarray, mask: np.ndarray, method: FillingMethod, scaled: bool, half_width: bool
) -> list[np.ndarray]:
    """Fill one batch of images; observed values stay bit for bit.

    Args:
        images: (n,H,W), integers or floats; what they hold where pixels are missing is ignored.
        mask: Bool (n,H,W) or (1,H,W), True = observed; see `split` for NaN.
        method: What fills.
        scaled: Whether values are scaled to [0,1], image by image, and back.
        half_width: As in `fill_array`.

    Returns:
        [x_hat (n,H,W) of the type of images], or [x_hat, half-widths in the units of images].

    Raises:
        BadInput: The method gives values that are not finite, or it has no intervals.
    """
    mask, holes = split(images, mask)
    seen, holes = (np.broadcast_to(part, images.shape) for part in (mask, holes))
    wide = np.where(seen & ~np.isnan(images), images, 0).astype(
        np.result_type(images.dtype, np.float64)
    )
    span = Span(wide, seen) if scaled else None
    y = np.where(seen, span.down(wide), 0) if span else wide
    results = _call(method.with_half_width if half_width else method, y, mask, method.device)
    x_hat, *half = (part.astype(wide.dtype) for part in results)
    if not np.isfinite(x_hat[~seen]).all():
        raise BadInput("the imputer gave NaN or infinity", "values in [0, 1]")
    x_hat = np.clip(x_hat, 0, 1)
    out = images.copy()
    out[holes] = rounded(span.up(x_hat) if span else x_hat, images.dtype)[holes]
    return [out, *((span.width(part) if span else part) for part in half)]


def _call(impute: Filling, y: np.ndarray, mask: np.ndarray, device: torch.device) -> list:
    """Return what a method makes of y (n,H,W) and mask (n,H,W) or (1,H,W), float32 arrays."""
    tensors = [
        np.array(part[:, None], dtype, order="C")  # sums depend on the order in memory
        for part, dtype in ((y, np.float32), (mask, bool))
    ]
    with torch.no_grad():
        results = impute(*(torch.from_numpy(tensor).to(device) for tensor in tensors))
    results = results if isinstance(results, tuple) else (results,)
    if any(part.shape != tensors[0].shape for part in results):
        raise ValueError(f"the imputer gave {[*results[0].shape]} for {tensors[0].shape}")
    return [part[:, 0].float().cpu().numpy() for part in results]
