"""Folders, notebooks and References.md: each of their faults is named, also two at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from spoilt_arrays import ARRAYS
from submissions import (
    GOOD,
    TRUTH,
    Spoil,
    Y,
    array,
    cell,
    clear,
    edited,
    extended,
    figure,
    linked,
    named,
    notebook,
    output,
    raw,
    rename,
    several,
    stream,
    text,
    write,
    write_submission,
    written,
)

from nogaps.runtime.errors import BadInput
from nogaps.submission import NOTEBOOK, RESULT, as_text, check_notebook, check_submission, report

ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "\x1b[31mno\n", "traceback": []}
RUNS = "test_set.npy: own file, sha256 " + 64 * "0" + "\n"
HOME = figure({"text/plain": "'/Users/me/a'"})
NO_FIGURE = "Question 2: no figure"
FAILED = "Traceback (most recent call last):\n"
CLEARED = {"execution_count": None, "outputs": []}
FORMAT_3 = '{"worksheets": [], "metadata": {}, "nbformat": 3}'


def third_first(cells: list[dict]) -> None:
    cells.insert(1, cells.pop(5))


def in_utf_16(data: bytes) -> bytes:
    return data.decode().encode("utf-16")


def many_images(folder: Path) -> None:
    np.lib.format.open_memmap(folder / RESULT, "w+", "f4", (70_000, 1, 64, 64))


FOLDERS: dict[str, tuple[Spoil, str, str]] = {
    "no array": (rename(RESULT, "filled.npy"), "missing-file", "rename filled.npy"),
    "array linked out": (linked(RESULT, f"../elsewhere-{RESULT}"), "outside", "a symbolic link to"),
    "array truncated": (raw(RESULT, lambda data: data[:-1000]), "unreadable", "damaged"),
    "array of text": (text(RESULT, "0.1, 0.2"), "unreadable", "not a .npy file"),
    "array pickled": (array(np.array([GOOD, None], dtype=object)), "unreadable", "pickled"),
    "hostile header": (raw(RESULT, lambda d: d.replace(b"'fo", b"(((", 1)), "unreadable", ".npy"),
    "array followed by zeros": (extended(RESULT, 3 * 10**8), "unreadable", "declares 1638528"),
    "array of 1.1 GB": (many_images, "number", "70000 images"),
    "stale": (array(TRUTH), "stale", "the notebook printed"),
    "no hash": (cell(7, outputs=[]), "no-hash", "does not print which file"),
    "half executed, stale": (
        several(cell(2, **CLEARED), array(TRUTH)),
        *("figures not-executed stale", "printed"),
    ),
    "other test set": (
        several(output(2, stream(RUNS)), lambda folder: np.save(folder / "test_set.npy", Y[::-1])),
        *("order other-test-set", "0000000000000000…"),
    ),
    "no notebook": (rename(NOTEBOOK, "a.txt"), "missing-file", NOTEBOOK),
    "notebook renamed": (rename(NOTEBOOK, "My.ipynb"), "notebook-name", "My.ipynb"),
    "notebook truncated": (text(NOTEBOOK, '{"cells": ['), "unreadable", "a Jupyter notebook"),
    "notebook nested": (text(NOTEBOOK, "[" * 99999), "unreadable", "recursion"),
    "notebook, old format": (text(NOTEBOOK, FORMAT_3), "unreadable", "is in format 3"),
    "against the schema": (edited(lambda c: c[2].pop("outputs")), "unreadable", "a Jupyter"),
    "notebook of 200 MB": (extended(NOTEBOOK, 2 * 10**8), "unreadable", "200 MB"),
    "notebook too large": (output(4, stream("x" * 3_000_000)), "notebook-size", "3.1 MB"),
    "no question": (cell(3, source=["## Data"]), "questions", "questions: [1, 3]"),
    "order of questions": (edited(third_first), "questions figures", "[3, 1, 2]"),
    "cleared": (edited(lambda c: clear(c, execution_count=None)), "not-executed", "4 of 4 code"),
    "outputs cleared": (edited(clear), "no-outputs", "no code cell has an output"),
    "one not executed": (cell(4, **CLEARED), "figures not-executed", "1 of 4 code cells not"),
    "executed twice": (cell(7, execution_count=9), "out-of-order", "cell 8 has execution count 9"),
    "cell twice": (edited(lambda c: c.insert(2, c[2])), "out-of-order", "cell 4 has execution"),
    "error": (output(4, ERROR), "error-output", "cell 5 ends in ValueError: no"),
    "traceback": (output(2, stream(FAILED)), "traceback", "cell 3 printed the traceback"),
    "no figure": (cell(4, outputs=[stream("none")]), "figures", NO_FIGURE),
    "figure is text": (cell(4, outputs=[figure({"text/plain": "Figure"})]), "figures", NO_FIGURE),
    "path in source": (cell(2, source="open('/home/me/x')"), "machine-path", "/home/me/x"),
    "path in output": (output(4, stream("in C:\\Users\\me\n")), "machine-path", "cell 5"),
    "path in result": (output(4, HOME), "machine-path", "/Users/me/a"),
    "no references": (rename("References.md", "refs.md"), "missing-file", "rename refs.md"),
    "references are a device": (linked("References.md", "/dev/zero"), "missing-file", "not a reg"),
    "references empty": (text("References.md", " \n"), "references", "no link"),
    "references without link": (text("References.md", "# the internet"), "references", "no link"),
    "references in UTF-16": (raw("References.md", in_utf_16), "unreadable", "UTF-8"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handed-in").mkdir()
    write_submission(tmp_path / "handed-in")
    return tmp_path / "handed-in"


def test_valid_folder(folder: Path) -> None:
    assert check_submission(folder) == []
    (row,) = report([folder])
    assert row == {"dir": str(folder), "valid": True, "findings": []}
    assert "integrity form" in as_text([row])
    output(2, stream(f"Exception ignored in: <function f>\n{FAILED}"))(folder)
    assert check_submission(folder) == []
    (folder / "test_set.npy").rename(folder / "elsewhere.npy")
    assert check_submission(folder, folder / "elsewhere.npy") == []
    with pytest.raises(BadInput, match="not found"):
        check_submission(folder)
    (folder / "elsewhere.npy").write_bytes(b"text")
    with pytest.raises(BadInput, match=r"not a \.npy file"):
        check_submission(folder, folder / "elsewhere.npy")
    with pytest.raises(BadInput, match="not a folder"):
        check_submission(folder / "absent")


@pytest.mark.parametrize("name", FOLDERS)
def test_spoilt_folder_is_named(folder: Path, name: str) -> None:
    spoil, expected, words = FOLDERS[name]
    spoil(folder)
    findings = check_submission(folder)
    assert named(findings) == expected, "\n".join(map(str, findings))
    assert words in " ".join(map(str, findings))
    json.dumps(report([folder]), allow_nan=False)


# two at once: the last entry is what the other one hides, because it leaves nothing to look at
PAIRS: list[tuple[str, str, str]] = [
    ("range [-1,1]", "shuffled", ""),
    ("range [-1,1]", "flipped", ""),
    ("range [-1,1]", "float64", ""),
    ("range [-1,1]", "last batch dropped", ""),
    ("range [0,255]", "squeezed", ""),
    ("range [0,255]", "NaN", ""),
    ("scaled", "shuffled", ""),
    ("scaled", "input handed in", ""),
    ("scaled", "dropped", ""),
    ("shuffled", "flipped", ""),
    ("shuffled", "dropped", ""),
    ("rotated by 180", "duplicated", ""),
    ("flipped", "scaled", "scaled"),
    ("not copied", "swapped pair", ""),
    ("not copied", "flipped", "observed-changed"),
    ("not copied", "range [-1,1]", ""),
    ("one pixel changed", "holes of one value", ""),
    ("one image not filled", "swapped pair", ""),
    ("three channels", "NaN", "finite"),
    ("flipped", "array truncated", "orientation"),
    ("shuffled", "error", ""),
    ("array truncated", "notebook truncated", ""),
    ("stale", "no references", ""),
    ("stale", "cleared", "stale"),
    ("stale", "one not executed", ""),
    ("stale", "no notebook", "stale"),
    ("stale", "notebook renamed", ""),
    ("executed twice", "path in output", ""),
    ("no figure", "no question", "figures"),
    ("error", "notebook truncated", "error-output"),
]


@pytest.mark.parametrize(("first", "second", "hidden"), PAIRS)
def test_two_faults_are_named(folder: Path, first: str, second: str, hidden: str) -> None:
    expected = set()
    for name in (first, second):
        spoil, checks, _ = FOLDERS.get(name) or (written(ARRAYS[name][0]), *ARRAYS[name][1:])
        spoil(folder)
        expected |= set(checks.split())
    findings = check_submission(folder)
    assert set(named(findings).split()) == expected - {hidden}, "\n".join(map(str, findings))


def test_paths_that_are_not_a_machine_s(folder: Path) -> None:
    cell(2, source="https://github.com/home/x and https://a.org/tmp/y")(folder)
    cell(4, source="open('/content/drive/MyDrive/nogaps')")(folder)
    cell(6, source="runs/tmp/x, ../work/y, ./home/z, ~/work/a")(folder)
    assert check_notebook(folder / NOTEBOOK) == []


def test_figures_of_other_kinds_are_images_too(folder: Path) -> None:
    uri = f"<img src='data:image/png;base64,{figure()['data']['image/png']}'>"
    kinds = ({"text/html": uri}, {"image/svg+xml": ["<svg>", "</svg>"]}, {"image/gif": "R0lG"})
    for place, data in zip((2, 4, 6), kinds, strict=True):
        cell(place, outputs=[figure(data)])(folder)
    assert check_submission(folder) == []


def test_malformed_cells_are_findings(folder: Path) -> None:
    fields = ("cell_type", "source", "outputs", "execution_count", "metadata")
    keys = ("output_type", "text", "data", "ename")
    for value in (None, 1, "x", [1], {"a": 1}, {"text/plain": 1, "image/png": 0}, True, -1.5):
        changes = [cell(2, **{field: value}) for field in fields]
        changes += [output(2, figure() | {key: value}) for key in keys]
        for change in changes:
            write(folder, notebook("0" * 64))
            change(folder)
            assert isinstance(check_notebook(folder / NOTEBOOK), list)


def test_one_bad_folder_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    bad, empty = tmp_path / "bad", tmp_path / "empty"
    bad.mkdir(), empty.mkdir()
    (bad / "test_set.npy").write_bytes(b"text")
    rows = report([bad, folder, tmp_path / "absent", empty, "a\0b", folder])
    assert [row["valid"] for row in rows] == [False, True, False, False, False, True]
    checks = [f["check"] for row in rows for f in row["findings"]]
    assert checks == ["not-checked"] * 4
    assert "not a .npy file" in rows[0]["findings"][0]["found"]
    rows = report([bad, empty, folder], folder / "test_set.npy")
    assert [len(row["findings"]) for row in rows] == [3, 3, 0]
    with pytest.raises(BadInput, match="not found"):  # common to all: nothing can be checked
        report([folder, empty], tmp_path / "absent.npy")
    with pytest.raises(BadInput, match="not a folder"):
        report([tmp_path / "absent"])


def test_an_unforeseen_error_stops_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("nogaps.submission.check_array", fail)
    (finding,) = report([folder])[0]["findings"]
    assert (finding["check"], finding["found"]) == ("not-checked", "RecursionError: too deep")


def test_small_sets_are_checked_too(folder: Path) -> None:
    write_submission(folder, Y[:9], GOOD[:9])
    assert check_submission(folder) == []
    np.save(folder / "test_set_nogaps.npy", Y[:9])
    assert "not-filled" in named(check_submission(folder))
