"""Values of any range to [0,1] and back."""

from __future__ import annotations

import numpy as np
import pytest

from nogaps.filling.arrays import Span, rounded

OBSERVED = np.random.default_rng(0).random((3, 8, 10)) > 0.4


@pytest.mark.parametrize(("low", "high"), [(0, 1), (5, 9), (-3, 70), (-1e308, 1e308), (0, 5e-324)])
def test_observed_values_come_to_0_1_and_back(low: float, high: float) -> None:
    share = np.random.default_rng(1).random(OBSERVED.shape)
    values = low * (1 - share) + high * share
    values[~OBSERVED] = 0
    span = Span(values, OBSERVED)
    unit = span.down(values)[OBSERVED]
    assert unit.min() >= 0 and unit.max() <= 1 and np.isfinite(unit).all()
    again = span.up(span.down(values))
    largest = np.maximum(abs(low), abs(high))
    assert (np.abs(again / largest - values / largest)[OBSERVED] < 1e-12).all()
    with np.errstate(over="ignore"):
        wide = span.up(np.full_like(values, 7.0))
    assert (wide <= np.where(OBSERVED, values, -np.inf).max((1, 2), keepdims=True)).all()


@pytest.mark.parametrize("dtype", ["<i8", ">u8", "<u4", "|i1", "|u1", ">i2"])
def test_integers_are_rounded_within_their_type(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([0.49, 0.51, -1e30, 1e30])
    whole = rounded(values, np.dtype(dtype))
    assert whole.dtype == np.dtype(dtype) and whole[:2].tolist() == [0, 1]
    assert whole[2] == info.min and float(whole[3]) == pytest.approx(float(info.max), rel=1e-9)
