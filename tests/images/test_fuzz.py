"""Every public reader on damaged files: a right answer or one line, soon and in little memory."""

from __future__ import annotations

import faulthandler
import os
import shutil
import time
import traceback
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import TARGETS, Target, read_prior
from in_process import HANGS_AFTER, bounded
from mutators import damaged

from nogaps.runtime.errors import BadInput

__all__ = ["bounded"]  # the fixture
SECONDS = 5.0  # of computing, of one call
MUTANTS = int(os.environ.get("NOGAPS_MUTANTS", 100_000))


def outcome(target: Target, folder: Path) -> str:
    """Return "read", "refused", or what the reader did that it must not do."""
    start = time.process_time()
    try:
        target.read(folder)
        result = "read"
    except BadInput as error:
        result = "refused"
        if "\n" in str(error) or len(str(error)) < 10:
            result = f"not one line: {str(error)[:900]!r}"
        while error := error.__cause__ or error.__context__:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                result = f"asks for memory: {error}"
    except BaseException:
        result = traceback.format_exc(limit=-4)
    seconds = time.process_time() - start
    return result if seconds < SECONDS else f"takes {seconds:.1f} s ({result})"


def hunt(name: str, target: Target, folder: Path, numbers: range) -> list[str]:
    """Read mutants, one damaged file each, and return what came of them."""
    folder.mkdir(parents=True)
    target.make(folder)
    target.read(folder)  # the whole files are read
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    victims = [path for path in whole if path.relative_to(folder).match(target.damage)]
    results = []
    for k in numbers:
        rng = np.random.default_rng([zlib.crc32(name.encode()), k])
        path = victims[int(rng.integers(len(victims)))]
        mutant = damaged(path.suffix, whole[path], rng)
        path.write_bytes(mutant)
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        results.append(outcome(target, folder))
        if {p for p in folder.rglob("*") if p.is_file()} != set(whole):
            results[-1] += ", and leaves a file"
        if path.read_bytes() != mutant:
            results[-1] += ", and changes its input"
        if results[-1] not in ("read", "refused"):
            results[-1] = f"{name} {k}: {results[-1]}"
        path.write_bytes(whole[path])
    return results


@pytest.mark.usefixtures("bounded")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("first", "count"), [(0, 300), pytest.param(1000, MUTANTS, marks=pytest.mark.slow)]
)
def test_damaged_files(tmp_path: Path, prior_folder: Path, first: int, count: int) -> None:
    def make_prior(folder: Path) -> None:
        shutil.copytree(prior_folder, folder, dirs_exist_ok=True)

    targets = {**TARGETS, "prior": Target(make_prior, read_prior, "*/*", 0.1)}
    total, results = sum(target.weight for target in targets.values()), []
    for name, target in targets.items():
        share = max(1, round(count * target.weight / total))
        results += hunt(name, target, tmp_path / name / "in", range(first, first + share))
    findings = [result for result in results if result not in ("read", "refused")]
    assert not findings, f"{len(findings)} findings\n" + "\n".join(findings[:20])
    assert results.count("refused") > 0.3 * count
