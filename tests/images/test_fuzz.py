"""Every public reader on damaged files: a right answer or one line, soon and in little memory."""

from __future__ import annotations

import faulthandler
import os
import resource
import shutil
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import TARGETS, Target, read_prior
from mutators import damaged

from nogaps.runtime.errors import BadInput

SECONDS, HANGS_AFTER = 5.0, 120.0  # of one call: computing, and by the clock
MEMORY = 1 << 30  # bytes that a call may take


@pytest.fixture
def bounded() -> Iterator[None]:
    """Where Linux tells how much memory is used, limit it; end what hangs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if (statm := Path("/proc/self/statm")).exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    yield
    faulthandler.cancel_dump_traceback_later()
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


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


def hunt(name: str, target: Target, folder: Path, numbers: range) -> tuple[int, list[str]]:
    """Read mutants, one damaged file each: how many were refused, and the findings."""
    folder.mkdir(parents=True)
    target.make(folder)
    target.read(folder)  # the whole files are read
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    victims = [path for path in whole if path.relative_to(folder).match(target.damage)]
    refused, findings = 0, []
    for k in numbers:
        rng = np.random.default_rng([zlib.crc32(name.encode()), k])
        path = victims[int(rng.integers(len(victims)))]
        path.write_bytes(damaged(path.suffix, whole[path], rng))
        mutant = path.read_bytes()
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        result = outcome(target, folder)
        refused += result == "refused"
        now = {path for path in folder.rglob("*") if path.is_file()}
        if result not in ("read", "refused") or now != set(whole) or path.read_bytes() != mutant:
            findings.append(f"{name} {k}: {result}")
        path.write_bytes(whole[path])
    return refused, findings


def hunt_all(prior_folder: Path, folder: Path, count: int, first: int = 0) -> None:
    prior = Target(
        lambda at: shutil.copytree(prior_folder, at, dirs_exist_ok=True), read_prior, "*/*", 0.1
    )
    targets = {**TARGETS, "prior": prior}
    total = sum(target.weight for target in targets.values())
    refused, findings = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, target in targets.items():
            share = max(1, round(count * target.weight / total))
            new = hunt(name, target, folder / name / "in", range(first, first + share))
            refused, findings = refused + new[0], findings + new[1]
    assert not findings, f"{len(findings)} findings in {count} mutants\n" + "\n".join(findings[:20])
    assert refused > 0.3 * count


@pytest.mark.usefixtures("bounded")
def test_damaged_files(tmp_path: Path, prior_folder: Path) -> None:
    hunt_all(prior_folder, tmp_path, 300)


@pytest.mark.slow
@pytest.mark.usefixtures("bounded")
def test_a_hundred_thousand_damaged_files(tmp_path: Path, prior_folder: Path) -> None:
    count = int(os.environ.get("NOGAPS_MUTANTS", 100_000))
    hunt_all(prior_folder, tmp_path, count, first=1000)
