"""A small valid submission, and what spoils its files."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nogaps import standin
from nogaps.interpolation import linear
from nogaps.runtime.files import sha256
from nogaps.submission import NOTEBOOK, RESULT, Finding

Array = Callable[[np.ndarray], object]
Spoil = Callable[[Path], object]
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


TEN_IMAGES = png(np.concatenate(list(TRUTH[:10, 0]), 1))


def figure(data: dict | None = None) -> dict:
    data = data or {"image/png": TEN_IMAGES}
    return {"output_type": "display_data", "metadata": {}, "data": data}


def notebook(digest: str) -> dict:
    """A small valid notebook, executed, that wrote the array with sha256 `digest`."""
    cells = [markdown("# Filling gaps")]
    for number in (1, 2, 3):
        cells.append(markdown(f"## Question {number}: part {number}\ntext"))
        cells.append(code("show()", number, stream("shown\n"), figure()))
    cells.append(code("save()", 4, stream(f"saved\n{RESULT} sha256: {digest}\n")))
    cells.append(code(" \n", None))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write(folder: Path, content: dict) -> None:
    (folder / NOTEBOOK).write_text(json.dumps(content))


def write_submission(folder: Path, y: np.ndarray = Y, x_hat: np.ndarray = GOOD) -> None:
    """A valid one, if x_hat fills y."""
    np.save(folder / "test_set.npy", y)
    np.save(folder / RESULT, x_hat)
    (folder / "References.md").write_text(REFERENCES + OPEN)
    write(folder, notebook(sha256(folder / RESULT)))


def named(findings: list[Finding]) -> str:
    """The names of the findings, with a space between them."""
    assert all(
        "\n" not in str(finding) and finding.expected and finding.fix for finding in findings
    )
    return " ".join(finding.check for finding in findings)


def written(edit: Array) -> Spoil:
    """Another array, written by the notebook, which prints the hash of that file."""

    def spoil(folder: Path) -> None:
        before = sha256(folder / RESULT)
        np.save(folder / RESULT, edit(np.load(folder / RESULT)))
        if (folder / NOTEBOOK).is_file():
            after = sha256(folder / RESULT).encode()
            raw(NOTEBOOK, lambda data: data.replace(before.encode(), after))(folder)

    return spoil


def edited(edit: Callable[[list[dict]], object]) -> Spoil:
    """Edit the cells: 0 title; 1, 3, 5 headings; 2, 4, 6 figures; 7 saves; 8 is empty."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / NOTEBOOK).read_text())
        edit(content["cells"])
        write(folder, content)

    return spoil


def cell(place: int, **fields: object) -> Spoil:
    return edited(lambda cells: cells[place].update(fields))


def output(place: int, out: dict) -> Spoil:
    return edited(lambda cells: cells[place]["outputs"].append(out))


def raw(name: str, edit: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content)


def array(x: np.ndarray) -> Spoil:
    """Another array than the one that the notebook wrote."""
    return lambda folder: np.save(folder / RESULT, x)


def rename(old: str, new: str) -> Spoil:
    return lambda folder: (folder / old).rename(folder / new)


def extended(name: str, size: int) -> Spoil:
    """Followed by zeros, which take no space on the disk."""
    return lambda folder: os.truncate(folder / name, size)


def clear(cells: list[dict], **fields: object) -> None:
    for code_cell in (cell for cell in cells if cell["cell_type"] == "code"):
        code_cell.update(outputs=[], **fields)


def linked(name: str, target: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / f"elsewhere-{name}")
        (folder / name).symlink_to(target)

    return spoil


def several(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]
