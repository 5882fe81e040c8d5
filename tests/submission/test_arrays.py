"""Every way to spoil the filled array is named for what it is."""

from __future__ import annotations

import numpy as np
import pytest
from spoilt_arrays import ARRAYS
from submissions import GOOD, TRUTH, Y, named

from nogaps.runtime.errors import BadInput
from nogaps.submission import check_array


@pytest.mark.parametrize("name", ARRAYS)
def test_spoilt_array_is_named(name: str) -> None:
    edit, expected, words = ARRAYS[name]
    x_hat = edit(GOOD)
    before = np.array(x_hat, copy=True) if isinstance(x_hat, np.ndarray) else None
    findings = check_array(Y, x_hat)
    assert named(findings) == expected, "\n".join(map(str, findings))
    assert any(words in finding.found for finding in findings), findings
    if before is not None and before.dtype.kind == "f":
        assert np.array_equal(before, x_hat, equal_nan=True), "the input was changed"


@pytest.mark.parametrize("y", [Y[:, 0], TRUTH, np.zeros_like(Y), Y[:0]])
def test_bad_test_set_is_bad_input(y: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"test set: .*expected"):
        check_array(y, GOOD)
