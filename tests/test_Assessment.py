"""The notebook: one text with its twin, run through its real kernel, clean as committed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from conftest import ROOT

from nogaps import running, standin
from nogaps.running import read_record
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, sha256
from nogaps.submission import check_submission
from nogaps.submission.notebook import count_figures, load_notebook, outputs

pytestmark = pytest.mark.xdist_group("notebook")  # one smoke run for all
NOTEBOOK = ROOT / "Assessment.ipynb"
WEIGHTS = [f"nogaps/weights/imputer/{name}" for name in ("imputer.safetensors", "uncertainty.json")]
SHIPPED = {ROOT / n: sha256(ROOT / n) for n in ("test_set_nogaps.npy", *WEIGHTS)}  # before any test


def test_twin_and_notebook_are_one_text() -> None:
    twin, notebook = jupytext.read(ROOT / "nogaps/Assessment.py"), nbformat.read(NOTEBOOK, 4)
    texts = [[(c.cell_type, c.source.strip()) for c in book.cells] for book in (twin, notebook)]
    assert texts[0] == texts[1]


def test_cells_and_code_are_short() -> None:
    code = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "code"]
    lines = [line for source in code for line in source.splitlines()]
    assert sum(bool(line.strip()) for line in lines) <= 600
    assert max(len(source.splitlines()) for source in code) <= 60


def test_contents_lead_to_headings() -> None:
    """Jupyter names a heading by its text, with hyphens; Colab jumps to cells by their id."""
    cells = [c for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "markdown"]
    links = re.findall(r"\[([^]]+)\]\(#((?:[^()]|\([^)]*\))+)\)", cells[0].source)
    headings = [text for c in cells[1:] for text in re.findall(r"^##+ (.+)$", c.source, re.M)]
    in_jupyter = {to: name.lower() for name, to in links if not to.startswith("scrollTo=")}
    ids = {text.replace(" ", "-").replace("%", "%25"): text.lower() for text in headings}
    assert in_jupyter == ids
    named = {cell.id: cell for cell in cells[1:] if re.match("##", cell.source)}
    in_colab = [to.removeprefix("scrollTo=") for _, to in links if to.startswith("scrollTo=")]
    assert in_colab == ["settings", "question-1", "question-2", "question-3", "summary"]
    # Colab writes its ids into the metadata, which the twin keeps, and reads the cell's
    assert all(named[to].metadata["id"] == to for to in in_colab)


MEASURED = re.compile(r"<!--n:\w+-->.*?<!--/n-->|<!--table:.*?<!--/table-->|`[^`]*`", re.S)
CONSTANTS = {
    "the coursework": "100 head images 64×64 2048 heads 2048 80/20 25 % 50 % Question 1 2 3",
    "the code": "float32 3×3 16 1e-3 4e-3 0.1 0.999 (1+n)/(10+n) temperature 1, AVX-512",
    "the figures": "in [0, 1] 0 (black) 1 (white) -0.3 (blue) 0.3 (red) 95 % pixel is 0",
    "profiles": "48 2048 2 × 2 1 × 20 3 × 20",
    "the study of changes, which is not of this run": "batches of 32 10 epochs 100 slices 88 0.05",
}


def test_prose_follows_the_run() -> None:
    """A number in the text is a constant of task or code, or rendered from a measurement."""
    known = set(re.findall(r"\d+(?:\.\d+)?", " ".join(CONSTANTS.values())))
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"(?:et al\.|and \w+|\(\w+|the same)\s+(?:19|20)\d\d", "", cell.source)
        text = re.sub(r"\]\(#[^ ]*\)|^\d\. |1 \(white\)", "", MEASURED.sub("", text), flags=re.M)
        assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= known, cell.source


def test_settings_are_form_fields_of_plain_values() -> None:
    """Colab's form rewrites what stands right of the sign; variables go before it."""
    notebook = nbformat.read(NOTEBOOK, 4)
    assert notebook.metadata["accelerator"] == "GPU"
    assert notebook.metadata["colab"]["gpuType"] == "T4"
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    fields = dict(re.findall(r"^([A-Z_]+) = (.+?)  # @param (?=[\[{])", cell.source, re.M))
    read = {"True": True, "False": False}
    assert {k: read[v] if v in read else json.loads(v) for k, v in fields.items()} == {
        "PROFILE": "auto",
        "SEED": 0,
        "PRIOR": "shipped",
        "COURSE_FILES": "MyDrive/cw1_files.zip",
        "MOUNT_DRIVE": False,
        "REPO_URL": "",
        "TEST_SET": "test_set.npy",
        "OUTPUT": "",
    }


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module google.colab that writes down what it mounts, in an otherwise empty folder."""
    package = tmp_path / "modules" / "google" / "colab"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    program = "from pathlib import Path\ndef mount(to):\n"
    program += "    Path('mounted').write_text(to)\n    Path(to, 'MyDrive').mkdir(parents=True)\n"
    (package / "drive.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(package.parents[1]))
    for name in ("NOGAPS_OUTPUT", "NOGAPS_PROFILE", "NOGAPS_REPO_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def where(folder: Path, **fields: object) -> tuple[str, str]:
    """SOURCE and OUTPUT after the first two cells, whose form has the fields, and the Drive."""
    cells = nbformat.read(NOTEBOOK, 4).cells
    settings, places = [cell.source for cell in cells if cell.cell_type == "code"][:2]
    for name, value in fields.items():
        field = re.compile(rf"^{name} = .+?(?=  # @)", re.M)
        settings, count = field.subn(f"{name} = {value!r}", settings)
        assert count == 1
    assert places.count('"/content/drive"') == 1
    places = places.replace('"/content/drive"', repr(str(folder / "drive")))
    program = f"{settings}\n{places}\nprint(SOURCE)\nprint(OUTPUT)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    *_, source, output = done.stdout.splitlines()
    return source, output


def test_drive_is_mounted_only_on_request_in_colab(
    colab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (colab / "nogaps").symlink_to(ROOT / "nogaps")
    with monkeypatch.context() as outside:  # no google.colab, no Drive
        outside.delenv("PYTHONPATH")
        assert where(colab, MOUNT_DRIVE=True) == (".", ".")
    assert where(colab) == (".", ".")
    assert not (colab / "mounted").exists()
    on_drive = str(colab / "drive" / "MyDrive" / "nogaps")
    assert where(colab, MOUNT_DRIVE=True) == (".", on_drive)
    assert (colab / "mounted").read_text() == str(colab / "drive")
    assert where(colab)[1] == on_drive  # mounted already
    assert where(colab, OUTPUT="results") == (".", "results")  # a named output wins
    monkeypatch.setenv("NOGAPS_OUTPUT", ".")
    assert where(colab, OUTPUT="results") == (".", ".")


def test_package_is_found_on_drive(colab: Path) -> None:
    on_drive = colab / "drive" / "MyDrive" / "nogaps"
    on_drive.mkdir(parents=True)
    (on_drive / "nogaps").symlink_to(ROOT / "nogaps")
    assert where(colab) == (str(on_drive), str(on_drive))


def test_run_cells_are_inactive_in_the_twin(tmp_path: Path) -> None:
    """Importing the twin defines; it draws, trains and writes nothing."""
    program = "import os, nogaps.Assessment as a; print(os.listdir('.'), a.Imputer)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.startswith("[] <class") and done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook of the working tree, executed in the smoke profile into a new folder."""
    output = tmp_path_factory.mktemp("smoke")
    running.run(ROOT, "smoke", output)
    return output


