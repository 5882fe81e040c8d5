"""Execute the notebook: through a real Jupyter kernel, in place or into another folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets.config import Config

from nogaps import verifying
from nogaps.Assessment import choose_profile
from nogaps.runtime.device import KEEP_FREED, pick_device
from nogaps.runtime.files import BadInput, atomic, load_images
from nogaps.runtime.locks import folder_lock
from nogaps.runtime.progress import progress
from nogaps.submission.arrays import RESULT
from nogaps.submission.notebook import NOTEBOOK, last_state

LINGER = 15.0  # seconds that the kernel of a killed run gets to notice that and to end


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
        where = "expected the notebook there (or name its folder by --folder)"
        raise BadInput(f"{path}: cannot be read ({error.strerror}), {where}") from error
    except Exception as error:  # nbformat's errors have no common ancestor
        raise BadInput(f"{path}: is no Jupyter notebook, expected one in format 4") from error


def execute(folder: Path, profile: str, output: Path, lock: int | None = None) -> Path:
    """Run `folder/Assessment.ipynb` from top to bottom; write it and its result to `output`.

    The executed notebook replaces the one in `output` only when every cell has run. Raises
    BadInput with the cell's error otherwise, and keeps the unfinished notebook in `output/runs`.
    lock: descriptor of a lock that the kernel then holds as well: it may outlive this process by a
    second, and no other run is to write where it writes.
    """
    notebook = read_notebook(folder / NOTEBOOK)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # relative where possible: a notebook must not learn where it was run
    target = os.path.relpath(output, folder)
    environment = {name: str(value) for name, value in KEEP_FREED.items()} | os.environ
    environment |= {"NOGAPS_PROFILE": profile, "NOGAPS_OUTPUT": target}
    try:
        _execute_cells(notebook, folder, environment, lock)
    except (CellExecutionError, DeadKernelError) as error:
        said = str(error)
        if isinstance(error, CellExecutionError):
            said = f"{error.ename}: {error.evalue}"
        with contextlib.suppress(BadInput):  # on a full disk the cell's error is what counts
            _write(notebook, output / "runs" / "failed.ipynb")
            said += " (see runs/failed.ipynb)"
        raise BadInput(f"{NOTEBOOK}: {said}") from None
    tidy(notebook)
    _write(notebook, output / NOTEBOOK)
    return output / RESULT


def _execute_cells(
    notebook: nbformat.NotebookNode, folder: Path, environment: dict[str, str], lock: int | None
) -> None:
    """Run all cells in a kernel of their own, in `folder`, with a progress bar over the cells."""
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
        _wait_for(client, {"env": environment} | ({} if lock is None else {"pass_fds": (lock,)}))
        bar.update(bar.total - bar.n)


def _wait_for(client: NotebookClient, options: dict[str, object]) -> None:
    """Execute in a thread: in the main one nbclient would answer the signals instead of us.

    Whatever ends the waiting ends the kernel; no cell needs a gentle end.
    """
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(client.execute, **options)
        try:
            done.result()
        finally:
            while not wait([done], timeout=0.1).done:  # also a kernel that is only about to start
                _kill(client)


def _kill(client: NotebookClient) -> None:
    """End the kernel, and on POSIX what it has started: it leads a group of its own."""
    process = getattr(getattr(client.km, "provisioner", None), "process", None)
    if process is not None and process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()


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
                out.text = last_state(out.text)
        if merged:
            cell.outputs = [out for out in merged if out.get("text", "x").strip()]


def _write(notebook: nbformat.NotebookNode, path: Path) -> None:
    with atomic(path) as temporary:
        nbformat.write(notebook, temporary)


def verify(folder: Path, profile: str = "auto") -> dict[str, object]:
    """Execute the notebook elsewhere and compare what it made with what is in `folder`.

    See `verifying.compare` for the findings. Nothing is executed if the test set or the result here
    are not those that the notebook printed. Raises BadInput if there is nothing to compare with.
    """
    then, here = verifying.read_committed(folder)
    found = verifying.compare(then, here)
    if found["first_difference"]:
        return found
    expected, y = load_images(folder / RESULT), load_images(folder / "test_set.npy")
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary)
        result = execute(folder, then.profile if profile == "auto" else profile, output)
        now = verifying.read_new(output)
        return verifying.compare(then, now, verifying.hole_rms(load_images(result), expected, y))


def run(folder: Path, profile: str, output: Path | None = None) -> Path:
    """`nogaps run`: execute, and lay what `check` needs into `output`; returns the result.

    An interrupted run is continued. A finished one is done again from the start: its saved parts
    would otherwise be read back, and nothing would be executed. Raises BadInput if another run
    writes to `output`.
    """
    output = output or folder
    with folder_lock(output / "runs", LINGER) as lock:
        result = _run(folder, profile, output, lock)
        if output.resolve() != folder.resolve() and (folder / "References.md").exists():
            with atomic(output / "References.md") as temporary:
                shutil.copyfile(folder / "References.md", temporary)
    return result


def _run(folder: Path, profile: str, output: Path, lock: int | None) -> Path:
    done = output / "runs" / choose_profile(profile, pick_device())
    spare = done.with_name(f"{done.name}.previous")
    if (done / "summary.json").exists():
        shutil.rmtree(spare, ignore_errors=True)
        done.rename(spare)
    try:
        result = execute(folder, profile, output, lock)
    except BaseException:
        # a new run that has got somewhere is kept, to be continued; else the finished one returns
        if spare.exists() and not done.exists():
            spare.rename(done)
        raise
    shutil.rmtree(spare, ignore_errors=True)
    return result
