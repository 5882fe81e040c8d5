"""Every way to spoil the filled array is named for what it is, and the advice helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spoilt_arrays import ARRAYS
from submissions import GOOD, MASK, TRUTH, Y, named

from nogaps.runtime.errors import BadInput
from nogaps.submission.arrays import check_array
from nogaps.submission.findings import Finding


@pytest.mark.parametrize("name", ARRAYS)
def test_spoilt_array_is_named_and_the_advice_helps(name: str) -> None:
    edit, expected, words = ARRAYS[name]
    x_hat = edit(GOOD)
    before = np.array(x_hat, copy=True)
    findings = check_array(Y, x_hat)
    assert named(findings) == expected, "\n".join(map(str, findings))
    assert any(words in finding.found for finding in findings), findings
    if before.dtype.kind in "fiu":
        assert np.array_equal(before, x_hat, equal_nan=True), "the input was changed"
        for finding in findings:
            follow(finding, x_hat)


def follow(finding: Finding, x_hat: np.ndarray) -> None:
    """Do what is written as code: the finding goes, and no image is blackened."""
    code = finding.fix.removeprefix("save ").removeprefix("copy them: x_hat = ")
    code = code.removesuffix(" before saving")
    as_torch = "torch." in code or "clamp" in code
    if not code.startswith(("x_hat", "(x_hat", "torch.")):
        return
    if x_hat.shape != Y.shape and as_torch:
        return  # the axes come first
    values = {"x_hat": torch.from_numpy(x_hat.astype(np.float32)) if as_torch else x_hat}
    values |= {"torch": torch, "y": torch.from_numpy(Y), "mask": torch.from_numpy(MASK)}
    after = np.asarray(eval(code, values)).astype(np.float32)
    assert finding.check not in {f.check for f in check_array(Y, after)}, (finding, after.shape)
    if finding.check in ("range", "overshoot"):
        quantiles = [np.quantile(x[:, 0][:, MASK], np.linspace(0, 1, 9)) for x in (after, Y)]
        assert np.abs(np.subtract(*quantiles)).mean() < 0.05


@pytest.mark.parametrize("y", [Y[:, 0], TRUTH, np.zeros_like(Y), Y[:0]])
def test_bad_test_set_is_bad_input(y: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"test set: .*expected"):
        check_array(y, GOOD)
