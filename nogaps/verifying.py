"""Compare two executions of the notebook by what they printed: which stage differs first, and why.

A run repeats bit for bit on the same machine: same processor, versions, number of threads. On
another one rounding differs, first in the synthetic set or, where only the threads differ, in the
weights. The results are then compared by their RMS difference over the hole, with TOLERANCE.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nogaps.masks import shared_mask
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, sha256
from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK, load_notebook, texts

TOLERANCE = 0.02
"""RMS difference over the hole that another machine may bring; grey values in [0,1].

Rounding can lead training no farther away than another seed does. Measured on the stand-in: two of
the committed networks, which differ by their seed, are 0.0139 apart, the means of three such
networks 0.0080, and kriging is 0.067 from the committed result. So chance passes in every profile,
another method does not. In the profile `smoke`, whose networks have hardly left kriging, one thread
and two differ by 0.00002, bfloat16 and fp32 by 0.00009.
"""

WEIGHTS = "imputer.safetensors"
# stage, in the order of the notebook, and what stands before the sha256 that it prints
STAGES = {
    "test_set": r"test_set\.npy",
    "synthetic_set": "synthetic set",
    "weights": r"imputer\.safetensors",
    "result": re.escape(RESULT),
}
HEADER = re.compile(r"^profile: (\w+)(?: +device: (.+?) {2,}convolutions in (\w+))?", re.M)
VERSIONS = re.compile(r"^python \d.*", re.M)
VERSION = re.compile(r"([A-Za-z][\w-]*) (\d[^\s,]*)")


@dataclass(frozen=True)
class Record:
    """What a notebook printed of its run: hashes by stage (hex, whole or its start), versions."""

    profile: str
    hashes: dict[str, str]
    environment: dict[str, str]


def read_record(path: Path) -> Record:
    """Read what an executed notebook printed.

    Raises:
        BadInput: The file is not a notebook, or holds no output of a run.
    """
    text = "\n".join(part for cell in load_notebook(path).cells for part in texts(cell))
    header = HEADER.search(text)
    if header is None:
        raise BadInput("holds no output of a run", "an executed notebook", path=path)
    profile, device, precision = header.groups()
    environment = {"device": device or "", "convolutions": precision or ""}
    if line := VERSIONS.search(text):
        environment |= dict(VERSION.findall(line[0]))
    return Record(profile, _hashes(text), environment)


def _hashes(text: str) -> dict[str, str]:
    """Return the sha256 by stage, of the line that it printed last."""
    pattern = r"^{}:?[^\n]*\bsha256:? ([0-9a-f]{{16,64}})\b"
    printed = {
        stage: re.findall(pattern.format(name), text, re.M) for stage, name in STAGES.items()
    }
    return {stage: hashes[-1] for stage, hashes in printed.items() if hashes}


def printed_summary(text: str) -> dict:
    """Return the last JSON object with a profile in what a notebook printed; {} without one."""
    summary: dict = {}
    for match in re.finditer(r"^\{", text, re.M):
        with contextlib.suppress(ValueError, RecursionError):
            value, _ = json.JSONDecoder().raw_decode(text, match.start())
            summary = value if "profile" in value else summary
    return summary


def same(a: str | None, b: str | None) -> bool | None:
    """Return whether two hashes agree as far as both are known; None if one is unknown."""
    return a.startswith(b) or b.startswith(a) if a and b else None


def read_committed(folder: Path) -> tuple[Record, Record]:
    """Read what the notebook in `folder` printed, and the hashes of the files beside it.

    Raises:
        BadInput: The notebook, the test set or the result is missing or damaged.
    """
    then = read_record(folder / NOTEBOOK)
    files = {"test_set": folder / "test_set.npy", "result": folder / RESULT}
    for path in files.values():
        load_images(path)
    here = {stage: sha256(path) for stage, path in files.items()}
    return then, Record(then.profile, here, {})


def read_new(output: Path) -> Record:
    """Read what a run into `output` printed, with the hash of its weights.

    Raises:
        BadInput: The weights are not there: the run saved its parts elsewhere.
    """
    now = read_record(output / NOTEBOOK)
    weights = output / "runs" / now.profile / WEIGHTS
    if not weights.is_file():
        problem = "the run saved its parts elsewhere, and may have read finished ones back"
        raise BadInput(problem, "them beside the notebook, not on a Drive", path=NOTEBOOK)
    return Record(now.profile, now.hashes | {"weights": sha256(weights)}, now.environment)


def hole_rms(x_hat: np.ndarray, expected: np.ndarray, y: np.ndarray) -> float:
    """Return the RMS difference of two results (N,1,H,W) over the pixels missing in all of y.

    Raises:
        BadInput: The shapes differ.
    """
    if x_hat.shape != expected.shape:
        wanted = f"that of a new run, {x_hat.shape}"
        raise BadInput(f"has shape {expected.shape}", wanted, path=RESULT)
    hole = ~shared_mask(y)
    difference = x_hat[..., hole].astype(np.float64) - expected[..., hole]
    return float(np.sqrt(np.mean(difference**2)))


def compare(then: Record, now: Record, rms: float | None = None) -> dict[str, object]:
    """Compare two runs: what `nogaps run --verify` reports.

    Args:
        then: The committed run.
        now: The new run, or the files beside the notebook.
        rms: The difference of their results; None if nothing was executed.

    Returns:
        For each stage True, False, or None where a hash is not known; the first stage that is
        False; what decides, and both environments.
    """
    stages = {stage: same(then.hashes.get(stage), now.hashes.get(stage)) for stage in STAGES}
    return {
        "profile": now.profile,
        "committed_profile": then.profile,
        **stages,
        "first_difference": next((s for s, agrees in stages.items() if agrees is False), None),
        "identical": stages["result"] is True,
        "rms": rms,
        "tolerance": TOLERANCE,
        "passed": rms is not None and rms <= TOLERANCE,
        "then": then.environment,
        "now": now.environment,
    }


def as_text(comparison: Mapping) -> str:
    """Return what `compare` returned as text."""
    words = {True: "identical", False: "different", None: "not known, its hash is not printed"}
    profile, first = comparison["profile"], comparison["first_difference"]
    if profile != comparison["committed_profile"]:
        profile += f" (committed: {comparison['committed_profile']})"
    lines = [f"profile {profile}: {'passed' if comparison['passed'] else 'NOT PASSED'}"]
    if comparison["rms"] is None:
        name = {"test_set": "test_set.npy", "result": RESULT}[first]
        return f"{lines[0]}, not executed: {name} is not the file whose hash the notebook printed"
    lines += [f"  {stage.replace('_', ' ')}: {words[comparison[stage]]}" for stage in STAGES]
    rms, tolerance = comparison["rms"], comparison["tolerance"]
    lines += [f"  RMS over the hole: {rms:.6f}, tolerance {tolerance}"]
    if first:
        then, now = comparison["then"], comparison["now"]
        changed = [
            f"{key} {then.get(key, 'not known')}, now {now.get(key, 'not known')}"
            for key in then | now
            if then.get(key) != now.get(key)
        ]
        why = "; ".join(changed) or "same versions, kind of device and threads: another processor?"
        lines += [f"  first difference: {first.replace('_', ' ')}; then {why}"]
    return "\n".join(lines)
