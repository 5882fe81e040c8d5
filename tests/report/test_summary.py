"""The run in numbers."""

from __future__ import annotations

from nogaps.report.summary import duration, summarize


def test_numbers_are_written_for_people() -> None:
    assert [duration(s) for s in (9.4, 129, 7260)] == ["9 s", "2 min 9 s", "2 h 1 min"]
    values = {"n": 2048000, "hole RMSE": {"a": 0.089, "ours": 0.0574}, "f": {"k": "v", "l": [1]}}
    summary = summarize(values | {"set": {"sha256": "ab", "shape": [2, 64]}})
    assert summary.facts == {"n": "2,048,000", "f, k": "v", "f, l": "1"} and summary.times == {}
    assert summary.scores == [["filling", "hole RMSE"], ["a", "0.0890"], ["ours", "0.0574"]]
    assert summary.files == [("set", "2 × 64", "ab")]
