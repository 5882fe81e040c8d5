"""Damaged deliverables: each is a finding, whatever bytes it holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mutators import blind, json_file, npy, pick
from submissions import GOOD, Y, write_submission

from nogaps.submission import report

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
        named += bool(rows[0]["findings"])
        (bad / name).write_bytes(data[name])
    assert named > 0.4 * count
