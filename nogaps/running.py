"""Execute the notebook: through a real Jupyter kernel, in place or into another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm
from traitlets.config import Config

from nogaps.Assessment import choose_profile
from nogaps.device import pick_device
from nogaps.files import BadInput, atomic, load_images, load_npy
from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK

TOLERANCE = 0.02  # RMS over the hole between two machines; the same machine gives the same bits


def sync_twin(folder: Path) -> bool:
    """Bring notebook and twin in step by jupytext; True if the twin's text changed."""
    twin = folder / "nogaps" / "Assessment.py"
    if not twin.exists():
        return False
    before = twin.read_bytes()
    command = [sys.executable, "-m", "jupytext", "--quiet", "--sync", NOTEBOOK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise BadInput(f"{NOTEBOOK}: jupytext: {done.stderr.strip().splitlines()[-1]}")
    return twin.read_bytes() != before


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook. Raises BadInput if it is missing or no notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # nbformat's errors have no common ancestor
        raise BadInput(f"{path}: is not a Jupyter notebook") from error


def execute(folder: Path, profile: str, output: Path) -> Path:
    """Run `folder/Assessment.ipynb` from top to bottom; write it and its result to `output`.

    The executed notebook replaces the one in `output` only when every cell has run. Raises
    BadInput with the cell's error otherwise, and keeps the unfinished notebook in `output/runs`.
    """
    notebook = read_notebook(folder / NOTEBOOK)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # relative where possible: a notebook must not learn where it was run
    target = os.path.relpath(output, folder)
    environment = {**os.environ, "NOGAPS_PROFILE": profile, "NOGAPS_OUTPUT": target}
    try:
        _execute_cells(notebook, folder, environment)
    except (CellExecutionError, DeadKernelError) as error:
        _write(notebook, output / "runs" / "failed.ipynb")
        said = str(error)
        if isinstance(error, CellExecutionError):
            said = f"{error.ename}: {error.evalue}"
        raise BadInput(f"{NOTEBOOK}: {said} (see runs/failed.ipynb)") from None
    tidy(notebook)
    _write(notebook, output / NOTEBOOK)
    return output / RESULT


def _execute_cells(
    notebook: nbformat.NotebookNode, folder: Path, environment: dict[str, str]
) -> None:
    """Run all cells in a kernel of their own, in `folder`, with a progress bar over the cells."""
    bar = tqdm(total=len(notebook.cells), desc=NOTEBOOK, unit="cell", mininterval=1)
    with tempfile.TemporaryDirectory(prefix="nogaps-") as sockets, bar:
        # sockets in files: other users of the machine can neither read nor steer the kernel
        ipc = {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            config=Config({"KernelManager": ipc if os.name == "posix" else {}}),
            on_cell_start=lambda cell, cell_index: bar.update(cell_index - bar.n),
        )
        client.execute(env=environment)
        bar.update(bar.total - bar.n)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Merge streams, keep of a progress bar its last state, and drop time stamps."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        merged: list = []
        for out in cell.get("outputs", []):
            same = merged and out.output_type == "stream" == merged[-1].output_type
            if same and merged[-1].name == out.name:
                merged[-1].text += out.text
            else:
                merged.append(out)
        for out in merged:
            if out.output_type == "stream":
                out.text = re.sub(r"[^\n]*\r(?=[^\n])", "", out.text).replace("\r", "")
        if merged:
            cell.outputs = [out for out in merged if out.get("text", "x").strip()]


def _write(notebook: nbformat.NotebookNode, path: Path) -> None:
    with atomic(path) as temporary:
        nbformat.write(notebook, temporary)


def committed_profile(folder: Path) -> str:
    """Profile that the notebook in `folder` was executed in. Raises BadInput if it was not."""
    for cell in read_notebook(folder / NOTEBOOK).cells:
        for out in cell.get("outputs", []):
            if match := re.search(r"^profile: (\w+)", out.get("text", "")):
                return match[1]
    raise BadInput(f"{folder / NOTEBOOK}: holds no output of a run")


def verify(folder: Path, profile: str = "auto") -> dict[str, float | bool | str]:
    """Execute the notebook elsewhere and compare its result with the one in `folder`.

    Returns the profile, whether the files are identical, the RMS difference over the hole, and
    whether that is within TOLERANCE.
    """
    profile = committed_profile(folder) if profile == "auto" else profile
    expected = load_npy(folder / RESULT)
    with tempfile.TemporaryDirectory() as temporary:
        found = load_npy(execute(folder, profile, Path(temporary)))
    if found.shape != expected.shape:
        raise BadInput(f"{folder / RESULT}: shape {expected.shape}, a new run gave {found.shape}")
    hole = ~(load_images(folder / "test_set.npy") != 0).any(0)
    difference = (found - expected)[:, hole]
    rms = float(np.sqrt(np.mean(difference**2)))
    same = bool((found == expected).all())
    return {"profile": profile, "identical": same, "rms": rms, "passed": rms <= TOLERANCE}


def run(folder: Path, profile: str, output: Path | None = None) -> Path:
    """`nogaps run`: execute, and lay what `check` needs into `output`; returns the result.

    An interrupted run is continued. A finished one is done again from the start: its saved parts
    would otherwise be read back, and nothing would be executed.
    """
    output = output or folder
    done = output / "runs" / choose_profile(profile, pick_device())
    spare = done.with_name(f"{done.name}.previous")
    if (done / "summary.json").exists():
        shutil.rmtree(spare, ignore_errors=True)
        done.rename(spare)
    try:
        result = execute(folder, profile, output)
    except BaseException:
        # a new run that has got somewhere is kept, to be continued; else the finished one returns
        if spare.exists() and not done.exists():
            spare.rename(done)
        raise
    shutil.rmtree(spare, ignore_errors=True)
    if output.resolve() != folder.resolve() and (folder / "References.md").exists():
        shutil.copy(folder / "References.md", output / "References.md")
    return result
