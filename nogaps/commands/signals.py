"""SIGINT, SIGTERM and SIGHUP end a command cleanly: `finally` runs, one line, exit code 128 + n."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
GRACE = 8.0  # seconds to clean up in


class Interrupted(SystemExit):
    """Raised in the main thread by the first signal; `code` is the exit code."""


class Signals:
    """Handlers for one command; `text` is the line that is printed when it was interrupted.

    Nothing depends on the clean end: a run survives SIGKILL as well. So where an exception cannot
    get through (a second signal, code that swallows it, a clean-up that hangs) the process ends at
    once.
    """

    def __init__(self, text: str) -> None:
        self.text, self.code = text, 0

    def install(self) -> None:
        """Handle the signals that are not ignored, as those of background jobs and nohup are."""
        for number in NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, lambda *_: self.leave())
        sys.unraisablehook = self._swallowed

    def say(self) -> None:
        """Print the line, once."""
        text, self.text = self.text, ""
        if text:
            with contextlib.suppress(OSError):
                os.write(2, f"{text}\n".encode())

    def leave(self) -> None:
        """Say the line and end the process without any further clean-up."""
        self.say()
        os._exit(self.code)

    def _handle(self, number: int, _: FrameType | None) -> None:
        again, self.code = self.code, 128 + number
        if again:
            self.leave()
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, GRACE)
        raise Interrupted(self.code)

    def _swallowed(self, what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, Interrupted):  # in a callback, such as those of imports
            self.leave()
        sys.__unraisablehook__(what)
