"""The submission in the root of this repository, spoilt in one place or in two."""

from __future__ import annotations

import functools
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from nogaps.runtime.files import sha256
from nogaps.submission import check_submission, figures, notes

NAMES = ("Assessment.ipynb", "test_set_nogaps.npy", "test_set.npy", "References.md")
NOTEBOOK, RESULT, TEST_SET, REFERENCES = NAMES
Y, X = np.load(ROOT / TEST_SET), np.load(ROOT / RESULT)
MASK = (Y != 0).any((0, 1))
TEXT = (ROOT / NOTEBOOK).read_text(encoding="utf-8")
PRINTED = sha256(ROOT / RESULT)
LOOK = functools.lru_cache(None)(figures.look)  # every mutation but a few has the same figures
Mutation = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "look", LOOK)
    for name in NAMES:
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def array(edit: Callable[[np.ndarray], np.ndarray]) -> Mutation:
    """Another array, written by the notebook: it prints the hash of that file."""

    def mutate(folder: Path) -> None:
        before = sha256(folder / RESULT)
        np.save(folder / RESULT, edit(np.load(folder / RESULT)))
        path = folder / NOTEBOOK
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(before, sha256(folder / RESULT)), encoding="utf-8")

    return mutate


def put(place: object, value: object) -> Mutation:
    def edit(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[place] = value
        return x

    return array(edit)


def holes(values: np.ndarray | float) -> Mutation:
    return array(lambda x: np.where(MASK, x, values).astype(np.float32))


def raw(name: str, edit: Callable[[bytes], bytes]) -> Mutation:
    def mutate(folder: Path) -> None:
        (folder / name).write_bytes(edit((folder / name).read_bytes()))

    return mutate


def cells(edit: Callable[[list[dict]], object]) -> Mutation:
    def mutate(folder: Path) -> None:
        content = json.loads((folder / NOTEBOOK).read_text(encoding="utf-8"))
        edit(content["cells"])
        (folder / NOTEBOOK).write_text(json.dumps(content), encoding="utf-8")

    return mutate


def code(found: list[dict]) -> list[dict]:
    return [cell for cell in found if cell["cell_type"] == "code"]


def question(found: list[dict], number: int) -> int:
    """Place of the heading."""
    heads = (f"## Question {number}" in "".join(cell["source"]) for cell in found)
    return list(heads).index(True)


def of_question(number: int, edit: Callable[[dict], object]) -> Mutation:
    """Edit every output with a figure in one question."""

    def change(found: list[dict]) -> None:
        stop = question(found, number + 1) if number < 3 else len(found)
        for cell in code(found[question(found, number) : stop]):
            for out in cell["outputs"]:
                if "image/png" in out.get("data", {}):
                    edit(out)

    return cells(change)


def curves() -> str:
    """The only figure of the notebook that shows no image."""
    for cell in code(json.loads(TEXT)["cells"]):
        if "show_curves(" in "".join(cell["source"]):
            return cell["outputs"][0]["data"]["image/png"]
    raise AssertionError("the notebook draws no curves")


def clear(found: list[dict]) -> None:
    for cell in code(found):
        cell.update(execution_count=None, outputs=[])


def swap(found: list, first: int, second: int) -> None:
    found[first], found[second] = found[second], found[first]


def say(text: str, place: int = 5) -> Mutation:
    out = {"output_type": "stream", "name": "stdout", "text": [text]}
    return cells(lambda found: code(found)[place]["outputs"].append(out))


def rename(old: str, new: str) -> Mutation:
    return lambda folder: (folder / old).rename(folder / new)


def replaced_by_folder(folder: Path) -> None:
    (folder / RESULT).unlink()
    (folder / RESULT).mkdir()


def linked_out(folder: Path) -> None:
    (folder / RESULT).unlink()
    (folder / RESULT).symlink_to(ROOT / RESULT)


def two_arrays(folder: Path) -> None:
    with open(folder / RESULT, "wb") as file:
        np.savez(file, x_hat=X, y=Y)


def pickled(folder: Path) -> None:
    np.save(folder / RESULT, np.array([X, "ours"], dtype=object))


ERROR = {"output_type": "error", "ename": "RuntimeError", "evalue": "no", "traceback": []}
ORDER = np.random.default_rng(0).permutation(len(X))
PAIR = np.arange(len(X))
swap(PAIR, 7, 60)
NOISE = np.random.default_rng(1).normal(0, 0.02, X.shape[1:]).astype(np.float32)
SHIFTED = np.roll(MASK, 1, 1)
GAINS = np.linspace(0.5, 0.9, len(X), dtype=np.float32)[:, None, None, None]
MEAN = (Y.sum((1, 2, 3)) / MASK.sum())[:, None, None, None]

MUTATIONS: dict[str, tuple[Mutation, list[str]]] = {
    # values
    "range [-1, 1]": (array(lambda x: 2 * x - 1), ["range"]),
    "range [0, 255]": (array(lambda x: 255 * x), ["range"]),
    "overshoot": (put((3, 0, *np.argwhere(~MASK)[999]), 1.3), ["range"]),
    "undershoot": (array(lambda x: np.where(MASK, x, x - 0.01)), ["range"]),
    "float64": (array(lambda x: x.astype(np.float64)), ["dtype"]),
    "float16": (array(lambda x: x.astype(np.float16)), ["dtype"]),
    "8 bit": (array(lambda x: np.uint8(255 * x)), ["dtype"]),
    "big-endian": (array(lambda x: x.astype(">f4")), ["dtype"]),
    "complex": (array(lambda x: x.astype(np.complex64)), ["dtype"]),
    "NaN": (put((2, 0, 30, 30), np.nan), ["finite"]),
    "NaN in all holes": (holes(np.nan), ["finite"]),
    "infinite": (put((2, 0, 30), np.inf), ["finite"]),
    # shape
    "squeezed": (array(lambda x: x[:, 0]), ["shape"]),
    "flattened": (array(lambda x: x.reshape(len(x), -1)), ["shape"]),
    "channels last": (array(lambda x: x.transpose(0, 2, 3, 1)), ["shape"]),
    "images last": (array(lambda x: x[:, 0].transpose(1, 2, 0)), ["shape"]),
    "three channels": (array(lambda x: x.repeat(3, 1)), ["shape"]),
    "cropped": (array(lambda x: x[..., 2:-2, 2:-2]), ["shape"]),
    "only the holes": (array(lambda x: x[:, :, ~MASK]), ["shape"]),
    # order
    "one image dropped": (array(lambda x: np.delete(x, 17, 0)), ["dropped"]),
    "last batch dropped": (array(lambda x: x[:96]), ["dropped"]),
    "ten images only": (array(lambda x: x[:10]), ["dropped"]),
    "one image twice": (put(5, X[4]), ["duplicated"]),
    "one image too many": (array(lambda x: x[[*range(len(x)), 0]]), ["shape"]),
    "shuffled": (array(lambda x: x[ORDER]), ["shuffled"]),
    "reversed": (array(lambda x: x[::-1]), ["shuffled"]),
    "two images swapped": (array(lambda x: x[PAIR]), ["shuffled"]),
    "off by one": (array(lambda x: np.roll(x, 1, 0)), ["shuffled"]),
    # orientation
    "rows for columns": (array(lambda x: x.swapaxes(2, 3)), ["orientation"]),
    "flipped": (array(lambda x: x[..., ::-1]), ["orientation"]),
    "upside down": (array(lambda x: x[..., ::-1, :]), ["orientation"]),
    "turned by 90°": (array(lambda x: np.rot90(x, 1, (2, 3))), ["orientation"]),
    "turned by 180°": (array(lambda x: x[..., ::-1, ::-1]), ["orientation"]),
    "moved by a column": (array(lambda x: np.roll(x, 1, 3)), ["orientation"]),
    "one image flipped": (put(9, X[9, ..., ::-1]), ["orientation"]),
    # observed pixels
    "one observed pixel": (put((4, 0, *np.argwhere(MASK)[0]), 0.5), ["observed-changed"]),
    "rounded to 8 bit": (
        array(lambda x: np.round(255 * x) / np.float32(255)),
        ["observed-changed"],
    ),
    "not copied": (array(lambda x: np.clip(x + NOISE, 0, 1)), ["observed-changed"]),
    "scaled": (array(lambda x: 0.8 * x + np.float32(0.05)), ["scaled"]),
    "negative": (array(lambda x: 1 - x), ["scaled"]),
    "contrast of each changed": (array(lambda x: GAINS * x), ["scaled"]),
    "inverted mask": (
        array(lambda x: np.where(MASK, np.clip(x + NOISE, 0, 1), 0)),
        ["inverted-mask"],
    ),
    # holes
    "input handed in": (holes(0), ["not-filled"]),
    "one image not filled": (put(6, Y[6]), ["not-filled"]),
    "mask moved by a column": (array(lambda x: np.where(SHIFTED, Y, x)), ["not-filled"]),
    "holes of one value": (holes(0.3), ["constant-fill"]),
    "holes of each image's mean": (holes(MEAN), ["constant-fill"]),
    "holes of a mean head": (holes(X.mean(0)), ["constant-fill"]),
    "holes of the next image": (holes(np.roll(X, 1, 0)), ["seams"]),
    "holes of two images swapped": (holes(X[PAIR]), ["seams"]),
    "holes too dark": (holes(0.8 * X), ["seams"]),
    "holes too bright": (holes(np.clip(1.25 * X, 0, 1)), ["seams"]),
    "holes flipped": (holes(X[..., ::-1]), ["seams"]),
    # the file
    "no array": (rename(RESULT, "filled.npy"), ["missing-file"]),
    "a folder": (replaced_by_folder, ["missing-file"]),
    "link that leads out": (linked_out, ["outside"]),
    "array truncated": (raw(RESULT, lambda data: data[:-1000]), ["unreadable"]),
    "array with a tail": (raw(RESULT, lambda data: data + b"\0"), ["unreadable"]),
    "array empty": (raw(RESULT, lambda data: b""), ["unreadable"]),
    "copied as text": (raw(RESULT, lambda data: data.replace(b"\n", b"\r\n")), ["unreadable"]),
    "packed": (raw(RESULT, lambda data: gzip.compress(data, 1)), ["unreadable"]),
    "archive of arrays": (two_arrays, ["unreadable"]),
    "pickled": (pickled, ["unreadable"]),
    "a later version of the array": (
        lambda folder: np.save(folder / RESULT, np.where(MASK, X, 0.99 * X)),
        ["stale"],
    ),
    "an earlier version of the notebook": (
        raw(NOTEBOOK, lambda data: data.replace(PRINTED.encode(), b"0" * 64)),
        ["stale"],
    ),
    # the notebook
    "no notebook": (lambda folder: (folder / NOTEBOOK).unlink(), ["missing-file"]),
    "notebook renamed": (rename(NOTEBOOK, "Assessment (1).ipynb"), ["notebook-name"]),
    "notebook truncated": (raw(NOTEBOOK, lambda data: data[:-1000]), ["unreadable"]),
    "notebook in format 3": (
        raw(NOTEBOOK, lambda data: data.replace(b'"nbformat": 4', b'"nbformat": 3')),
        ["unreadable"],
    ),
    "notebook too large": (say("x" * 3_000_000), ["notebook-size"]),
    "outputs cleared": (cells(clear), ["not-executed"]),
    "one cell not executed": (
        cells(lambda found: code(found)[9].update(execution_count=None)),
        ["not-executed"],
    ),
    "one cell run again": (
        cells(lambda found: code(found)[9].update(execution_count=99)),
        ["out-of-order"],
    ),
    "cells exchanged": (cells(lambda found: swap(found, 6, 7)), ["out-of-order"]),
    "cell deleted": (cells(lambda found: found.remove(code(found)[10])), ["out-of-order"]),
    "cell twice": (cells(lambda found: found.insert(6, found[6])), ["out-of-order"]),
    "error": (cells(lambda found: code(found)[9]["outputs"].append(ERROR)), ["error-output"]),
    "no heading": (
        cells(lambda found: found[question(found, 2)].update(source=["## The mask"])),
        ["questions"],
    ),
    "questions exchanged": (
        cells(lambda found: swap(found, question(found, 1), question(found, 3))),
        ["questions"],
    ),
    "no figure": (of_question(2, lambda out: out["data"].pop("image/png")), ["figures"]),
    "only curves": (
        of_question(3, lambda out: out["data"].update({"image/png": curves()})),
        ["figures"],
    ),
    "damaged figures": (
        of_question(1, lambda out: out["data"].update({"image/png": "iVBORw0K"})),
        ["figures"],
    ),
    "path in an output": (say("saved to /content/x and /home/me/x.npy\n"), ["machine-path"]),
    "path in a cell": (
        cells(lambda found: code(found)[0]["source"].append("\nD = 'C:\\\\Users\\\\me'")),
        ["machine-path"],
    ),
    "nothing said of the array": (
        raw(NOTEBOOK, lambda data: data.replace(b"nogaps.npy sha256: ", b"nogaps.npy: ")),
        ["stale"],
    ),
    # References.md
    "no references": (lambda folder: (folder / REFERENCES).unlink(), ["missing-file"]),
    "references empty": (raw(REFERENCES, lambda data: b"\n"), ["references"]),
    "references unfinished": (raw(REFERENCES, lambda data: b"- TODO\n" + data), ["references"]),
    "references without a link": (
        raw(REFERENCES, lambda data: b"- a book\n"),
        ["references"],
    ),
    "references in UTF-16": (
        raw(REFERENCES, lambda data: data.decode("utf-8").encode("utf-16")),
        ["unreadable"],
    ),
}

# two at once: the last entry is what the other one hides, because it leaves nothing to look at
PAIRS: list[tuple[str, str, list[str]]] = [
    ("range [-1, 1]", "shuffled", []),
    ("range [-1, 1]", "flipped", []),
    ("range [-1, 1]", "one image twice", []),
    ("range [-1, 1]", "float64", []),
    ("range [0, 255]", "squeezed", []),
    ("range [0, 255]", "NaN", []),
    ("scaled", "NaN", []),
    ("scaled", "shuffled", []),
    ("scaled", "input handed in", []),
    ("scaled", "one image twice", []),
    ("shuffled", "flipped", []),
    ("turned by 180°", "one image twice", []),
    ("flipped", "scaled", ["scaled"]),
    ("not copied", "two images swapped", []),
    ("not copied", "flipped", ["observed-changed"]),
    ("not copied", "range [-1, 1]", []),
    ("not copied", "scaled", ["scaled"]),
    ("not copied", "one image dropped", []),
    ("NaN", "shuffled", []),
    ("float64", "one image dropped", []),
    ("range [-1, 1]", "last batch dropped", []),
    ("scaled", "one image dropped", []),
    ("holes too dark", "one image dropped", []),
    ("shuffled", "one image dropped", ["shuffled"]),
    ("one observed pixel", "holes of one value", []),
    ("one image not filled", "two images swapped", []),
    ("squeezed", "flipped", []),
    ("three channels", "NaN", ["finite"]),
    ("8 bit", "reversed", ["shuffled"]),
    ("flipped", "array truncated", ["orientation"]),
    ("shuffled", "error", []),
    ("holes too dark", "only curves", []),
    ("not copied", "references unfinished", []),
    ("input handed in", "one cell run again", []),
    ("no array", "outputs cleared", []),
    ("array truncated", "notebook truncated", []),
    ("a later version of the array", "no references", []),
    ("a later version of the array", "outputs cleared", ["stale"]),
    ("a later version of the array", "one cell not executed", []),
    ("a later version of the array", "no notebook", ["stale"]),
    ("a later version of the array", "notebook renamed", []),
    ("nothing said of the array", "notebook in format 3", ["stale"]),
    ("cell deleted", "path in an output", []),
    ("cell twice", "outputs cleared", ["out-of-order"]),
    ("no figure", "outputs cleared", ["figures"]),
    ("no figure", "no heading", ["figures"]),
    ("error", "notebook truncated", ["error-output"]),
    ("references unfinished", "references in UTF-16", ["references"]),
]


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_named(folder: Path, name: str) -> None:
    mutate, expected = MUTATIONS[name]
    mutate(folder)
    findings = check_submission(folder)
    assert [finding.check for finding in findings] == expected, "\n".join(map(str, findings))


@pytest.mark.parametrize(("first", "second", "hidden"), PAIRS)
def test_two_mutations_are_named(folder: Path, first: str, second: str, hidden: list[str]) -> None:
    expected = set()
    for name in (first, second):
        mutate, checks = MUTATIONS[name]
        mutate(folder)
        expected |= set(checks)
    findings = check_submission(folder)
    named = {finding.check for finding in findings}
    assert named == expected - set(hidden), "\n".join(map(str, findings))


def test_what_was_handed_in_is_valid(folder: Path) -> None:
    assert check_submission(folder) == []
    assert check_submission(ROOT) == [] and notes(ROOT)[0] == notes(folder)[0]
    assert len(notes(folder)) == 1
