"""What `nogaps report` writes, and what it refuses."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from in_process import called
from submissions import GOOD, clear, edited, markdown, stream, write_submission

from nogaps.report import duration
from nogaps.report.cells import terminal
from nogaps.submission.notebook import load_notebook, outputs, pictures

CELLS = load_notebook(ROOT / "Assessment.ipynb").cells
CODE = [cell for cell in CELLS if cell.cell_type == "code"]
OUTPUTS = [out for cell in CELLS for out in outputs(cell)]
PNGS = [encoded for out in OUTPUTS for encoded in pictures(out)]


def test_every_output_is_there_and_the_run_in_numbers(report: Path) -> None:
    html = report.read_text()
    words = " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
    printed = [out.text for out in OUTPUTS if out.output_type == "stream"]
    assert printed and all(" ".join(terminal(one).split()) in words for one in printed)
    drawn = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert PNGS and list(map(base64.b64decode, drawn)) == list(map(base64.b64decode, PNGS))
    numbers = [int(n) for n in re.findall(r'class="count">\[(\d+)\]', html)]
    assert numbers == [cell.execution_count for cell in CODE]
    last = json.loads(CELLS[-1].outputs[-1].text)
    top = html[html.index("<header>") : html.index("</section>")]
    for value in (last["profile"], last["device"], last["result"]["sha256"], "✓ valid"):
        assert str(value) in top
    rows = {name: duration(value) for name, value in last["seconds"].items()}
    rows |= {name: f"{value:.2f}" for name, value in last["hole PSNR / dB"].items()}
    assert all(f'<th scope="row">{name}</th><td>{value}' in top for name, value in rows.items())


def test_the_same_notebook_gives_the_same_bytes(report: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    called("report", ROOT / "Assessment.ipynb", "-o", again, cwd=ROOT.parent)
    assert again.read_bytes() == report.read_bytes()
    assert len(report.read_bytes()) < 1.3 * (ROOT / "Assessment.ipynb").stat().st_size + 100_000
    assert str(ROOT) not in report.read_text()


def test_the_verdict_and_the_fixes_stand_there(tmp_path: Path) -> None:
    write_submission(tmp_path)
    page = tmp_path / "report.html"
    assert called("report", tmp_path).code == 0 and "✓ valid" in page.read_text()
    np.save(tmp_path / "test_set_nogaps.npy", GOOD[:99])
    done = called("report", tmp_path, "--json")
    result, html = json.loads(done.out), unescape(page.read_text())
    assert done.code == 1 and result["valid"] is False and result["figures"] == 3
    assert "✗ not valid" in html
    assert all(found[key] in html for found in result["findings"] for key in ("found", "fix"))
    (tmp_path / "test_set.npy").unlink()  # it cannot be checked, and has its page all the same
    done = called("report", tmp_path)
    assert done.code == 0 and "not checked: test_set.npy: not found" in done.out
    assert "not checked" in page.read_text() and str(tmp_path) not in page.read_text()
    (tmp_path / "other.ipynb").write_bytes((tmp_path / "Assessment.ipynb").read_bytes())
    done = called("report", tmp_path / "other.ipynb", "--json")
    assert "another notebook" in json.loads(done.out)["check"]


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "not executed": (edited(clear), ".", "has no outputs, expected an executed notebook"),
    "nowhere": (lambda f: None, ". -o test_set.npy/r.html", "cannot be written"),
    "test set": (lambda f: None, ". --test-set absent.npy", "absent.npy: not found"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, tmp_path: Path) -> None:
    spoil, arguments, message = BAD[name]
    write_submission(tmp_path)
    (tmp_path / "report.html").write_text("an earlier one")
    spoil(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = called("report", *arguments.split(), cwd=tmp_path)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_long_outputs_are_cut_and_strange_ones_survive(tmp_path: Path) -> None:
    write_submission(tmp_path)
    strange = {"profile": None, "a": 10**400, "hole": {"ours": 10**400, "b": 1}, "c": [[]], "d": {}}
    odd = {"output_type": "display_data", "metadata": {}}
    outs = [odd | {"data": {"image/png": 7}}, odd | {"data": {"text/plain": ["a\ud800", "5"]}}]

    def edit(cells: list[dict]) -> None:
        cells[2]["outputs"] += [stream("long " * 100_000), *outs]
        cells[7]["outputs"] = [stream(json.dumps(strange))]
        cells.append(markdown("[" * 30_000))

    edited(edit)(tmp_path)
    assert called("report", tmp_path).code == 0
    html = (tmp_path / "report.html").read_text()
    assert "more characters in the notebook" in html and len(html) < 500_000
    assert "a?5" in html and "[ ]" not in html
