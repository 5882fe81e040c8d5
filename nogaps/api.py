"""`from nogaps import fill`: images in memory, arrays or tensors, as `nogaps fill` does files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar, overload

import numpy as np
import torch

from nogaps.filling.files import as_numpy, fill_array
from nogaps.filling.method import Filling, FillingMethod, as_method
from nogaps.filling.survey import HOLES
from nogaps.imputers.loading import TrainedEnsemble, load_imputer
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput

Images = TypeVar("Images", np.ndarray, torch.Tensor)
Model = str | Path | FillingMethod | Filling | None
IN_PYTHON = {  # what errors call an option, and what it is here
    "--mask MASK.npy": "mask=",
    "--missing nan": "missing='nan'",
    "--missing": "missing",
    "--quality best": "quality='best'",
}


@overload
def fill(
    y: Images,
    mask: np.ndarray | torch.Tensor | None = None,
    *,
    model: Model = None,
    quality: str = "best",
    missing: str = "zero",
    half_width: Literal[False] = False,
) -> Images: ...
@overload
def fill(
    y: Images,
    mask: np.ndarray | torch.Tensor | None = None,
    *,
    model: Model = None,
    quality: str = "best",
    missing: str = "zero",
    half_width: Literal[True],
) -> tuple[Images, Images]: ...
def fill(
    y: Images,
    mask: np.ndarray | torch.Tensor | None = None,
    *,
    model: Model = None,
    quality: str = "best",
    missing: str = "zero",
    half_width: bool = False,
) -> Images | tuple[Images, Images]:
    """Fill the missing pixels of images in memory, to the same bits as `nogaps fill` does in files.

    y: array or tensor (H,W), (N,H,W) or (N,1,H,W), integers or floats of any range. mask: bool, of
    y's shape, or (H,W), (1,H,W) or (1,1,H,W) for all images; True = observed. Without one a pixel
    is missing where it is zero in every image (missing="zero"; one image alone, and images with
    different masks, are refused) or, image by image, where it is NaN ("nan").

    model: a run folder, a .safetensors file, an imputer that `load_imputer` gave (to load it once
    for many calls), or None: the one shipped with this package. quality: "best" is the mean of all
    its networks, "fast" the first alone.

    Returns an array or tensor like y, of its shape, dtype and device, observed values bit for bit.
    Floats in [0,1] are filled as they are, other values are scaled for the network and back. With
    half_width=True also the half-widths of the 90 % intervals, float32, in y's units, 0 where
    observed. Raises BadInput, a ValueError, for what `nogaps fill` refuses.

    >>> import numpy as np
    >>> y = np.random.default_rng(0).random((3, 64, 64))
    >>> y[:, :, ::4] = 0
    >>> x_hat = fill(y, quality="fast")
    >>> x_hat.shape, x_hat.dtype, bool((x_hat == y)[y > 0].all())
    ((3, 64, 64), dtype('float64'), True)
    """
    array = as_numpy(y)
    if not 2 <= array.ndim <= 4 or (array.ndim == 4 and array.shape[1] != 1):
        expected = "(H,W), (N,H,W) or (N,1,H,W)"
        raise BadInput(f"y: has shape {array.shape}, expected {expected}")
    if missing not in HOLES:
        raise BadInput(f"missing {missing!r}: is unknown, expected 'zero' or 'nan'")
    with _in_words_of_python():
        method = _method(y, model, quality)
        images = array.reshape(-1, 1, *array.shape[-2:])
        seen = None if mask is None else _mask_of(images, as_numpy(mask))
        parts = fill_array(images, seen, method, missing, half_width=half_width)
        found = [part.reshape(array.shape) for part in parts]
    if not isinstance(y, torch.Tensor):
        return tuple(found) if half_width else found[0]
    x_hat, *half = (torch.from_numpy(part).to(y.device) for part in found)
    return (x_hat.to(y.dtype), *half) if half_width else x_hat.to(y.dtype)


def _mask_of(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask as (1,1,H,W) or (N,1,H,W). Raises BadInput if it is none for images (N,1,H,W)."""
    whole, one = images.shape, (1, *images.shape[1:])
    shapes = [whole, (whole[0], *whole[2:]), one, one[1:], one[2:]]
    if mask.dtype.kind != "b" or mask.shape not in shapes:
        found = f"dtype {mask.dtype} and shape {mask.shape}"
        raise BadInput(f"mask: has {found}, expected bool (True = observed), {one[2:]} or as y")
    return mask.reshape(-1, *one[1:])


def _method(y: object, model: Model, quality: str) -> FillingMethod:
    """The method to call, on the device of y if that is a GPU, else where `nogaps fill` runs."""
    if callable(model):
        return as_method(model)
    elsewhere = isinstance(y, torch.Tensor) and y.device.type != "cpu"
    load = _shipped if model is None else load_imputer
    return load(model, y.device if elsewhere else pick_device(), quality)


@lru_cache(maxsize=2)
def _shipped(model: None, device: torch.device, quality: str) -> TrainedEnsemble:
    """The shipped imputer, loaded once: the files of a package do not change while it runs."""
    return load_imputer(model, device, quality)


@contextlib.contextmanager
def _in_words_of_python() -> Iterator[None]:
    """Errors that name an option of the command line name the argument instead."""
    try:
        yield
    except BadInput as error:
        text = str(error)
        for option, argument in IN_PYTHON.items():
            text = text.replace(option, argument)
        raise BadInput(text) from None
