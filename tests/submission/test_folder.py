"""Folders, notebooks and References.md: each of their faults is named, also two at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from submissions import (
    ARRAYS,
    FOLDERS,
    GOOD,
    REFERENCES,
    Y,
    cell,
    edited,
    figure,
    named,
    notebook,
    output,
    text,
    write,
    write_submission,
    written,
)

from nogaps.runtime.errors import BadInput
from nogaps.submission import check_notebook, check_submission, report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handed-in").mkdir()
    write_submission(tmp_path / "handed-in")
    return tmp_path / "handed-in"


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
    ("scaled", "NaN", ""),
    ("scaled", "shuffled", ""),
    ("scaled", "input handed in", ""),
    ("scaled", "dropped", ""),
    ("shuffled", "flipped", ""),
    ("shuffled", "dropped", "shuffled"),
    ("rotated by 180", "duplicated", ""),
    ("flipped", "scaled", "scaled"),
    ("not copied", "swapped pair", ""),
    ("not copied", "flipped", "observed-changed"),
    ("not copied", "range [-1,1]", ""),
    ("holes a little too dark", "dropped", ""),
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


@pytest.mark.parametrize(
    "words",
    [
        "open('/content/drive/MyDrive/nogaps')",
        "https://github.com/home/x and https://a.org/tmp/y",
        "runs/tmp/x, ../work/y, ./home/z, ~/work/a",
    ],
)
def test_paths_that_are_not_a_machine_s(folder: Path, words: str) -> None:
    cell(2, source=words)(folder)
    assert check_notebook(folder / "Assessment.ipynb") == []


def test_figures_of_other_kinds_are_images_too(folder: Path) -> None:
    uri = f"<img src='data:image/png;base64,{figure()['data']['image/png']}'>"
    for data in ({"text/html": uri}, {"image/svg+xml": ["<svg>", "</svg>"]}, {"image/gif": "R0lG"}):
        edited(lambda cells, d=data: cells[4].update(outputs=[figure(d)]))(folder)
        assert check_submission(folder) == []


def test_open_section_may_be_a_heading_of_any_kind(folder: Path) -> None:
    for heading in ("# Declaration", "Student's statement\n-----", "### For the student"):
        text("References.md", f"{REFERENCES}\n{heading}\nTODO\n")(folder)
        assert check_submission(folder) == []
    text("References.md", f"# References of a student\n{REFERENCES}\nTODO\n")(folder)
    assert named(check_submission(folder)) == "references"


def test_malformed_cells_are_findings(folder: Path) -> None:
    fields = ("cell_type", "source", "outputs", "execution_count", "metadata")
    for value in (None, 1, "x", [1], {"a": 1}, {"text/plain": 1, "image/png": 0}, True, -1.5):
        changes = [edited(lambda cells, k=k, v=value: cells[2].update({k: v})) for k in fields]
        for key in ("output_type", "text", "data", "ename"):
            changes.append(output(2, figure() | {key: value}))
        for change in changes:
            write(folder, notebook("0" * 64))
            change(folder)
            assert isinstance(check_notebook(folder / "Assessment.ipynb"), list)


def test_one_bad_folder_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    bad, empty = tmp_path / "bad", tmp_path / "empty"
    bad.mkdir(), empty.mkdir()
    (bad / "test_set.npy").write_bytes(b"text")
    rows = report([bad, folder, tmp_path / "absent", empty, "a\0b", folder])
    assert [row["valid"] for row in rows] == [False, True, False, False, False, True]
    assert [[f["check"] for f in row["findings"]] for row in rows if not row["valid"]] == [
        ["not-checked"]
    ] * 4
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

    monkeypatch.setattr("nogaps.submission.folder.check_array", fail)
    (finding,) = report([folder])[0]["findings"]
    assert (finding["check"], finding["found"]) == ("not-checked", "RecursionError: too deep")


def test_small_sets_are_checked_too(folder: Path) -> None:
    write_submission(folder, Y[:9], GOOD[:9])
    assert check_submission(folder) == []
    np.save(folder / "test_set_nogaps.npy", Y[:9])
    assert "not-filled" in named(check_submission(folder))
