"""Signals end a command, even where code swallows the first; those that are ignored stay so."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import killing
import pytest
from killing import end


@pytest.mark.parametrize("how", ["twice", "ignored"])
def test_a_second_signal_ends_code_that_swallows_the_first(tmp_path: Path, how: str) -> None:
    process, _ = killing.call(killing.resist, how, tmp_path / "log")
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM if how == "twice" else signal.SIGINT)
    time.sleep(0.1)
    assert process.is_alive()
    if how == "ignored":  # a job in the background of a script: Ctrl-C is for others
        end(process, signal.SIGKILL)
    else:
        assert end(process, signal.SIGTERM) == 143
