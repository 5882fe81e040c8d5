"""Stored values of any type and range to [0,1], image by image, and back."""

from __future__ import annotations

import numpy as np


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
