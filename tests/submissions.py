"""A small valid submission, and how to spoil it: one registry for arrays, one for folders."""

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
from scipy.ndimage import gaussian_filter

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


# How to spoil the array: each entry takes the good one and returns another


def put(place: object, value: object) -> Array:
    def edit(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[place] = value(x) if callable(value) else value
        return x

    return edit


def take(places: object) -> Array:
    return lambda x: x[places]


def holes(values: np.ndarray | float) -> Array:
    return lambda x: np.where(MASK, x, np.clip(values, 0, 1)).astype(np.float32)


PAIR = np.arange(100)
PAIR[[7, 60]] = PAIR[[60, 7]]
ORDER = np.random.default_rng(1).permutation(100)
NOISE = np.random.default_rng(1).normal(0, 0.02, Y.shape[1:])
MEANS = (Y.sum((1, 2, 3)) / MASK.sum())[:, None, None, None]
SPREADS = np.sqrt(((Y - MEANS) ** 2 * MASK).sum((1, 2, 3)) / MASK.sum())[:, None, None, None]
MATCHED = MEANS + SPREADS * (TRUTH.mean(0) - TRUTH.mean()) / TRUTH.mean(0).std()
TILES = GOOD.reshape(100, 1, 8, 8, 8, 8).mean((3, 5)).repeat(8, 2).repeat(8, 3)
BLURRED = gaussian_filter(Y, (0, 0, 4, 4)) / gaussian_filter(MASK.astype(float), (4, 4))
THIN = MASK | (np.arange(64) == 25)  # a mask made by hand: one column of it taken as observed
NEXT = np.roll(TRUTH, 1, 0)


def network(x: np.ndarray) -> np.ndarray:
    """What a network returns, observed pixels not copied."""
    return np.clip(x + NOISE, 0, 1).astype(np.float32)


ARRAYS: dict[str, tuple[Array, str, str]] = {
    "range [-1,1]": (lambda x: 2 * x - 1, "range", "written in [-1, 1]"),
    "range [0,255]": (lambda x: 255 * x, "range", "written in [0, 255]"),
    "range overshoot": (put((3, 0, 8, np.argmin(MASK[8])), 1.2), "range", "1.2]"),
    "range undershoot": (lambda x: np.where(MASK, x, x - 0.01), "range", "values in [-0.01"),
    "standardised": (lambda x: (x - 0.4) / 0.25, "range scaled", "a 4, b -1.6"),
    "float64": (lambda x: x.astype(np.float64), "dtype", "float64"),
    "big-endian": (lambda x: x.astype(">f4"), "dtype", ">f4"),
    "uint8": (lambda x: (255 * x).astype(np.uint8), "dtype", "uint8"),
    "strings": (lambda x: x[:2].astype(str), "dtype dropped", "<U32"),
    "squeezed": (lambda x: x[:, 0], "shape", "(100, 64, 64)"),
    "channels last": (lambda x: x.transpose(0, 2, 3, 1), "shape", "(100, 64, 64, 1)"),
    "batch last": (lambda x: x[:, 0].transpose(1, 2, 0), "shape", "axes exchanged"),
    "three channels": (lambda x: x.repeat(3, 1), "shape", "(100, 3, 64, 64)"),
    "scalar": (lambda x: np.zeros((), np.float32), "shape", "shape ()"),
    "no images": (take(slice(0)), "shape", "(0, 1, 64, 64)"),
    "one image too many": (take([*range(100), 0]), "shape", "(101,"),
    "archive": (lambda x: {"x_hat": x}, "unreadable", "a dict"),
    "dropped": (lambda x: np.delete(x, 17, 0), "dropped", "no filling of input 17"),
    "dropped, not copied": (lambda x: network(x)[1:], "dropped observed-changed", "of input 0"),
    "last batch dropped": (take(slice(96)), "dropped", "no filling of inputs 96, 97, 98, 99"),
    "shuffled": (take(ORDER), "shuffled", "image 0 holds input"),
    "shuffled and lossy": (lambda x: network(x)[::-1], "shuffled", "holds input"),
    "shuffled in [-1,1]": (lambda x: 2 * x[::-1] - 1, "range shuffled", "[-1, 1]"),
    "swapped pair": (take(PAIR), "shuffled", "image 7 holds input 60; image 60"),
    "off by one": (lambda x: np.roll(x, -1, 0), "shuffled", "off by 1"),
    "duplicated": (put(5, lambda x: x[4]), "duplicated", "5 holds input 4; no filling of input 5"),
    "transposed": (lambda x: x.swapaxes(2, 3), "orientation", "transposed (rows"),
    "flipped": (lambda x: x[..., ::-1], "orientation", "flipped left to right"),
    "upside down": (lambda x: x[..., ::-1, :], "orientation", "flipped upside down"),
    "rotated": (lambda x: np.rot90(x, 1, (2, 3)), "orientation", "90° to the left"),
    "rotated back": (lambda x: np.rot90(x, -1, (2, 3)), "orientation", "90° to the right"),
    "rotated by 180": (lambda x: np.rot90(x, 2, (2, 3)), "orientation", "180°"),
    "one flipped": (put(9, lambda x: x[9, :, :, ::-1]), "orientation", "image 9: flipped left"),
    "moved": (lambda x: np.roll(x, 1, 3), "orientation", "one column to the right"),
    "NaN": (put((2, 0, 30, 30), np.nan), "finite", "1 NaN and 0 infinite values in image 2"),
    "NaN in the holes": (lambda x: np.where(MASK, x, np.nan).astype("f4"), "finite", "207300 NaN"),
    "one pixel changed": (put((4, 0, 0, 0), 0.5), "observed-changed", "1 observed pixels differ"),
    "rounded": (lambda x: np.round(x, 3), "observed-changed", "by up to 0.0005"),
    "rounded to 8 bit": (lambda x: np.round(255 * x) / np.float32(255), "observed-changed", ""),
    "all zero": (np.zeros_like, "observed-changed", "by up to 1,"),
    "huge": (put((1, 0, 0, 0), 3e38), "range observed-changed", "[0, 3e+38]"),
    "not copied": (network, "observed-changed", "and 95 more"),
    "scaled": (lambda x: 0.8 * x + np.float32(0.05), "scaled", "a 0.8, b 0.05"),
    "negative": (lambda x: 1 - x, "scaled", "a -1, b 1"),
    "inverted mask": (
        lambda x: np.where(MASK, network(x), 0),
        "inverted-mask",
        "missing ones kept",
    ),
    "only the holes": (lambda x: np.where(MASK, 0, x), "inverted-mask", "missing ones kept"),
    "input handed in": (holes(0), "not-filled", "100% of the holes"),
    "input scaled": (lambda x: 0.5 * Y, "scaled not-filled", "a 0.5"),
    "one image not filled": (put(6, Y[6]), "not-filled", "image 6"),
    "half of a hole": (put((slice(9), 0, slice(32)), Y[:9, 0, :32]), "not-filled", "0, 1"),
    "mask moved": (lambda x: np.where(np.roll(MASK, 1, 1), Y, x), "not-filled", "inside the head"),
    "hand-made mask": (lambda x: np.where(THIN, Y, x), "not-filled", "pixels are 0 in every image"),
    "holes of one value": (holes(0.3), "constant-fill", "one value"),
    "holes of the mean": (holes(MEANS), "constant-fill", "one value"),
    "holes of a mean head": (holes(GOOD.mean(0)), "constant-fill", "in the holes of every"),
    "holes of a mean head, matched": (holes(MATCHED), "constant-fill", "of every image"),
    "tiles of one value": (holes(TILES), "constant-fill", "one value in many holes"),
    "holes of the next": (holes(NEXT), "seams", "times the usual"),
    "holes of two images swapped": (holes(TRUTH[PAIR]), "seams", "in images 7, 60"),
    "holes a little too dark": (holes(0.85 * TRUTH), "seams", "times as bright"),
    "holes a little too bright": (holes(1.2 * TRUTH), "seams", "times as bright"),
    "one image too dark": (put(6, lambda x: holes(0.75 * GOOD)(x)[6]), "seams", "in image 6"),
    "compressed intensity": (holes(0.022 + 0.76 * TRUTH), "seams", "times as bright"),
    "holes blurred": (holes(BLURRED), "seams", "times the usual"),
    "holes moved two columns": (holes(np.roll(TRUTH, 2, 3)), "seams", "times the usual"),
    "holes flipped": (holes(TRUTH[..., ::-1]), "seams", "times the usual"),
    "holes of noise": (holes(np.random.default_rng(0).random(Y.shape)), "seams", "times the"),
}


def written(edit: Array) -> Spoil:
    """Another array, written by the notebook, which prints the hash of that file."""

    def spoil(folder: Path) -> None:
        before = sha256(folder / RESULT)
        np.save(folder / RESULT, edit(np.load(folder / RESULT)))
        if (folder / NOTEBOOK).is_file():
            after = sha256(folder / RESULT).encode()
            raw(NOTEBOOK, lambda data: data.replace(before.encode(), after))(folder)

    return spoil


# How to spoil the folder


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


def metadata(folder: Path) -> None:
    content = json.loads((folder / NOTEBOOK).read_text())
    write(folder, content | {"metadata": {"papermill": {"input_path": "/home/me/a.ipynb"}}})


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "\x1b[31mno\n", "traceback": []}
RUNS = "test_set.npy: own file, sha256 " + 64 * "0" + "\n"
HOME = figure({"text/plain": "'/Users/me/a'"})
NO_FIGURE = "Question 2: no figure"
FORMAT_3 = '{"worksheets": [], "metadata": {}, "nbformat": 3}'
FOLDERS: dict[str, tuple[Spoil, str, str]] = {
    "no array": (rename(RESULT, "filled.npy"), "missing-file", "rename filled.npy"),
    "array linked out": (linked(RESULT, f"../elsewhere-{RESULT}"), "outside", "a symbolic link to"),
    "array truncated": (raw(RESULT, lambda data: data[:-1000]), "unreadable", "damaged"),
    "array of text": (text(RESULT, "0.1, 0.2"), "unreadable", "not a .npy file"),
    "array pickled": (array(np.array([GOOD, None], dtype=object)), "unreadable", "pickled"),
    "hostile header": (
        raw(RESULT, lambda d: d.replace(b"'fort", b"(((((", 1)),
        "unreadable",
        ".npy",
    ),
    "array followed by zeros": (extended(RESULT, 3 * 10**8), "unreadable", "declares 1638528"),
    "array of 1.1 GB": (
        lambda folder: np.lib.format.open_memmap(folder / RESULT, "w+", "f4", (70_000, 1, 64, 64)),
        *("shape", "(70000, 1, 64, 64)"),
    ),
    "stale": (array(TRUTH), "stale", "the notebook printed"),
    "no hash": (cell(7, outputs=[]), "stale", "the notebook prints none"),
    "half executed, stale": (
        several(cell(2, execution_count=None), array(TRUTH)),
        *("not-executed stale", "printed"),
    ),
    "other test set": (
        several(output(2, stream(RUNS)), lambda folder: np.save(folder / "test_set.npy", Y[::-1])),
        *("other-test-set shuffled", "0000000000000000…"),
    ),
    "no notebook": (rename(NOTEBOOK, "a.txt"), "missing-file", NOTEBOOK),
    "notebook renamed": (rename(NOTEBOOK, "My.ipynb"), "notebook-name", "My.ipynb"),
    "notebook truncated": (text(NOTEBOOK, '{"cells": ['), "unreadable", "a Jupyter notebook"),
    "notebook nested": (text(NOTEBOOK, "[" * 99999), "unreadable", "recursion"),
    "notebook, old format": (text(NOTEBOOK, FORMAT_3), "unreadable", "is in format 3"),
    "against the schema": (
        edited(lambda c: c[2].pop("outputs")),
        "unreadable",
        "a Jupyter notebook",
    ),
    "notebook of 200 MB": (extended(NOTEBOOK, 2 * 10**8), "unreadable", "200 MB"),
    "notebook too large": (output(4, stream("x" * 3_000_000)), "notebook-size", "3.1 MB"),
    "no question": (cell(3, source=["## Data"]), "questions", "no heading for Question 2"),
    "question in a fence": (cell(3, source="```\n# Question 2\n```\n"), "questions", "Question 2"),
    "order of questions": (
        edited(lambda cells: cells.insert(1, cells.pop(5))),
        *("questions figures", "order 3, 1, 2"),
    ),
    "cleared": (
        edited(lambda c: clear(c, execution_count=None)),
        "not-executed",
        "4 of 4 code cells",
    ),
    "outputs cleared": (edited(clear), "not-executed", "no code cell has an output"),
    "one not executed": (cell(4, execution_count=None), "not-executed", "1 of 4 code cells not"),
    "executed twice": (
        cell(7, execution_count=9),
        "out-of-order",
        "cell 8 has execution count 9, not",
    ),
    "cell twice": (
        edited(lambda c: c.insert(2, c[2])),
        "out-of-order",
        "cell 4 has execution count 1",
    ),
    "error": (output(4, ERROR), "error-output", "cell 5 ends in ValueError: no"),
    "no figure": (cell(4, outputs=[stream("none")]), "figures", NO_FIGURE),
    "figure is text": (cell(4, outputs=[figure({"text/plain": "Figure"})]), "figures", NO_FIGURE),
    "path in source": (cell(2, source="open('/home/me/x')"), "machine-path", "/home/me/x"),
    "path in output": (output(4, stream("in C:\\Users\\me\n")), "machine-path", "cell 5"),
    "path in result": (output(4, HOME), "machine-path", "/Users/me/a"),
    "path in metadata": (metadata, "machine-path", "/home/me/a.ipynb (metadata)"),
    "no references": (rename("References.md", "refs.md"), "missing-file", "rename refs.md"),
    "references are a device": (
        linked("References.md", "/dev/zero"),
        "missing-file",
        "not a regular",
    ),
    "references empty": (text("References.md", " \n"), "references", "empty"),
    "references without link": (text("References.md", "# the internet"), "references", "no link"),
    "references unfinished": (
        text("References.md", REFERENCES + "- TODO\n"),
        "references",
        "'TODO'",
    ),
    "references of a template": (
        text("References.md", REFERENCES + "- [Your x]"),
        "references",
        "Your",
    ),
    "references of 2 MB": (extended("References.md", 2 * 10**6), "unreadable", "2.0 MB"),
    "references in UTF-16": (
        raw("References.md", lambda data: data.decode().encode("utf-16")),
        *("unreadable", "UTF-8"),
    ),
}
