"""Notes, and damaged deliverables: each is a finding, whatever bytes it holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mutators import blind, json_file, npy, pick
from submissions import GOOD, OPEN, REFERENCES, TRUTH, Y, edited, output, stream, write_submission

from nogaps.submission import check_submission, notes, report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_submission(tmp_path)
    return tmp_path


def test_notes_name_what_to_look_at(folder: Path) -> None:
    def remarks() -> list[str]:
        assert check_submission(folder) == []
        return notes(folder)[1:]

    assert remarks() == []
    output(2, stream("Traceback (most recent call last):\n"))(folder)
    ignored = "Exception ignored in: <function f>\nTraceback (most recent call last):\n"
    output(4, stream(ignored))(folder)
    assert remarks() == ["Assessment.ipynb: cell 3 printed the traceback of an error"]
    edited(lambda cells: cells[2]["outputs"].pop())(folder)
    output(2, stream(f"test_set.npy: own file, sha256 {'0' * 64}\n"))(folder)
    assert remarks() == [
        f"Assessment.ipynb ran on another file than this test_set.npy, sha256 {'0' * 64}"
    ]


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_notes_name_what_differs_from_head(folder: Path) -> None:
    def git(*arguments: str) -> None:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)

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


@pytest.mark.parametrize(
    ("first", "count"), [(0, 60), pytest.param(1000, 5000, marks=pytest.mark.slow)]
)
def test_damaged_deliverables_are_findings(tmp_path: Path, first: int, count: int) -> None:
    """Whatever bytes a deliverable holds, its folder has findings, and the other is valid."""
    y, whole = Y[:12, :, 20:44, 12:36], tmp_path / "whole"
    bad = tmp_path / "bad"
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