def test_smoke_run_gives_a_valid_submission(smoke: Path) -> None:
    assert check_submission(smoke, ROOT / "test_set.npy") == []
    y, x_hat = load_images(ROOT / "test_set.npy"), load_images(smoke / "test_set_nogaps.npy")
    observed = (y != 0).any(0)[0]
    assert np.array_equal(x_hat[:, :, observed], y[:, :, observed])
    summary = json.loads((smoke / "runs/smoke/summary.json").read_text())
    assert summary["missing pixels"] == int((~observed).sum())
    weights = sha256(smoke / "runs/smoke/imputer.safetensors")
    record = read_record(smoke / running.NOTEBOOK)
    assert summary["weights"]["sha256"] == weights == record.hashes["weights"]
    assert len(record.hashes) == 4
    assert {path: sha256(path) for path in SHIPPED} == SHIPPED, "a shipped file was changed"


def test_smoke_run_shows_figures_in_each_question_and_a_table(smoke: Path) -> None:
    cells = load_notebook(smoke / running.NOTEBOOK).cells
    counts = count_figures(cells)
    assert list(counts) == [0, 1, 2, 3] and min(counts[n] for n in (1, 2, 3)) >= 1
    tables = [out["data"] for cell in cells for out in outputs(cell) if "data" in out]
    plain = ["".join(data["text/plain"]) for data in tables if "text/markdown" in data]
    for name in ("linear", "biharmonic", "kriging", "ours, fast", "ours, best"):
        assert re.search(rf"^\| {name} +\| 0\.\d{{4}} \[0\.\d{{4}}, 0\.\d{{4}}\]", plain[-1], re.M)


