"""Folders, notebooks and References.md: none of their faults stays without its name."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from submissions import (
    CURVE,
    GOOD,
    OPEN,
    REFERENCES,
    TEN_IMAGES,
    TRUTH,
    Y,
    edited,
    figures,
    notebook,
    output,
    png,
    slugs,
    source,
    stream,
    text,
    write,
    write_submission,
)

from nogaps.runtime.files import BadInput
from nogaps.submission import check_notebook, check_submission, report
from nogaps.submission.notebook import printed_sha256, read_cells


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_submission(tmp_path)
    return tmp_path


def test_valid_folder(folder: Path) -> None:
    assert check_submission(folder) == []
    (row,) = report([folder])
    assert row["valid"] and row["findings"] == [] and "integrity form" in row["notes"][0]
    (folder / "test_set.npy").rename(folder / "elsewhere.npy")
    assert check_submission(folder, folder / "elsewhere.npy") == []
    with pytest.raises(BadInput, match="not found"):
        check_submission(folder)
    (folder / "elsewhere.npy").write_bytes(b"text")
    with pytest.raises(BadInput, match=r"not a \.npy file"):
        check_submission(folder, folder / "elsewhere.npy")
    with pytest.raises(BadInput, match="not a folder"):
        check_submission(folder / "absent")


def clear(cells: list[dict], counts: bool = True) -> None:
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            cell["execution_count"] = None if counts else cell["execution_count"]


def result(data: bytes | None) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / "test_set_nogaps.npy"
        path.write_bytes(path.read_bytes()[:-1000] if data is None else data)

    return spoil


def pickled(folder: Path) -> None:
    np.save(folder / "test_set_nogaps.npy", np.array([GOOD, None], dtype=object))


def hostile_header(folder: Path) -> None:
    path = folder / "test_set_nogaps.npy"
    path.write_bytes(path.read_bytes().replace(b"'fort", b"(((((", 1))


def linked(target: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / "References.md").rename(folder.parent / "elsewhere.md")
        (folder / "References.md").symlink_to(target)

    return spoil


def extended(name: str, size: int) -> Callable[[Path], object]:
    """Followed by zeros, which take no space on the disk."""
    return lambda folder: os.truncate(folder / name, size)


def long_array(folder: Path) -> None:
    path = folder / "test_set_nogaps.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (70_000, 1, 64, 64))


def metadata(folder: Path) -> None:
    content = json.loads((folder / "Assessment.ipynb").read_text())
    write(folder, content | {"metadata": {"papermill": {"input_path": "/home/me/a.ipynb"}}})


def half_executed_and_stale(folder: Path) -> None:
    edited(lambda cells: cells[2].update(execution_count=None))(folder)
    np.save(folder / "test_set_nogaps.npy", TRUTH)


def other_test_set(folder: Path) -> None:
    output(2, stream(f"test_set.npy: own file, sha256 {'0' * 64}\n"))(folder)
    np.save(folder / "test_set.npy", Y[::-1])


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "\x1b[31mno\n", "traceback": []}
FOLDERS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no notebook": (rename("Assessment.ipynb", "a.txt"), ["missing-file"], "Assessment.ipynb"),
    "notebook renamed": (rename("Assessment.ipynb", "My.ipynb"), ["notebook-name"], "My.ipynb"),
    "no array": (rename("test_set_nogaps.npy", "filled.npy"), ["missing-file"], "filled.npy"),
    "no references": (rename("References.md", "refs.md"), ["missing-file"], "rename refs.md"),
    "device": (linked("/dev/zero"), ["missing-file"], "not a regular file"),
    "link that leads out": (linked("../elsewhere.md"), ["outside"], "a symbolic link to"),
    "array truncated": (result(None), ["unreadable"], "damaged"),
    "array empty": (result(b""), ["unreadable"], "not a .npy file"),
    "array pickled": (pickled, ["unreadable"], "pickled"),
    "array with a hostile header": (hostile_header, ["unreadable"], ".npy format"),
    "array followed by zeros": (
        extended("test_set_nogaps.npy", 300_000_000),
        ["unreadable"],
        "has 300000000 bytes, its header declares 1638528",
    ),
    "array of 1.1 GB": (long_array, ["shape"], "(70000, 1, 64, 64)"),
    "array of text": (result(b"0.1, 0.2"), ["unreadable"], "not a .npy file"),
    "notebook truncated": (text("Assessment.ipynb", '{"cells": ['), ["unreadable"], "cut short"),
    "notebook of numbers": (text("Assessment.ipynb", "[1]"), ["unreadable"], "no list of cells"),
    "notebook nested": (text("Assessment.ipynb", "[" * 99999), ["unreadable"], "not JSON"),
    "notebook, old format": (
        text("Assessment.ipynb", '{"worksheets": [], "nbformat": 3}'),
        ["unreadable"],
        "is in format 3",
    ),
    "notebook without a format": (
        text("Assessment.ipynb", '{"cells": []}'),
        ["unreadable"],
        "does not say its format",
    ),
    "notebook of 200 MB": (extended("Assessment.ipynb", 2 * 10**8), ["unreadable"], "200 MB"),
    "no question": (source(3, "## The data"), ["questions"], "no heading for Question 2"),
    "question in a fence": (
        source(3, "```\n# Question 2\n```\n"),
        ["questions"],
        "no heading for Question 2",
    ),
    "order of questions": (
        edited(lambda cells: cells.insert(1, cells.pop(5))),
        ["questions", "figures"],
        "order 3, 1, 2",
    ),
    "cleared": (edited(clear), ["not-executed"], "4 of 4 code cells not executed, first cell 3"),
    "outputs cleared": (
        edited(lambda cells: clear(cells, counts=False)),
        ["not-executed"],
        "no code cell has an output",
    ),
    "one not executed": (
        edited(lambda cells: cells[4].update(execution_count=None)),
        ["not-executed"],
        "1 of 4 code cells not executed, first cell 5",
    ),
    "executed twice": (
        edited(lambda cells: cells[7].update(execution_count=9)),
        ["out-of-order"],
        "cell 8 has execution count 9, not 4",
    ),
    "cells exchanged": (
        edited(lambda cells: [c.update(execution_count=n) for c, n in zip(cells[2:6:2], (2, 1))]),  # noqa: B905
        ["out-of-order"],
        "cell 3 has execution count 2, not 1",
    ),
    "error": (output(4, ERROR), ["error-output"], "cell 5 ends in ValueError: no"),
    "no figure": (figures(), ["figures"], "Question 2: no figure"),
    "only curves": (figures(CURVE, CURVE), ["figures"], "Question 2: 2 figures, without an image"),
    "blank figure": (figures(png(np.ones((300, 400)))), ["figures"], "Question 2: 1 figure, with"),
    "damaged figure": (figures(TEN_IMAGES[:90], "no base64"), ["figures"], "Question 2: 2 figures"),
    "half executed, stale": (half_executed_and_stale, ["not-executed", "stale"], "printed"),
    "path in source": (source(2, "open('/home/me/x.npy')"), ["machine-path"], "/home/me/x.npy"),
    "path in output": (output(4, stream("in C:\\Users\\me\n")), ["machine-path"], "cell 5"),
    "path in text": (source(3, "## Question 2\n/tmp/x"), ["machine-path"], "/tmp/x (cell 4)"),
    "path in result": (
        output(4, {"output_type": "execute_result", "data": {"text/plain": "'/Users/me/a'"}}),
        ["machine-path"],
        "/Users/me/a",
    ),
    "path in metadata": (metadata, ["machine-path"], "/home/me/a.ipynb (metadata)"),
    "too large": (output(4, stream("x" * 3_000_000)), ["notebook-size"], "3.1 MB"),
    "stale": (
        lambda folder: np.save(folder / "test_set_nogaps.npy", TRUTH),
        ["stale"],
        "the notebook printed",
    ),
    "no hash": (
        edited(lambda cells: cells[7].update(outputs=[])),
        ["stale"],
        "the notebook prints none",
    ),
    "other test set": (other_test_set, ["other-test-set", "shuffled"], "0000000000000000…"),
    "references empty": (text("References.md", " \n"), ["references"], "empty"),
    "references without link": (
        text("References.md", "# References\nthe internet"),
        ["references"],
        "no link",
    ),
    "references unfinished": (
        text("References.md", REFERENCES + "- TODO\n" + OPEN),
        ["references"],
        "'TODO'",
    ),
    "references of a template": (
        text("References.md", REFERENCES + "- [Your source here]\n"),
        ["references"],
        "Your source here",
    ),
    "references of 2 MB": (extended("References.md", 2 * 10**6), ["unreadable"], "2.0 MB"),
    "references binary": (
        lambda folder: (folder / "References.md").write_bytes(b"\xff\xfe\x00"),
        ["unreadable"],
        "UTF-8",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_spoilt_folder_is_named(folder: Path, name: str) -> None:
    spoil, expected, words = FOLDERS[name]
    spoil(folder)
    findings = check_submission(folder)
    assert slugs(findings) == expected, "\n".join(map(str, findings))
    assert words in " ".join(map(str, findings))
    json.dumps(report([folder]), allow_nan=False)


@pytest.mark.parametrize(
    "words",
    [
        "open('/content/drive/MyDrive/nogaps')",
        "https://github.com/home/x and https://a.org/tmp/y",
        "runs/tmp/x, ../work/y, ./home/z, ~/work/a",
    ],
)
def test_paths_that_are_no_machine_paths(folder: Path, words: str) -> None:
    source(2, words)(folder)
    assert check_notebook(folder / "Assessment.ipynb") == []


def test_open_section_may_be_a_heading_of_any_kind(folder: Path) -> None:
    for heading in ("# Declaration", "Student's statement\n-----", "### For the student"):
        text("References.md", f"{REFERENCES}\n{heading}\nTODO\n")(folder)
        assert check_submission(folder) == []
    text("References.md", f"# References of a student\n{REFERENCES}\nTODO\n")(folder)
    assert slugs(check_submission(folder)) == ["references"]


def test_bombs_are_not_decoded(folder: Path) -> None:
    """A white page of 400 million pixels takes a few bytes for each thousand of them."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "png")
    figures(base64.b64encode(file.getvalue()).decode())(folder)
    start = time.process_time()
    assert slugs(check_submission(folder)) == ["figures"]
    assert time.process_time() - start < 1


def test_malformed_cells_are_no_exception(folder: Path) -> None:
    path = folder / "Assessment.ipynb"
    for value in (None, 1, "x", [1], {"a": 1}, {"text/plain": 1, "image/png": 0}, True, -1.5):
        for key in ("cell_type", "source", "outputs", "execution_count", "metadata"):
            write(folder, notebook("0" * 64))
            edited(lambda cells, k=key, v=value: cells[2].update({k: v}))(folder)
            assert isinstance(check_notebook(path), list)
        for key in ("output_type", "text", "data", "ename"):
            write(folder, notebook("0" * 64))
            output(2, {"output_type": "error", key: value})(folder)
            slugs(check_notebook(path))
            assert printed_sha256(read_cells(path), "test_set_nogaps.npy") == "0" * 64
