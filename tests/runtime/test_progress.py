"""Progress in a log: whole lines, few of them; in a notebook: a bar without widgets."""

from __future__ import annotations

import sys

import pytest

from nogaps.runtime.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock for tqdm that is set by hand."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def walk(clock: list[float], steps: int, seconds: float, **options: object) -> None:
    for _ in progress(range(steps), "walking", **options):
        clock[0] += seconds


@pytest.mark.parametrize(
    ("steps", "seconds", "lines"),
    [(1000, 0.019, 0), (1000, 0.1, 5), (10, 60, 10), (1000, 2.0, 100)],
)
def test_logs_get_a_line_every_twenty_seconds(
    clock: list[float], capsys: pytest.CaptureFixture, steps: int, seconds: float, lines: int
) -> None:
    walk(clock, steps, seconds, initial=9, total=steps + 9)  # work that continues
    text = capsys.readouterr().err
    assert "\r" not in text and "\n\n" not in text
    printed = text.splitlines()
    assert lines <= len(printed) == len(set(printed)) <= lines + 1
    if lines:
        assert printed[-1].startswith(f"walking: 100% ({steps + 9} of {steps + 9}) after ")
    if (steps, seconds) == (1000, 0.1):
        assert printed[0] == "walking:  21% (209 of 1009) after 00:20, 01:20 left"


def test_quiet_work_prints_nothing(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    walk(clock, 100, 1, disable=True)
    monkeypatch.setattr("nogaps.runtime.progress.quiet", True)
    walk(clock, 100, 1)
    assert capsys.readouterr().err == ""


def test_notebooks_get_a_bar_of_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", sys)
    assert list(progress(range(3), "walking")) == [0, 1, 2]
    text = capsys.readouterr().err
    assert text.count("\r") > 1 and "3/3" in text
