"""A small valid submission, and how to change it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nogaps import standin
from nogaps.interpolation import linear
from nogaps.runtime.files import sha256
from nogaps.submission import Finding

MASK = standin.course_mask()
TRUTH = standin.clean_images()
Y = standin.corrupted_images()
GOOD = linear()(torch.from_numpy(Y), torch.from_numpy(MASK)[None, None]).numpy()
REFERENCES = "# References\n- [Fill in holes: U-Net](https://arxiv.org/abs/1505.04597)\n"
OPEN = "## Declaration of AI use\nTODO: to be filled in by you\n"


def code(source: str, count: int | None, *outputs: dict) -> dict:
    cell = {"cell_type": "code", "metadata": {}, "source": source}
    return cell | {"execution_count": count, "outputs": list(outputs)}


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def png(picture: np.ndarray) -> str:
    """(H,W) in [0,1] as a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray((255 * picture).astype(np.uint8)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def page(images: np.ndarray) -> np.ndarray:
    """Images (K,1,64,64) side by side on a white page."""
    return np.concatenate(
        list(np.pad(images[:, 0], ((0, 0), (9, 9), (3, 3)), constant_values=1)), 1
    )


TEN_IMAGES = png(page(TRUTH[:10]))
CURVE = png(np.where(np.abs(np.subtract.outer(np.arange(200), np.arange(300) / 2)) < 2, 0, 1))


def figure(picture: str = TEN_IMAGES) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}}


def notebook(digest: str) -> dict:
    """A small valid notebook, executed, that wrote the array with sha256 `digest`."""
    cells = [markdown("# Filling gaps")]
    for number in (1, 2, 3):
        cells.append(markdown(f"## Question {number}: part {number}\ntext"))
        cells.append(code("show()", number, stream("shown\n"), figure()))
    cells.append(code("save()", 4, stream(f"saved\ntest_set_nogaps.npy sha256: {digest}\n")))
    cells.append(code(" \n", None))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write(folder: Path, content: dict) -> None:
    (folder / "Assessment.ipynb").write_text(json.dumps(content))


def write_submission(folder: Path, y: np.ndarray = Y, x_hat: np.ndarray = GOOD) -> None:
    """A valid one, if x_hat fills y."""
    np.save(folder / "test_set.npy", y)
    np.save(folder / "test_set_nogaps.npy", x_hat)
    (folder / "References.md").write_text(REFERENCES + OPEN)
    write(folder, notebook(sha256(folder / "test_set_nogaps.npy")))


def edited(edit: Callable[[list[dict]], object]) -> Callable[[Path], object]:
    """Edit the cells: 0 title; 1, 3, 5 headings; 2, 4, 6 figures; 7 saves; 8 is empty."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / "Assessment.ipynb").read_text())
        edit(content["cells"])
        write(folder, content)

    return spoil


def source(place: int, text: str) -> Callable[[Path], object]:
    return edited(lambda cells: cells[place].update(source=[text]))


def output(place: int, out: dict) -> Callable[[Path], object]:
    return edited(lambda cells: cells[place]["outputs"].append(out))


def figures(*pictures: str) -> Callable[[Path], object]:
    """Question 2 shows these and nothing else."""
    return edited(lambda cells: cells[4].update(outputs=[figure(p) for p in pictures]))


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def slugs(findings: list[Finding]) -> list[str]:
    assert all("\n" not in str(finding) and finding.mend for finding in findings)
    return [finding.check for finding in findings]
