"""The notebook alone, in environments of its users: Colab's, the oldest, each Python.

Each downloads a few GB and takes minutes; NOGAPS_ENVIRONMENTS names a folder that keeps them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from nogaps.running import NOTEBOOK, RESULT
from nogaps.runtime.files import load_images
from nogaps.submission import check_submission

RUNNER = ["ipykernel", "ipywidgets", "jupyter_client", "nbconvert"]  # Colab's stand in colab.txt
OLDEST = re.compile(r"^([\w-]+)>=([\d.]+)", re.M)
ENVIRONMENTS = {
    "colab": ("3.13", ["--requirement", str(ROOT / "tests/colab.txt")]),
    "oldest": ("3.10", [f"{name}=={version}" for name, version in OLDEST.findall(
        (ROOT / "requirements.txt").read_text())]),
    **{
        version: (version, ["--constraint", str(ROOT / "constraints.txt"), "--requirement",
                            str(ROOT / "requirements.txt")])
        for version in ("3.10", "3.11", "3.12", "3.13")
    },
}  # fmt: skip


@pytest.fixture(params=ENVIRONMENTS)
def python(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The Python of a new environment, or of one that was kept."""
    version, requirements = ENVIRONMENTS[request.param]
    if not (base := shutil.which(f"python{version}")):
        pytest.skip(f"there is no python{version}")
    folder = Path(os.environ.get("NOGAPS_ENVIRONMENTS", tmp_path)) / request.param
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*install, "--upgrade", "pip"], check=True)
        subprocess.run([*install, *requirements, *RUNNER], check=True)
        (folder / "whole").touch()
    return python


def printed(command: list[object], **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_notebook_alone(python: Path, tmp_path: Path) -> None:
    """It installs nothing, stores plain text in place of widgets, and GitHub can show it."""
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(ROOT / NOTEBOOK, folder)
    before = printed([python, "-m", "pip", "freeze"])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NOGAPS"))}
    environment |= {"NOGAPS_PROFILE": "smoke", "NOGAPS_REPO_URL": f"file://{ROOT}"}
    convert = [python, "-m", "jupyter", "nbconvert", NOTEBOOK, "--to"]
    options = {"cwd": folder, "env": environment}
    printed([*convert, "notebook", "--execute", "--inplace"], **options)
    assert printed([python, "-m", "pip", "freeze"]) == before, "the notebook changed its kernel"
    notebook = nbformat.read(folder / NOTEBOOK, 4)
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    kinds = {kind for out in shown for kind in out.get("data", {})}
    assert "image/png" in kinds and not any("widget" in kind for kind in kinds)
    assert "widgets" not in notebook.metadata
    printed([*convert, "html", "--output", "page.html"], **options)
    assert (folder / "page.html").read_text().count("<img") >= 10
    assert load_images(folder / RESULT).shape == (100, 1, 64, 64)
    findings = check_submission(folder, ROOT / "test_set.npy")
    assert [row for row in findings if row.file in (NOTEBOOK, RESULT)] == []
    print(notebook.cells[-1].outputs[0].text)  # the summary, for `pytest -s`
