"""Execute the notebook: through a real Jupyter kernel, in place or into another folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbformat import NotebookNode

from nogaps import verifying
from nogaps.Assessment import choose_profile
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput, require
from nogaps.runtime.files import atomic, load_images
from nogaps.runtime.processes import folder_lock
from nogaps.runtime.progress import progress
from nogaps.submission.arrays import RESULT
from nogaps.submission.folder import REFERENCES
from nogaps.submission.notebook import NOTEBOOK, load_notebook

if TYPE_CHECKING:
    from nbclient import NotebookClient


def run(folder: Path, profile: str, output: Path | None = None) -> Path:
    """Execute the notebook, and put what `check` needs into `output`: `nogaps run`.

    An interrupted run is continued. A finished one is done again from the start: its saved parts
    would otherwise be read back, and nothing would be executed. They are kept as `*.previous` until
    the new run has ended well.

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
        result = execute(folder, profile, output)
        shutil.rmtree(spare, ignore_errors=True)
        if output.resolve() != folder.resolve() and (folder / REFERENCES).exists():
            with atomic(output / REFERENCES) as temporary:
                shutil.copyfile(folder / REFERENCES, temporary)
    return result


def verify(folder: Path, profile: str = "auto") -> dict[str, object]:
    """Execute the notebook elsewhere and compare what it made with what is in `folder`.

    Nothing is executed if the test set or the result here are not those that the notebook printed.

    Returns:
        What `verifying.compare` says.

    Raises:
        BadInput: There is nothing to compare with, or a cell failed.
    """
    then, here = verifying.read_committed(folder)
    comparison = verifying.compare(then, here)
    if comparison["first_difference"]:
        return comparison
    expected, y = load_images(folder / RESULT), load_images(folder / "test_set.npy")
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary)
        result = execute(folder, then.profile if profile == "auto" else profile, output)
        rms = verifying.hole_rms(load_images(result), expected, y)
        return verifying.compare(then, verifying.read_new(output), rms)


def execute(folder: Path, profile: str, output: Path) -> Path:
    """Run the notebook from top to bottom; write it and its result to `output`.

    The executed notebook replaces the one in `output` only when every cell has run; else the
    unfinished one is kept in `output/runs/failed.ipynb`.

    Args and the result are those of `run`.

    Raises:
        BadInput: There is no notebook, or a cell failed: the message is the cell's error.
    """
    require("notebook", "nbclient", "nbconvert", "ipykernel")
    if not (folder / NOTEBOOK).exists():
        expected = "the notebook there (or name its folder by --folder)"
        raise BadInput("not found", expected, path=folder / NOTEBOOK)
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
            timeout=None,
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
