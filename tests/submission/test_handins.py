"""Hand-ins as students make them, each written anew: errors by the course's sheet, and notes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from spoilt_arrays import ROUGH
from submissions import REFERENCES, TEN_IMAGES, Y, named

from nogaps.submission import check_submission
from nogaps.submission.arrays import RESULT
from nogaps.submission.findings import ERRORS, Finding
from nogaps.submission.notebook import NOTEBOOK

WIDGETS = {"application/vnd.jupyter.widget-state+json": {"0a1b": {"model_name": "HBoxModel"}}}
WARNING = "/home/me/miniconda3/lib/python3.10/site-packages/torch/nn.py:9: UserWarning: slow\n"


def printed(text: str) -> NotebookNode:
    return new_output("stream", text=text)


def figure(**more: object) -> NotebookNode:
    return new_output("display_data", {"image/png": TEN_IMAGES, "text/plain": "<Figure>"} | more)


def sixteen(
    counts: Sequence[int | None] = range(1, 17),
    kept: Sequence[int] = range(16),
    **colab: object,
) -> NotebookNode:
    """An executed notebook of 16 code cells under the course's three headings, as Colab has it.

    kept: The cells that have kept their outputs.
    """
    cells = [new_markdown_cell("# Deep learning coursework")]
    for place, count in enumerate(counts):
        if place in (0, 5, 10):
            question = place // 5 + 1
            share = 25 * max(1, question - 1)
            cells.append(new_markdown_cell(f"## Question {question} ({share} %)"))
        shown = [figure()] if place % 5 == 4 else [printed(f"step {place}\n")]
        shown = shown if place in kept else []
        cells.append(new_code_cell(f"step({place})", execution_count=count, outputs=shown))
    return new_notebook(cells=cells, metadata={"accelerator": "GPU", "colab": colab})


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def write(
    folder: Path,
    notebook: NotebookNode,
    names: Sequence[str] = (NOTEBOOK, RESULT, "References.md"),
    version: int = 4,
) -> None:
    (folder / names[0]).write_text(nbformat.writes(notebook, version), encoding="utf-8")
    np.save(folder / names[1], ROUGH)
    (folder / names[2]).write_text(REFERENCES)
    np.save(folder / "test_set.npy", Y)


def best_public(folder: Path) -> None:
    write(folder, sixteen([count for count in range(1, 18) if count != 8]))


def by_the_sheet_alone(folder: Path) -> None:
    notebook = sixteen()
    code(notebook)[1].outputs += [printed(WARNING), printed("x" * 3_100_000)]
    write(folder, notebook)


def execution_info(folder: Path) -> None:
    notebook = sixteen([None] * 16, [place for place in range(16) if place % 5])
    for cell in code(notebook):
        cell.metadata.executionInfo = {"status": "ok", "elapsed": 4, "user_tz": 0}
    write(folder, notebook)


def outputs_omitted(folder: Path) -> None:
    write(folder, sixteen(kept=(), private_outputs=True))


def outputs_and_counts_omitted(folder: Path) -> None:
    write(folder, sixteen([None] * 16, (), private_outputs=True))


def widgets(folder: Path) -> None:
    notebook = sixteen()
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0a1b"}}
    code(notebook)[2].outputs.append(figure(**view))
    notebook.metadata.widgets = WIDGETS
    write(folder, notebook)


def format_3(folder: Path) -> None:
    write(folder, nbformat.convert(sixteen(), 3), version=3)


def comments_only(folder: Path) -> None:
    notebook = sixteen()
    for source in ("# nothing here\n\n  # nor here", " \n"):
        notebook.cells.insert(4, new_code_cell(source))
    write(folder, notebook)


def other_names(folder: Path) -> None:
    write(folder, sixteen(), names=("CW1_final.ipynb", "filled.npy", "references_cw1.md"))


HANDINS: dict[str, tuple[Callable[[Path], None], str]] = {
    "best public": (best_public, "no-hash observed-changed out-of-order"),
    "sheet alone": (by_the_sheet_alone, "machine-path no-hash notebook-size observed-changed"),
    "executionInfo": (execution_info, "no-hash observed-changed"),
    "outputs omitted": (outputs_omitted, "no-outputs observed-changed"),
    "counts omitted": (outputs_and_counts_omitted, "not-executed observed-changed"),
    "widgets": (widgets, "no-hash observed-changed widgets"),
    "format 3": (format_3, "observed-changed unreadable"),
    "comments only": (comments_only, "no-hash observed-changed"),
    "other names": (other_names, "missing-file missing-file notebook-name"),
}


@pytest.mark.parametrize("name", HANDINS)
def test_handin_is_judged_by_the_sheet(tmp_path: Path, name: str) -> None:
    make, expected = HANDINS[name]
    make(tmp_path)
    assert sorted(named(check_submission(tmp_path)).split()) == expected.split()


def test_errors_are_what_the_sheet_forbids_or_nobody_could_mark() -> None:
    assert set(ERRORS) == {
        *("not-checked", "missing-file", "outside", "unreadable", "notebook-name"),
        *("not-executed", "no-outputs", "error-output", "figures", "widgets"),
        *("shape", "number", "finite", "range", "scaled"),
        *("orientation", "order", "inverted-mask", "not-filled"),
    }


def finding(folder: Path, check: str) -> Finding:
    return next(f for f in check_submission(folder) if f.check == check)


def test_colab_s_setting_is_named(tmp_path: Path) -> None:
    outputs_omitted(tmp_path)
    assert "Omit code cell output when saving" in finding(tmp_path, "no-outputs").fix
    outputs_and_counts_omitted(tmp_path)
    assert "Omit code cell output when saving" in finding(tmp_path, "not-executed").fix


def test_advice_on_notebooks_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    widgets(tmp_path)
    exec(finding(tmp_path, "widgets").fix.partition("stay: ")[2], {})
    checks = [f.check for f in check_submission(tmp_path)]
    assert checks == ["observed-changed", "no-hash"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        exec(finding(tmp_path, "no-hash").fix.partition("cell: ")[2], {})
    notebook = nbformat.read(NOTEBOOK, 4)
    cell = new_code_cell("hash", execution_count=17, outputs=[printed(text.getvalue())])
    notebook.cells.append(cell)
    nbformat.write(notebook, NOTEBOOK)
    assert [f.check for f in check_submission(tmp_path)] == ["observed-changed"]
    format_3(tmp_path)
    nbformat.write(nbformat.read(NOTEBOOK, 4), NOTEBOOK)  # what Jupyter does
    assert "unreadable" not in [f.check for f in check_submission(tmp_path)]
