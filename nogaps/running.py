"""Execute the notebook through a real Jupyter kernel; compare what two executions printed.

A run repeats bit for bit on the same machine: same processor, versions, number of threads. On
another one rounding differs, first in the synthetic set or, where only the threads differ, in the
weights. The results are then compared by their RMS difference over the hole, with TOLERANCE.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import numpy as np
from nbformat import NotebookNode

from nogaps.Assessment import choose_profile
from nogaps.imputers.loading import WEIGHTS
from nogaps.masks import shared_mask
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput, require
from nogaps.runtime.files import atomic, load_images, sha256
from nogaps.runtime.processes import folder_lock
from nogaps.runtime.progress import progress
from nogaps.submission import NOTEBOOK, REFERENCES, RESULT
from nogaps.submission.notebook import load_notebook, texts

if TYPE_CHECKING:
    from nbclient import NotebookClient

TOLERANCE = 0.02
"""RMS difference over the hole that another machine may bring; grey values in [0,1].

Rounding can lead training no farther away than another seed does. Measured on the stand-in: two of
the committed networks, which differ by their seed, are 0.0139 apart, the means of three such
networks 0.0080, and kriging is 0.067 from the committed result. So chance passes in every profile,
another method does not.
"""

# stage, in the order of the notebook, and what stands before the sha256 that it prints
STAGES = {
    "test_set": r"test_set\.npy",
    "synthetic_set": "synthetic set",
    "weights": r"imputer\.safetensors",
    "result": re.escape(RESULT),
}
HASH = r"^{}:?[^\n]*\bsha256:? ([0-9a-f]{{16,64}})\b"
HEADER = re.compile(r"^profile: (\w+).*? device: (.+?)(?: {2,}|\n)convolutions in (\w+)", re.M)
VERSIONS = re.compile(r"^python \d.*", re.M)
VERSION = re.compile(r"([A-Za-z][\w-]*) (\d[^\s,]*)")


@dataclass(frozen=True)
class Record:
    """What a notebook printed of its run: hashes by stage (hex, whole or its start), versions."""

    profile: str
    hashes: dict[str, str]
    environment: dict[str, str]


def run(folder: Path, profile: str, output: Path | None = None) -> Path:
    """Execute the notebook, and put what `check` needs into `output`: `nogaps run`.

    An interrupted run is continued. A finished one is done again: its saved parts, which would be
    read back, lie in `*.previous` meanwhile, and return if the new run fails before it saves any.

    Args:
        folder: Holds Assessment.ipynb and test_set.npy.
        profile: auto, smoke, cpu or full.
        output: Where results go; else `folder`, in place.

    Returns:
        The result, a file.

    Raises:
        BadInput: A cell failed, another run writes to `output`, or nbclient is missing.
    """
    output = output or folder
    with folder_lock(output / "runs"):
        done = output / "runs" / choose_profile(profile, pick_device())
        spare = done.with_name(f"{done.name}.previous")
        if (done / "summary.json").exists():
            shutil.rmtree(spare, ignore_errors=True)
            done.rename(spare)
        try:
            result = execute(folder, profile, output)
        except BaseException:
            if spare.exists() and not done.exists():
                spare.rename(done)
            raise
        shutil.rmtree(spare, ignore_errors=True)
        if output.resolve() != folder.resolve() and (folder / REFERENCES).exists():
            with atomic(output / REFERENCES) as temporary:
                shutil.copyfile(folder / REFERENCES, temporary)
    return result


def execute(folder: Path, profile: str, output: Path) -> Path:
    """Run the notebook from top to bottom; write it and its result to `output`.

    The executed notebook replaces the one in `output` only when every cell has run; else the
    unfinished one is kept in `output/runs/failed.ipynb`. Args, result and errors are those of
    `run`; the message is that of the cell that failed.
    """
    require("notebook", "nbclient", "nbconvert", "ipykernel")
    if not (folder / NOTEBOOK).exists():
        raise BadInput("not found", "it there, or another --folder", path=folder / NOTEBOOK)
    notebook = load_notebook(folder / NOTEBOOK)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # relative where possible: a notebook must not learn where it was run
    target = os.path.relpath(output, folder)
    variables = {"NOGAPS_PROFILE": profile, "NOGAPS_OUTPUT": target}
    if problem := _execute_cells(notebook, folder, {**os.environ, **variables}):
        with contextlib.suppress(BadInput):  # on a full disk the cell's error is what counts
            _write(notebook, output / "runs" / "failed.ipynb")
            problem += " (see runs/failed.ipynb)"
        raise BadInput(problem, path=NOTEBOOK)
    tidy(notebook)
    _write(notebook, output / NOTEBOOK)
    return output / RESULT


def _execute_cells(notebook: NotebookNode, folder: Path, environment: dict[str, str]) -> str:
    """Run all cells in a kernel of their own; return the error of the cell that failed, if any."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from traitlets.config import Config

    bar = progress(desc=NOTEBOOK, total=len(notebook.cells), unit="cell")
    with tempfile.TemporaryDirectory(prefix="nogaps-") as sockets, bar:
        # sockets in files: other users of the machine can neither read nor steer the kernel
        ipc = {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            config=Config({"KernelManager": ipc if os.name == "posix" else {}}),
            on_cell_start=lambda cell, cell_index: bar.update(cell_index - bar.n),
        )
        try:
            _wait_for(client, environment)
        except CellExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        except DeadKernelError as error:
            return str(error)
        bar.update(bar.total - bar.n)
    return ""


