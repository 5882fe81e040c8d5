"""Axes that the sizes of an array do not tell are not guessed, and the advice given works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from image_files import refused

from nogaps import fill
from nogaps.images.formats import open_images


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
@pytest.mark.parametrize(
    ("shape", "advised"),
    [
        ((40, 40, 12), [(40, 1, 40, 12), (12, 1, 40, 40)]),
        ((40, 40, 40), [(40, 1, 40, 40)] * 2),
        ((64, 64, 20), [(64, 1, 64, 20), (20, 1, 64, 64)]),
        ((64, 64, 1), [(1, 1, 64, 64)]),
        ((64, 64, 3), [(3, 1, 64, 64)]),
        ((5, 64, 64, 1), [(5, 1, 64, 64)]),
        ((64, 2), []),
    ],
)
def test_the_advice_makes_images(
    tmp_path: Path, name: str, shape: tuple[int, ...], advised: list[tuple[int, ...]]
) -> None:
    y = np.zeros(shape, np.float32)
    path = tmp_path / name
    (np.save if path.suffix == ".npy" else np.savez)(path, y)
    line = refused(lambda: open_images(path))
    assert f"has shape {shape}" in line
    fixes = [
        eval(text, {"np": np, "y": y})
        for text in re.findall(
            r"(?:np\.moveaxis\(y, -1, [01]\)|\by)(?:\[:, None\])?(?=[ ,]|$)", line
        )
    ]
    assert [fix.shape for fix in fixes] == advised
    for fix in fixes:
        (np.save if path.suffix == ".npy" else np.savez)(path, fix)
        with open_images(path) as source:
            assert source.shape == (fix.shape[0], *fix.shape[2:])


def test_arrays_in_memory_are_asked_the_same() -> None:
    line = refused(lambda: fill(np.zeros((64, 64, 40), np.float32)))
    assert "does not tell whether the images come first or last" in line