@pytest.mark.slow
def test_second_run_is_done_again_and_identical(smoke: Path) -> None:
    training = smoke / "runs/smoke/training-0.safetensors"
    before, made = (smoke / running.RESULT).read_bytes(), training.stat().st_mtime_ns
    again = running.run(ROOT, "smoke", smoke)
    assert again.read_bytes() == before
    assert training.stat().st_mtime_ns > made, "the finished run was read back, not done again"


@pytest.mark.slow
def test_interrupted_run_continues(smoke: Path, tmp_path: Path) -> None:
    """With the samples there and no summary, sampling is not done again."""
    samples = tmp_path / "runs/smoke/samples"
    shutil.copytree(smoke / "runs/smoke/samples", samples)
    made = (samples / "images.npy").stat().st_mtime_ns
    again = running.run(ROOT, "smoke", tmp_path)
    assert again.read_bytes() == (smoke / running.RESULT).read_bytes()
    assert (samples / "images.npy").stat().st_mtime_ns == made


def test_verify_compares_with_what_is_there(smoke: Path, tmp_path: Path) -> None:
    for name in ("test_set.npy", "nogaps"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in (running.NOTEBOOK, running.RESULT):
        (tmp_path / name).write_bytes((smoke / name).read_bytes())
    comparison = running.verify(tmp_path)
    assert comparison["profile"] == "smoke" and comparison["identical"] and comparison["passed"]


def test_failed_run_is_one_line_and_keeps_what_was_there(smoke: Path, tmp_path: Path) -> None:
    """A relative folder, and earlier results in it, when the new test set is wrong."""
    for name in (running.NOTEBOOK, "nogaps"):
        (tmp_path / name).symlink_to(ROOT / name)
    np.save(tmp_path / "test_set.npy", np.ones((3, 64, 64)))
    (tmp_path / running.RESULT).write_bytes(b"earlier")
    shutil.copytree(smoke / "runs/smoke", tmp_path / "runs/smoke")
    with pytest.raises(BadInput, match=r"shape \(3, 64, 64\), expected \(N, 1, H, W\)"):
        running.run(Path(os.path.relpath(tmp_path)), "smoke")
    assert (tmp_path / running.RESULT).read_bytes() == b"earlier"
    assert (tmp_path / running.NOTEBOOK).is_symlink()
    assert (tmp_path / "runs" / "failed.ipynb").exists()
    assert (tmp_path / "runs/smoke/imputer.safetensors").exists()
    assert not (tmp_path / "runs/smoke.previous").exists()


@pytest.mark.slow
def test_simulated_colab(colab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that holds the committed notebook only; the rest comes from REPO_URL."""
    (colab / running.NOTEBOOK).write_bytes(committed(running.NOTEBOOK))
    monkeypatch.setenv("NOGAPS_REPO_URL", f"file://{ROOT}")
    running.run(colab, "smoke", colab)
    assert (colab / "nogaps-source" / "nogaps" / "__init__.py").exists()
    assert load_images(colab / running.RESULT).shape == (100, 1, 64, 64)
    assert not (colab / "mounted").exists()


def test_alone_without_address_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / running.NOTEBOOK).write_bytes(NOTEBOOK.read_bytes())
    with pytest.raises(BadInput, match="Set REPO_URL"):
        running.run(tmp_path, "smoke", tmp_path)


def committed(name: str) -> bytes:
    done = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout


def test_committed_submission_is_valid_and_full(tmp_path: Path) -> None:
    for name in (running.NOTEBOOK, running.RESULT, "test_set.npy", "References.md"):
        (tmp_path / name).write_bytes(committed(name))
    assert check_submission(tmp_path) == []
    y, x_hat = (load_images(tmp_path / name) for name in ("test_set.npy", running.RESULT))
    observed = standin.course_mask()
    assert np.array_equal(y[:, :, observed], x_hat[:, :, observed])
    assert read_record(tmp_path / running.NOTEBOOK).profile == "full"
    outputs = (tmp_path / running.NOTEBOOK).read_text()
    assert "(2048, 1, 64, 64)" in outputs
    assert re.search(r"test_set\.npy: stand-in, sha256 [0-9a-f]{64}", outputs)


def test_progress_bars_leave_one_line() -> None:
    cell = nbformat.v4.new_code_cell("x")
    printed = "stderr \r 10%", "stderr \r100%\n", "stdout done\n", "stdout b\n"
    for name, text in (one.split(" ", 1) for one in printed):
        cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
    running.tidy(nbformat.v4.new_notebook(cells=[cell]))
    kept = [(out.name, out.text) for out in cell.outputs]
    assert kept == [("stderr", "100%\n"), ("stdout", "done\nb\n")]
