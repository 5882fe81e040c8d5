"""Run a command and print what it took, as JSON: `python -m benchmarks.peak COMMAND ARGUMENT…`.

A process of its own, because the kernel counts a parent's memory at the fork for its child's: this
one is small. The report is the last line of stdout: seconds from start to end, CPU seconds, and
the peak of the resident memory in 10^6 bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(command: list[str]) -> int:
    """Run a command, print its report, and return its exit code."""
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    report = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": unit * usage.ru_maxrss / 1e6,
    }
    print(json.dumps(report))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