def _wait_for(client: NotebookClient, environment: dict[str, str]) -> None:
    """Execute in a thread: in the main one nbclient would answer the signals instead of us.

    Whatever ends the waiting kills the kernel and what it has started.
    """
    manager = client.create_kernel_manager()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(client.execute, env=environment)
        try:
            done.result()
        finally:
            while not wait([done], timeout=0.1).done:  # also a kernel that is only about to start
                if (kernel := manager.provisioner) is not None:
                    asyncio.run(kernel.kill())


def tidy(notebook: NotebookNode) -> None:
    """Merge streams, keep of a progress bar its last state, and drop time stamps."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    merge = CoalesceStreamsPreprocessor()
    for place, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            merge.preprocess_cell(cell, {}, place)
            cell.outputs = [out for out in cell.outputs if out.get("text", "x").strip()]


def _write(notebook: NotebookNode, path: Path) -> None:
    with atomic(path) as temporary:
        nbformat.write(notebook, temporary)


def verify(folder: Path, profile: str = "auto") -> dict[str, object]:
    """Execute the notebook elsewhere and compare what it made with what is in `folder`.

    Nothing is executed if the test set or the result here are not those that the notebook printed.

    Returns:
        What `compare` says.

    Raises:
        BadInput: A file is missing or damaged, a cell failed, or the run saved its parts elsewhere.
    """
    then = read_record(folder / NOTEBOOK)
    y, expected = load_images(folder / "test_set.npy"), load_images(folder / RESULT)
    here = {"test_set": sha256(folder / "test_set.npy"), "result": sha256(folder / RESULT)}
    comparison = compare(then, Record(then.profile, here, {}))
    if comparison["first_difference"]:
        return comparison
    if expected.shape != y.shape:  # where the notebook printed no hash of it
        raise BadInput(f"has shape {expected.shape}", f"{y.shape}", path=folder / RESULT)
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary)
        x_hat = load_images(execute(folder, then.profile if profile == "auto" else profile, output))
        hole = ~shared_mask(y)
        difference = x_hat[..., hole].astype(np.float64) - expected[..., hole]
        now = read_record(output / NOTEBOOK)
        weights = output / "runs" / now.profile / WEIGHTS
        if not weights.is_file():
            problem = "the run saved its parts elsewhere, and may have read finished ones back"
            raise BadInput(problem, "them beside the notebook, not on a Drive", path=NOTEBOOK)
        now.hashes["weights"] = sha256(weights)
        return compare(then, now, float(np.sqrt(np.mean(difference**2))))


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
    environment = {"device": device, "convolutions": precision}
    if line := VERSIONS.search(text):
        environment |= dict(VERSION.findall(line[0]))
    printed = {stage: re.findall(HASH.format(name), text, re.M) for stage, name in STAGES.items()}
    return Record(profile, {s: hashes[-1] for s, hashes in printed.items() if hashes}, environment)


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
    stages: dict[str, bool | None] = {}
    for stage in STAGES:  # hashes agree as far as both are printed
        a, b = then.hashes.get(stage), now.hashes.get(stage)
        stages[stage] = a.startswith(b) or b.startswith(a) if a and b else None
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
    lines += ["  RMS over the hole: {rms:.6f}, tolerance {tolerance}".format(**comparison)]
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
