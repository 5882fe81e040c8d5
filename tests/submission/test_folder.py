"""Folders, notebooks and References.md: each of their faults is named, also two at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from submissions import (
    ARRAYS,
    FOLDERS,
    GOOD,
    REFERENCES,
    Spoil,
    Y,
    edited,
    figure,
    notebook,
    output,
    slugs,
    source,
    text,
    write,
    write_submission,
    written,
)

from nogaps.runtime.errors import BadInput
from nogaps.submission import check_notebook, check_submission, notes, report
from nogaps.submission.notebook import load_notebook, printed_sha256


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
    assert slugs(findings) == expected, "\n".join(map(str, findings))
    assert words in " ".join(map(str, findings))
    json.dumps(report([folder]), allow_nan=False)


# two at once: the last entry is what the other one hides, because it leaves nothing to look at
PAIRS: list[tuple[str, str, set[str]]] = [
    ("range [-1,1]", "shuffled", set()),
    ("range [-1,1]", "flipped", set()),
    ("range [-1,1]", "duplicated", set()),
    ("range [-1,1]", "float64", set()),
    ("range [-1,1]", "last batch dropped", set()),
    ("range [0,255]", "squeezed", set()),
    ("range [0,255]", "NaN", set()),
    ("scaled", "NaN", set()),
    ("scaled", "shuffled", set()),
    ("scaled", "input handed in", set()),
    ("scaled", "duplicated", set()),
    ("scaled", "dropped", set()),
    ("shuffled", "flipped", set()),
    ("shuffled", "dropped", {"shuffled"}),
    ("rotated by 180", "duplicated", set()),
    ("flipped", "scaled", {"scaled"}),
    ("not copied", "swapped pair", set()),
    ("not copied", "flipped", {"observed-changed"}),
    ("not copied", "range [-1,1]", set()),
    ("not copied", "scaled", {"scaled"}),
    ("not copied", "dropped", set()),
    ("NaN", "shuffled", set()),
    ("float64", "dropped", set()),
    ("holes too dark", "dropped", set()),
    ("one pixel changed", "holes of one value", set()),
    ("one image not filled", "swapped pair", set()),
    ("squeezed", "flipped", set()),
    ("three channels", "NaN", {"finite"}),
    ("flipped", "array truncated", {"orientation"}),
    ("shuffled", "error", set()),
    ("not copied", "references unfinished", set()),
    ("input handed in", "executed twice", set()),
    ("no array", "cleared", set()),
    ("array truncated", "notebook truncated", set()),
    ("stale", "no references", set()),
    ("stale", "cleared", {"stale"}),
    ("stale", "one not executed", set()),
    ("stale", "no notebook", {"stale"}),
    ("stale", "notebook renamed", set()),
    ("no hash", "notebook, old format", {"stale"}),
    ("executed twice", "path in output", set()),
    ("cell twice", "cleared", {"out-of-order"}),
    ("no figure", "cleared", {"figures"}),
    ("no figure", "no question", {"figures"}),
    ("error", "notebook truncated", {"error-output"}),
]


def spoiler(name: str) -> tuple[Spoil, list[str]]:
    if name in FOLDERS:
        return FOLDERS[name][:2]
    return written(ARRAYS[name][0]), ARRAYS[name][1]


@pytest.mark.parametrize(("first", "second", "hidden"), PAIRS)
def test_two_faults_are_named(folder: Path, first: str, second: str, hidden: set[str]) -> None:
    expected = set()
    for name in (first, second):
        spoil, checks = spoiler(name)
        spoil(folder)
        expected |= set(checks)
    findings = check_submission(folder)
    assert set(slugs(findings)) == expected - hidden, "\n".join(map(str, findings))


def test_what_this_repository_hands_in_is_valid(tmp_path: Path) -> None:
    for name in ("Assessment.ipynb", "test_set_nogaps.npy", "test_set.npy", "References.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    assert check_submission(tmp_path) == check_submission(ROOT) == []
    assert len(notes(tmp_path)) == 1 and notes(ROOT)[0] == notes(tmp_path)[0]


@pytest.mark.parametrize(
    "words",
    [
        "open('/content/drive/MyDrive/nogaps')",
        "https://github.com/home/x and https://a.org/tmp/y",
        "runs/tmp/x, ../work/y, ./home/z, ~/work/a",
    ],
)
def test_paths_that_are_not_a_machine_s(folder: Path, words: str) -> None:
    source(2, words)(folder)
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
    assert slugs(check_submission(folder)) == ["references"]


def test_malformed_cells_are_findings(folder: Path) -> None:
    path = folder / "Assessment.ipynb"
    for value in (None, 1, "x", [1], {"a": 1}, {"text/plain": 1, "image/png": 0}, True, -1.5):
        for key in ("cell_type", "source", "outputs", "execution_count", "metadata"):
            write(folder, notebook("0" * 64))
            edited(lambda cells, k=key, v=value: cells[2].update({k: v}))(folder)
            assert isinstance(check_notebook(path), list)
        for key in ("output_type", "text", "data", "ename"):
            write(folder, notebook("0" * 64))
            output(2, figure() | {key: value})(folder)
            if "unreadable" not in slugs(check_notebook(path)):
                cells = load_notebook(path).cells
                assert printed_sha256(cells, "test_set_nogaps.npy") == "0" * 64


def test_many_folders_of_one_test_set(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir(), (tmp_path / "broken").mkdir()
    write_submission(tmp_path / "whole", Y[:12, :, 20:44, 12:36], GOOD[:12, :, 20:44, 12:36])
    (tmp_path / "whole" / "test_set.npy").rename(tmp_path / "common.npy")
    folders = [tmp_path / f"group{k}" for k in range(20)]
    for link in folders:
        link.symlink_to(tmp_path / "whole", target_is_directory=True)
    rows = report([*folders[:10], tmp_path / "broken", *folders[10:]], tmp_path / "common.npy")
    assert [row["valid"] for row in rows] == [True] * 10 + [False] + [True] * 10


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
    (row,) = report([folder])
    assert row["findings"][0]["check"] == "not-checked"
    assert row["findings"][0]["found"] == "RecursionError: too deep"


def test_small_sets_are_checked_too(folder: Path) -> None:
    write_submission(folder, Y[:9], GOOD[:9])
    assert check_submission(folder) == []
    np.save(folder / "test_set_nogaps.npy", Y[:9])
    assert "not-filled" in slugs(check_submission(folder))
