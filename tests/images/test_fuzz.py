"""Every public reader on damaged files: a right answer or one line, soon and in little memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fuzz import Target, hunt, report
from fuzz_targets import TARGETS, Files, read_prior


@pytest.fixture(scope="session")
def prior_target(prior_folder: Path) -> Target:
    kinds = {".json": "json", ".safetensors": "safetensors"}

    def make(folder: Path) -> Files:
        shutil.copytree(prior_folder, folder, dirs_exist_ok=True)
        files = [p for p in sorted(folder.rglob("*")) if p.suffix in kinds and p.parent != folder]
        return [(path, kinds[path.suffix]) for path in files]

    return Target("prior", make, read_prior, 0.1)


def all_mutants(targets: list[Target], folder: Path, count: int, first: int = 0) -> int:
    total = sum(target.weight for target in targets)
    done, refused, findings = 0, 0, []
    for target in targets:
        share = max(1, round(count * target.weight / total))
        found, new = hunt(target, folder / target.name / "in", share, first)
        done, refused, findings = done + share, refused + found, findings + new
    assert not findings, f"{len(findings)} findings in {done} mutants\n{report(findings)}"
    assert refused > 0.3 * done
    return done


def test_damaged_files(tmp_path: Path, prior_target: Target) -> None:
    all_mutants([*TARGETS, prior_target], tmp_path, 300)


@pytest.mark.slow
def test_a_hundred_thousand_damaged_files(tmp_path: Path, prior_target: Target) -> None:
    count = int(os.environ.get("NOGAPS_MUTANTS", 100_000))
    assert all_mutants([*TARGETS, prior_target], tmp_path, count, first=1000) >= count * 0.99
