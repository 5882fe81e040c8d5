"""Turns, spread, processes, and how a benchmark fails."""

from __future__ import annotations

import runpy
import sys

import pytest

from benchmarks import harness
from nogaps.runtime.errors import BadInput


def test_turns_are_taken() -> None:
    calls: list[str] = []
    work = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = harness.interleaved(work, 2)
    assert calls == list("ababab") and list(map(len, times.values())) == [2, 2]
    assert len(harness.interleaved(work, 9, seconds=0)["a"]) == 1, "one turn is always made"


def test_spread_rate_and_cells() -> None:
    assert harness.spread([4, 1, 2, 3, 5]) == {"median": 3, "low": 2, "high": 4, "repetitions": 5}
    assert harness.cell(harness.spread([4, 1, 2, 3, 5])) == "3.0 [2.0, 4.0]"
    assert harness.cell(harness.rate([0.5], 10)) == "20.0"


def test_a_process_is_measured_by_itself_and_its_failure_is_named() -> None:
    allocate = "x = b'1' * 60_000_000; print('done')"
    report = harness.measure("-c", allocate, threads=1)
    assert 60 < report["peak_mb"] < 120, "the memory of this process is counted as well"
    assert 0 < report["seconds"] < 60 and report["cpu_seconds"] > 0
    with pytest.raises(BadInput, match=r"a measured process failed: .*--what"):
        harness.measure("-m", "nogaps", "--what")


@pytest.mark.parametrize(
    "line",
    [
        "ablations absent.npy absent.npz",
        "published absent.npy absent.npz",
        "imputers absent.npz",
        "unseen absent.npz",
        "label_free absent --frames absent.npz",
        "uncertainty absent.npz",
        "sampling absent.npz",
        "training absent.npy absent.npz",
        "object_masks absent",
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_bad_input_is_one_line(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = line.split()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    text = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and text.startswith(f"{name}: absent")
    assert len(text.splitlines()) == 1


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(sys, "argv", ["main.py"])
    with pytest.raises(ValueError, match="a bug"):
        harness.run(main)
