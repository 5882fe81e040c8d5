from __future__ import annotations

import pytest

from nogaps import tables


def test_table_is_markdown_and_aligned() -> None:
    text = tables.as_markdown(["name", "value"], [["a", 1.5], ["longer name", "0.25"]])
    assert text.splitlines() == [
        "| name        | value |",
        "| ----------- | ----: |",
        "| a           |   1.5 |",
        "| longer name |  0.25 |",
    ]


def test_differences_and_their_intervals_have_signs() -> None:
    assert tables.with_interval(0.2, [-0.1, 0.31], 1, "+") == "+0.2 [-0.1, +0.3]"


def test_scores_name_every_filling_with_its_intervals(capsys: pytest.CaptureFixture) -> None:
    row = {"rmse": 0.05738, "rmse_95": [0.05, 0.06], "psnr": 24.934, "psnr_95": [24.0, 25.0]}
    tables.show_scores({"ours": row | {"ssim": 0.94, "ssim_95": [0.9, 0.95]}})
    shown = capsys.readouterr().out
    for part in ("0.0574 [0.0500, 0.0600]", "24.93 [24.00, 25.00]", "0.940 [0.900, 0.950]"):
        assert part in shown
