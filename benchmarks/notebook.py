"""How long the notebook takes with the profiles `smoke` and `cpu`, as its last cell says.

python -m benchmarks.notebook
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import RESULTS, ROOT, machine, run
from nogaps.running import run as run_notebook
from nogaps.runtime.files import load_json, save_json

PROFILES = ("smoke", "cpu")


def main() -> None:
    """Run the notebook elsewhere with each profile and keep the seconds of its parts."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for profile in PROFILES:
            run_notebook(ROOT, profile, Path(folder))
            seconds[profile] = load_json(Path(folder, "runs", profile, "summary.json"))["seconds"]
            print(f"{profile}: {seconds[profile]}")
    save_json(RESULTS / "notebook.json", {"machine": machine(), **seconds})


if __name__ == "__main__":
    run(main)
