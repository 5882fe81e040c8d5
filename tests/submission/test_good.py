"""No false alarm: honest fillings of many test sets under many masks, and folders that differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.ndimage import distance_transform_edt, gaussian_filter
from submissions import MASK, TRUTH, Spoil, raw, written

from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, kriging, linear
from nogaps.runtime.files import sha256
from nogaps.submission import DELIVERABLES, NOTEBOOK, RESULT, check_array, check_submission

TEST_SET = "test_set.npy"
Images = np.ndarray
Filler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def blocks(rng: np.random.Generator) -> np.ndarray:
    """Squares of four pixels: wider ones are no lines, and the mask is not found from zeros."""
    rows, columns = ((np.arange(64) + shift) % 9 < 4 for shift in rng.integers(0, 9, 2))
    return ~(rows[:, None] & columns)


def lines(step: int, width: int) -> np.ndarray:
    return np.repeat((np.arange(64) % step >= width)[:, None], 64, 1)


MASKS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "course": lambda rng: MASK,
    "stripes transposed": lambda rng: MASK.T,
    "stripes mirrored": lambda rng: MASK[:, ::-1],
    "rows": lambda rng: lines(4, 1),
    "wide rows": lambda rng: lines(5, 3),
    "columns": lambda rng: lines(3, 1).T,
    "blocks": blocks,
    "one block": lambda rng: ~np.pad(np.ones((5, 20), bool), ((20, 39), (24, 20))),
    "a third": lambda rng: rng.random((64, 64)) < 2 / 3,
    "most": lambda rng: rng.random((64, 64)) < 0.25,
}


covariance = cache(lambda: kriging(torch.from_numpy(TRUTH[:40])))
shipped = cache(load_imputer)


def network(place: int) -> Filler:
    return lambda y, mask: shipped().networks[place](y, mask)


def nearest(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    missing = ~mask[0, 0].numpy()
    rows, columns = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return y[..., rows, columns]


FILLERS: dict[str, Filler] = {
    "linear": lambda y, mask: linear()(y, mask),
    "biharmonic": biharmonic,
    "kriging": lambda y, mask: covariance()(y, mask),
    "nearest": nearest,
    "best": lambda y, mask: shipped()(y, mask),
    "fast": network(0),
    "second network": network(1),
    "third network": network(2),
    "fast and linear": lambda y, mask: (network(0)(y, mask) + linear()(y, mask)) / 2,
    "kriging and biharmonic": lambda y, mask: (covariance()(y, mask) + biharmonic(y, mask)) / 2,
}
COUNTS = (1, 2, 3, 5, 9, 10, 11, 20, 40, 100)


def clean(rng: np.random.Generator, count: int, seed: int) -> Images:
    """Some of the stand-in's heads in any order; some noisier, darker, or of another contrast.

    Their zeros stay, and no others arise, as in the course's file.
    """
    x = TRUTH[rng.permutation(100)[:count]]
    change: tuple[Callable[[Images], Images], ...] = (
        lambda x: x,
        lambda x: x + rng.normal(0, 0.02, x.shape),
        lambda x: 0.5 * x,
        lambda x: x ** rng.uniform(0.7, 1.4),
        lambda x: x + rng.normal(0, 0.05, (count, 1, 1, 1)) * x,
    )
    return np.where(x == 0, 0, np.clip(change[seed % 5](x), 0.002, 1)).astype(np.float32)


def filled(filler: Filler, y: Images) -> Images:
    """As a pipeline does it: a pixel is missing where it is zero in every image."""
    mask = torch.from_numpy((y != 0).any(0, keepdims=True))
    with torch.no_grad():
        x_hat = filler(torch.from_numpy(y), mask)
    return torch.where(mask, torch.from_numpy(y), x_hat.clamp(0, 1)).numpy()


@pytest.mark.parametrize(
    ("seed", "most"),
    [(seed, 11) for seed in range(30)]
    + [pytest.param(seed, 100, marks=pytest.mark.slow) for seed in range(30, 130)],
)
def test_honest_filling_has_no_finding(seed: int, most: int) -> None:
    """Each mask with ever other fillers and numbers of images."""
    rng = np.random.default_rng(seed)
    filler = list(FILLERS.values())[(seed + seed // 10 * 3) % 10]
    x = clean(rng, min(COUNTS[(seed * 7 + seed // 10) % 10], most), seed)
    y = x * list(MASKS.values())[seed % 10](rng)
    for x_hat in (filled(filler, y), np.where((y != 0).any(0), y, x)):
        findings = check_array(y, x_hat)
        assert findings == [], "\n".join(map(str, findings))
    rough = np.clip(gaussian_filter(x, (0, 0, 0.6, 0.6)) + rng.normal(0, 0.03, x.shape), 0, 1)
    findings = check_array(y, rough.astype(np.float32))
    assert {f.check for f in findings} <= {"observed-changed"}, "\n".join(map(str, findings))


def as_other_tools_write_it(folder: Path) -> None:
    """One string for many lines, no ids of cells, metadata, cells that are never executed."""
    content = json.loads((folder / NOTEBOOK).read_text(encoding="utf-8"))
    content["nbformat_minor"] = 4
    content["metadata"] |= {"colab": {"provenance": [], "gpuType": "T4"}, "accelerator": "GPU"}
    for cell in content["cells"]:
        cell.pop("id", None)
        cell["source"] = "".join(cell["source"])
        cell["metadata"]["id"] = "a/b+c"
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    content["cells"] += [code | {"source": ""}, {"cell_type": "raw", "metadata": {}, "source": "/"}]
    content["cells"][0]["id"] = "of a later format"  # GitHub and Jupyter show it all the same
    text = json.dumps(content, ensure_ascii=False)
    (folder / NOTEBOOK).write_bytes(b"\xef\xbb\xbf" + text.encode())


def smaller_set(folder: Path) -> None:
    y, before = np.load(folder / TEST_SET)[20:29], sha256(folder / TEST_SET)
    written(lambda x: filled(FILLERS["fast"], y))(folder)
    np.save(folder / TEST_SET, y)
    after = sha256(folder / TEST_SET).encode()
    raw(NOTEBOOK, lambda data: data.replace(before.encode(), after))(folder)


def link_inside(folder: Path) -> None:
    (folder / "runs").mkdir()
    (folder / RESULT).rename(folder / "runs" / RESULT)
    (folder / RESULT).symlink_to(f"runs/{RESULT}")


def other_files(folder: Path) -> None:
    for name in ("notes.ipynb", "old.npy", "README.md", "References (1).md"):
        (folder / name).write_text("anything")


def other_ends_of_lines(folder: Path) -> None:
    path = folder / "References.md"
    text = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text + b"TODO: mine\r\n")


FOLDERS: dict[str, Spoil] = {
    "fast": written(lambda x: filled(FILLERS["fast"], np.load(ROOT / TEST_SET))),
    "in Fortran's order": written(np.asfortranarray),
    "notebook of other tools": as_other_tools_write_it,
    "nine images": smaller_set,
    "link inside": link_inside,
    "other files": other_files,
    "other ends of lines": other_ends_of_lines,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_differ_are_valid(tmp_path: Path, name: str) -> None:
    for file in (*DELIVERABLES, TEST_SET):
        shutil.copyfile(ROOT / file, tmp_path / file)
    FOLDERS[name](tmp_path)
    findings = check_submission(tmp_path)
    assert findings == [], "\n".join(map(str, findings))
