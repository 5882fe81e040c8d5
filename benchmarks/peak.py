"""Run a module as a command and write what it took: `python -m benchmarks.peak REPORT MODULE …`.

Light by itself, so that a command's own start and memory are what is measured. The report: seconds
from the start of the process, CPU seconds, and the peak of the resident memory in 10^6 bytes.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path

STATUS, STAT = Path("/proc/self/status"), Path("/proc/self/stat")


def peak_bytes() -> int:
    """Most resident memory of this process so far.

    Where Linux tells it, of what runs now: `ru_maxrss` also counts what the parent had at the fork.
    """
    if STATUS.exists():
        lines = STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """See the module."""
    report, module, *arguments = sys.argv[1:]
    started = time.perf_counter()
    sys.argv = [module, *arguments]
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    found = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time(),
        "peak_mb": peak_bytes() / 1e6,
    }
    Path(report).write_text(json.dumps(found))
    raise SystemExit(code)


if __name__ == "__main__":
    main()
