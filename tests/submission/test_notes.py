"""Notes, and reports on many folders: nothing in one of them stops the others."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mutators import blind, json_file, npy, pick
from submissions import (
    CURVE,
    GOOD,
    OPEN,
    REFERENCES,
    TEN_IMAGES,
    TRUTH,
    Y,
    edited,
    figure,
    figures,
    output,
    page,
    png,
    stream,
    write_submission,
)

from nogaps.runtime.files import BadInput
from nogaps.submission import check_submission, notes, report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_submission(tmp_path)
    return tmp_path


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

    monkeypatch.setattr("nogaps.submission.check_array", fail)
    (row,) = report([folder])
    assert row["findings"][0]["check"] == "not-checked"
    assert row["findings"][0]["found"] == "RecursionError: too deep"


def test_notes_name_what_to_look_at(folder: Path) -> None:
    def remarks() -> list[str]:
        assert check_submission(folder) == []
        return notes(folder)[1:]

    assert remarks() == []
    figures(png(page(TRUTH[:4])), CURVE)(folder)
    assert remarks() == [
        "Question 2: 4 of 10 images recognised in its figures; look whether they are there"
    ]
    figures(png(page(TRUTH[:4])), png(page(TRUTH[4:10])))(folder)
    output(2, stream("Traceback (most recent call last):\n"))(folder)
    ignored = "Exception ignored in: <function f>\nTraceback (most recent call last):\n"
    output(4, stream(ignored))(folder)
    assert remarks() == ["Assessment.ipynb: cell 3 printed the traceback of an error"]
    edited(lambda cells: cells[2]["outputs"].pop())(folder)
    output(2, stream(f"test_set.npy: own file, sha256 {'0' * 64}\n"))(folder)
    assert remarks() == [
        f"Assessment.ipynb ran on another file than this test_set.npy, sha256 {'0' * 64}"
    ]


def test_figures_of_other_kinds_are_images_too(folder: Path) -> None:
    uri = f"<img src='data:image/png;base64,{TEN_IMAGES}'>"
    for data in ({"text/html": uri}, {"image/svg+xml": [f"<svg>{uri}", "</svg>"]}):
        edited(lambda cells, d=data: cells[4].update(outputs=[figure() | {"data": d}]))(folder)
        assert check_submission(folder) == [] and notes(folder)[1:] == []


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_notes_name_what_differs_from_head(folder: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)

    assert len(notes(folder)) == 1
    git("init", "--quiet")
    assert len(notes(folder)) == 1
    git("add", "Assessment.ipynb", "test_set_nogaps.npy")
    git("commit", "--quiet", "-m", "hand in")
    np.save(folder / "test_set_nogaps.npy", TRUTH)
    assert notes(folder)[1:] == [
        "test_set_nogaps.npy differs from what is committed",
        "References.md is not committed",
    ]
    git("add", "References.md")
    git("commit", "--quiet", "-m", "references")
    (folder / "References.md").write_bytes((REFERENCES + OPEN).replace("\n", "\r\n").encode())
    assert notes(folder)[1:] == ["test_set_nogaps.npy differs from what is committed"]
    (folder / ".git" / "HEAD").write_text("broken")
    assert len(notes(folder)) == 1


DAMAGE = {
    "Assessment.ipynb": (blind, json_file),
    "test_set_nogaps.npy": (blind, npy),
    "References.md": (blind,),
}


def damaged_reports(folder: Path, count: int, first: int) -> None:
    """Whatever bytes a deliverable holds, its folder has findings, and the other is valid."""
    y, whole = Y[:12, :, 20:44, 12:36], folder / "whole"
    bad = folder / "bad"
    for path in (whole, bad):
        path.mkdir()
        write_submission(path, y, GOOD[:12, :, 20:44, 12:36])
    data = {name: (bad / name).read_bytes() for name in DAMAGE}
    named = 0
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        name = pick(rng, list(DAMAGE))
        (bad / name).write_bytes(pick(rng, DAMAGE[name])(data[name], rng))
        rows = report([bad, whole])
        assert rows[1]["valid"], seed
        assert "not-checked" not in [f["check"] for f in rows[0]["findings"]], (seed, rows[0])
        json.dumps(rows, allow_nan=False)
        for words in (word for f in rows[0]["findings"] for word in f.values()):
            assert words.isprintable() and words.encode("utf-8"), (seed, words)
        named += not rows[0]["valid"]
        (bad / name).write_bytes(data[name])
    assert named > 0.4 * count


def test_damaged_deliverables_are_findings(tmp_path: Path) -> None:
    damaged_reports(tmp_path, 60, 0)


@pytest.mark.slow
def test_thousands_of_damaged_deliverables_are_findings(tmp_path: Path) -> None:
    damaged_reports(tmp_path, 5000, 1000)
