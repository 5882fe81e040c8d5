"""SIGINT, SIGTERM and SIGHUP end a command: its clean-up runs, and the exit code is 128 + n."""

from __future__ import annotations

import os
import signal

NAMES = {"SIGINT", "SIGTERM", "SIGHUP"}  # Windows has no SIGHUP
STARTS_AGAIN = "the same command starts again"
CONTINUES = "the same command continues where it stopped"
SAVED = "the same command continues from its last state, at most 5 minutes old"

received = 0  # the number of the signal, if one came
advice = STARTS_AGAIN  # what a repeated call of the running command does


def install() -> None:
    """Raise SystemExit in the main thread at the first signal; the second ends the process.

    Signals that are ignored, as under nohup and in the background of scripts, stay ignored.
    """
    global received, advice
    received, advice = 0, STARTS_AGAIN
    for number in signal.Signals:
        if number.name in NAMES and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def _handle(number: int, _frame: object) -> None:
    global received
    if received:
        os._exit(128 + number)
    received = number
    raise SystemExit(128 + number)
