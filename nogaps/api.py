"""`from nogaps import fill`: images in memory, arrays or tensors, as `nogaps fill` does files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar, overload

import numpy as np
import torch

from nogaps.filling import Filling, FillingMethod
from nogaps.filling.arrays import fill_array
from nogaps.filling.survey import MISSING
from nogaps.images.arrays import check_axes
from nogaps.imputers.loading import load_imputer
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import Advice, BadInput

Images = TypeVar("Images", np.ndarray, torch.Tensor)
Mask = np.ndarray | torch.Tensor | None
Model = str | Path | FillingMethod | Filling | None
WORDS = {
    Advice.MASK: "a mask (mask=), or missing pixels that are NaN (missing='nan')",
    Advice.MISSING_NAN: "missing='nan' if NaN is what is missing, else mask=",
    Advice.QUALITY_BEST: "uncertainty.json beside its weights, and all networks (quality='best')",
}


@overload
def fill(
    y: Images,
    mask: Mask = None,
    *,
    model: Model = None,
    quality: str = "best",
    missing: str = "zero",
    half_width: Literal[False] = False,
) -> Images: ...
@overload
def fill(
    y: Images,
    mask: Mask = None,
    *,
    model: Model = None,
    quality: str = "best",
    missing: str = "zero",
    half_width: Literal[True],
) -> tuple[Images, Images]: ...
def fill(
    y: Images,
    mask: Mask = None,
    *,
    model: Model = None,
    quality: str = "best",
    missing: str = "zero",
    half_width: bool = False,
) -> Images | tuple[Images, Images]:
    """Fill the missing pixels of images in memory, to the same bits as `nogaps fill` does in files.

    Floats in [0,1] are filled as they are, other values are scaled for the network and back.

    Args:
        y: Array or tensor (H,W), (N,H,W) or (N,1,H,W), integers or floats of any range.
        mask: Bool, of y's shape, or (H,W), (1,H,W) or (1,1,H,W) for all images; True = observed.
        model: A run folder, a .safetensors file, an imputer that `load_imputer` gave (to load it
            once for many calls), any function `x_hat = model(y, mask)`, or None: the imputer
            shipped with this package.
        quality: "best" is the mean of all its networks, "fast" the first alone.
        missing: Without a mask a pixel is missing where it is zero in every image ("zero"; one
            image alone, and images with different masks, are refused) or, image by image, where
            it is NaN ("nan").
        half_width: Whether the half-widths of the 90 % intervals are returned as well.

    Returns:
        An array or tensor like y, of its shape, dtype and device, observed values bit for bit; with
        `half_width` a pair of it and the half-widths, float32, in y's units, 0 where observed.

    Raises:
        BadInput: A ValueError, for what `nogaps fill` refuses.

    >>> import numpy as np
    >>> y = np.random.default_rng(0).random((3, 64, 64))
    >>> y[:, :, ::4] = 0
    >>> x_hat = fill(y, quality="fast")
    >>> x_hat.shape, x_hat.dtype, bool((x_hat == y)[y > 0].all())
    ((3, 64, 64), dtype('float64'), True)
    """
    array = _as_numpy(y)
    if not 2 <= array.ndim <= 4 or (array.ndim == 4 and array.shape[1] != 1):
        raise BadInput(f"has shape {array.shape}", "(H,W), (N,H,W) or (N,1,H,W)", path="y")
    if missing not in MISSING:
        raise BadInput(f"missing {missing!r}: is unknown", "'zero' or 'nan'")
    check_axes("y", array.shape)
    images = array.reshape(-1, 1, *array.shape[-2:])
    try:
        imputer = model if callable(model) else _load(y, model, quality)
        observed = None if mask is None else _as_mask(images, _as_numpy(mask))
        filled = fill_array(images, observed, imputer, missing, half_width=half_width)
    except BadInput as error:
        raise BadInput(error.line(WORDS)) from None
    results = [part.reshape(array.shape) for part in filled]
    if isinstance(y, torch.Tensor):
        results = [torch.from_numpy(part).to(y.device) for part in results]
        results[0] = results[0].to(y.dtype)
    return tuple(results) if half_width else results[0]


def _as_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """An array, or a tensor of any device as one; bfloat16 becomes float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _as_mask(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask of images (N,1,H,W) as (1,1,H,W) or (N,1,H,W)."""
    count, _, *size = images.shape
    shapes = {(*start, *size) for start in ((), (1,), (1, 1), (count,), (count, 1))}
    if mask.dtype.kind != "b" or mask.shape not in shapes:
        problem = f"has dtype {mask.dtype} and shape {mask.shape}"
        raise BadInput(problem, f"bool (True = observed), {tuple(size)} or as y", path="mask")
    return mask.reshape(-1, 1, *size)


def _load(y: object, model: str | Path | None, quality: str) -> FillingMethod:
    """Load an imputer to the device of y if that is not the CPU, else as `nogaps fill` does."""
    elsewhere = isinstance(y, torch.Tensor) and y.device.type != "cpu"
    device = y.device if elsewhere else pick_device()
    return _shipped(device, quality) if model is None else load_imputer(model, device, quality)


@lru_cache(maxsize=2)
def _shipped(device: torch.device, quality: str) -> FillingMethod:
    """The shipped imputer, loaded once: the files of a package do not change while it runs."""
    return load_imputer(None, device, quality)
