"""A good submission has no finding; every way to spoil it is named for what it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nogaps import standin
from nogaps.files import BadInput, sha256
from nogaps.imputers.classical import biharmonic, kriging, linear
from nogaps.submission import (
    Finding,
    check_array,
    check_notebook,
    check_submission,
    notes,
    report,
)
from nogaps.submission.notebook import printed_sha256

MASK = standin.course_mask()
TRUTH = standin.clean_images()
Y = standin.corrupted_images()
GOOD = linear()(torch.from_numpy(Y), torch.from_numpy(MASK)[None, None]).numpy()
REFERENCES = "# References\n- [Fill in holes: U-Net](https://arxiv.org/abs/1505.04597)\n"
OPEN = "## Declaration of AI use\nTODO: to be filled in by you\n"


def code(source: str, count: int | None, *outputs: dict) -> dict:
    cell = {"cell_type": "code", "metadata": {}, "source": source}
    return cell | {"execution_count": count, "outputs": list(outputs)}


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def figure() -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0K"}}


def notebook(digest: str) -> dict:
    """A small valid notebook, executed, that wrote the array with sha256 `digest`."""
    cells = [markdown("# Filling gaps")]
    for number in (1, 2, 3):
        cells.append(markdown(f"## Question {number}: part {number}\ntext"))
        cells.append(code("show()", number, stream("shown\n"), figure()))
    cells.append(code("save()", 4, stream(f"saved\ntest_set_nogaps.npy sha256: {digest}\n")))
    cells.append(code(" \n", None))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def slugs(findings: list[Finding]) -> list[str]:
    assert all("\n" not in str(finding) and finding.mend for finding in findings)
    return [finding.check for finding in findings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid submission."""
    np.save(tmp_path / "test_set.npy", Y)
    np.save(tmp_path / "test_set_nogaps.npy", GOOD)
    (tmp_path / "References.md").write_text(REFERENCES + OPEN)
    write(tmp_path, notebook(sha256(tmp_path / "test_set_nogaps.npy")))
    return tmp_path


def write(folder: Path, content: dict) -> None:
    (folder / "Assessment.ipynb").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["truth", "linear", "biharmonic", "kriging"])
def test_honest_fillings_have_no_finding(
    name: str, corrupted: torch.Tensor, mask: torch.Tensor, clean: torch.Tensor
) -> None:
    imputer = {"linear": linear(), "biharmonic": biharmonic, "kriging": kriging(clean[:40])}
    x_hat = clean if name == "truth" else imputer[name](corrupted, mask)
    assert check_array(Y, x_hat.numpy()) == []


@pytest.mark.parametrize("seed", range(6))
def test_no_false_alarm_on_other_sets_and_masks(seed: int) -> None:
    """One to 60 images, noise in the holes as of a sampler, and holes of other shapes."""
    rng = np.random.default_rng(seed)
    x = TRUTH[rng.permutation(100)[: (1, 3, 9, 10, 30, 60)[seed]]]
    mask = [MASK, MASK.T, rng.random((64, 64)) < 0.7, np.ones((64, 64), bool)][seed % 4]
    if mask.all():
        mask[20:36, 24:44] = False
    x = np.where(mask, x, np.clip(x + rng.normal(0, 0.02, x.shape), 0, 1)).astype(np.float32)
    assert check_array(x * mask, x) == []


def changed(edit: Callable[[np.ndarray], object]) -> np.ndarray:
    x = GOOD.copy()
    edit(x)
    return x


def take(*places: int) -> np.ndarray:
    return GOOD[list(places)]


def put(place: tuple, value: float | np.ndarray) -> np.ndarray:
    return changed(lambda x: x.__setitem__(place, value))


def holes(values: np.ndarray | float) -> np.ndarray:
    return np.where(MASK, Y, values).astype(np.float32)


SWAPPED = list(range(100))
SWAPPED[7], SWAPPED[60] = 60, 7
NETWORK = np.clip(GOOD + np.random.default_rng(0).normal(0, 0.03, GOOD.shape), 0, 1).astype("f4")
MEANS = (Y.sum((1, 2, 3)) / MASK.sum())[:, None, None, None]
THIN = MASK | (np.arange(64) == 25)  # a mask made by hand: one column of it taken as observed

ARRAYS: dict[str, tuple[object, list[str], str]] = {
    "range [-1,1]": (2 * GOOD - 1, ["range"], "written in [-1, 1]"),
    "range [0,255]": (255 * GOOD, ["range"], "written in [0, 255]"),
    "range overshoot": (put((3, 0, 8, np.argmin(MASK[8])), 1.2), ["range"], "1.2]"),
    "standardised": (
        (GOOD - 0.4) / 0.25,
        ["range", "scaled"],
        "a 4, b -1.6",
    ),
    "float64": (GOOD.astype(np.float64), ["dtype"], "float64"),
    "float16": (GOOD.astype(np.float16), ["dtype"], "float16"),
    "big-endian": (GOOD.astype(">f4"), ["dtype"], ">f4"),
    "uint8": ((255 * GOOD).astype(np.uint8), ["dtype"], "uint8"),
    "strings": (GOOD[:2].astype(str), ["dtype", "dropped"], "<U32"),
    "squeezed": (GOOD[:, 0], ["shape"], "(100, 64, 64)"),
    "flattened": (GOOD.reshape(100, -1), ["shape"], "(100, 4096)"),
    "channels last": (GOOD.transpose(0, 2, 3, 1), ["shape"], "(100, 64, 64, 1)"),
    "batch last": (GOOD[:, 0].transpose(1, 2, 0), ["shape"], "axes exchanged"),
    "three channels": (GOOD.repeat(3, 1), ["shape"], "(100, 3, 64, 64)"),
    "scalar": (np.zeros((), np.float32), ["shape"], "shape ()"),
    "no images": (GOOD[:0], ["shape"], "(0, 1, 64, 64)"),
    "one image too many": (take(*range(100), 0), ["shape"], "(101,"),
    "archive": ({"x_hat": GOOD}, ["unreadable"], "a dict"),
    "dropped": (np.delete(GOOD, 17, 0), ["dropped"], "no filling of input 17"),
    "last batch dropped": (GOOD[:96], ["dropped"], "no filling of inputs 96, 97, 98, 99"),
    "shuffled": (
        GOOD[np.random.default_rng(1).permutation(100)],
        ["shuffled"],
        "image 0 holds input",
    ),
    "shuffled and lossy": (NETWORK[::-1], ["shuffled"], "holds input"),
    "shuffled and scaled": (0.5 * GOOD[::-1], ["shuffled"], "image 0 holds input 99"),
    "shuffled in [-1,1]": (2 * GOOD[::-1] - 1, ["range", "shuffled"], "[-1, 1]"),
    "swapped pair": (GOOD[SWAPPED], ["shuffled"], "image 7 holds input 60; image 60"),
    "off by one": (np.roll(GOOD, -1, 0), ["shuffled"], "off by 1"),
    "off by one, last twice": (take(*range(1, 100), 99), ["shuffled"], "off by 1"),
    "duplicated": (
        put((5,), GOOD[4]),
        ["duplicated"],
        "image 5 holds input 4; no filling of input 5",
    ),
    "transposed": (GOOD.swapaxes(2, 3), ["orientation"], "transposed (rows"),
    "flipped": (GOOD[..., ::-1], ["orientation"], "flipped left to right"),
    "upside down": (GOOD[..., ::-1, :], ["orientation"], "flipped upside down"),
    "rotated": (np.rot90(GOOD, 1, (2, 3)), ["orientation"], "90° to the left"),
    "rotated back": (np.rot90(GOOD, -1, (2, 3)), ["orientation"], "90° to the right"),
    "rotated by 180": (np.rot90(GOOD, 2, (2, 3)), ["orientation"], "180°"),
    "one flipped": (put((9,), GOOD[9, :, :, ::-1]), ["orientation"], "image 9: flipped left"),
    "moved": (np.roll(GOOD, 1, 3), ["orientation"], "one column to the right"),
    "NaN": (put((2, 0, 30, 30), np.nan), ["finite"], "1 NaN and 0 infinite values in image 2"),
    "infinite": (put((2, 0), np.inf), ["finite"], "4096 infinite"),
    "NaN in the holes": (np.where(MASK, GOOD, np.nan).astype("f4"), ["finite"], "207300 NaN"),
    "one pixel changed": (put((4, 0, 0, 0), 0.5), ["observed-changed"], "1 observed pixels differ"),
    "rounded": (np.round(GOOD, 3), ["observed-changed"], "by up to 0.0005"),
    "all zero": (np.zeros_like(Y), ["observed-changed"], "by up to 1,"),
    "huge": (put((1, 0, 0, 0), 3e38), ["range", "observed-changed"], "[0, 3e+38]"),
    "not copied": (NETWORK, ["observed-changed"], "and 95 more"),
    "scaled": (0.8 * GOOD + 0.05, ["scaled"], "a 0.8, b 0.05"),
    "negative": (1 - GOOD, ["scaled"], "a -1, b 1"),
    "one image scaled": (put((8,), 0.7 * GOOD[8]), ["scaled"], "image 8: the observed"),
    "inverted mask": (np.where(MASK, NETWORK, 0), ["inverted-mask"], "missing ones kept"),
    "inverted, nothing seen": (np.where(MASK, 0.3, Y).astype("f4"), ["inverted-mask"], "95 more"),
    "only the holes": (np.where(MASK, 0, GOOD), ["inverted-mask"], "missing ones kept"),
    "input handed in": (Y, ["not-filled"], "100% of the holes"),
    "input scaled": (0.5 * Y, ["scaled", "not-filled"], "a 0.5"),
    "input in [-1,1]": (2 * Y - 1, ["range", "not-filled"], "[-1, 1]"),
    "one image not filled": (put((6,), Y[6]), ["not-filled"], "image 6"),
    "half of a hole": (put((slice(0, 9), 0, slice(0, 32)), Y[:9, 0, :32]), ["not-filled"], "0, 1"),
    "hand-made mask": (np.where(THIN, Y, GOOD), ["not-filled"], "pixels are 0 in every image"),
    "holes of one value": (holes(0.3), ["constant-fill"], "one value"),
    "holes of the mean": (holes(MEANS), ["constant-fill"], "one value"),
    "holes of a mean head": (holes(GOOD.mean(0)), ["constant-fill"], "in the holes of every"),
    "one constant": (put((6,), holes(MEANS)[6]), ["constant-fill"], "of image 6"),
    "holes of the next": (holes(np.roll(TRUTH, 1, 0)), ["seams"], "times the usual"),
    "holes too dark": (holes(0.4 * TRUTH), ["seams"], "times the usual"),
    "holes flipped": (holes(TRUTH[..., ::-1]), ["seams"], "times the usual"),
    "holes of noise": (holes(np.random.default_rng(0).random(Y.shape)), ["seams"], "times the"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_spoilt_array_is_named(name: str) -> None:
    x_hat, expected, words = ARRAYS[name]
    before = np.array(x_hat, copy=True) if isinstance(x_hat, np.ndarray) else None
    findings = check_array(Y, x_hat)
    assert slugs(findings) == expected, "\n".join(map(str, findings))
    assert any(words in finding.found for finding in findings), findings
    if before is not None and before.dtype.kind == "f":
        assert np.array_equal(before, x_hat, equal_nan=True), "the input was changed"


@pytest.mark.parametrize("y", [Y[:, 0], TRUTH, np.zeros_like(Y), Y[:0]])
def test_bad_test_set_is_bad_input(y: np.ndarray) -> None:
    with pytest.raises(BadInput, match=r"test set: .*expected"):
        check_array(y, GOOD)


def test_valid_folder(folder: Path) -> None:
    assert check_submission(folder) == []
    (row,) = report([folder])
    assert row["valid"] and row["findings"] == [] and "integrity form" in row["notes"][0]
    (folder / "test_set.npy").rename(folder / "elsewhere.npy")
    assert check_submission(folder, folder / "elsewhere.npy") == []
    with pytest.raises(BadInput, match="not found"):
        check_submission(folder)
    (folder / "elsewhere.npy").write_bytes(b"text")
    with pytest.raises(BadInput, match=r"not a \.npy file"):
        check_submission(folder, folder / "elsewhere.npy")
    with pytest.raises(BadInput, match="not a folder"):
        check_submission(folder / "absent")


def edited(edit: Callable[[list[dict]], object]) -> Callable[[Path], object]:
    """Edit the cells: 0 title; 1, 3, 5 headings; 2, 4, 6 figures; 7 saves; 8 is empty."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / "Assessment.ipynb").read_text())
        edit(content["cells"])
        write(folder, content)

    return spoil


def clear(cells: list[dict], counts: bool = True) -> None:
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
            cell["execution_count"] = None if counts else cell["execution_count"]


def source(place: int, text: str) -> Callable[[Path], object]:
    return edited(lambda cells: cells[place].update(source=[text]))


def output(place: int, out: dict) -> Callable[[Path], object]:
    return edited(lambda cells: cells[place]["outputs"].append(out))


def result(data: bytes | None) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / "test_set_nogaps.npy"
        path.write_bytes(path.read_bytes()[:-1000] if data is None else data)

    return spoil


def pickled(folder: Path) -> None:
    np.save(folder / "test_set_nogaps.npy", np.array([GOOD, None], dtype=object))


def hostile_header(folder: Path) -> None:
    path = folder / "test_set_nogaps.npy"
    path.write_bytes(path.read_bytes().replace(b"'fort", b"(((((", 1))


def linked(folder: Path) -> None:
    (folder / "References.md").unlink()
    (folder / "References.md").symlink_to("/dev/zero")


def other_test_set(folder: Path) -> None:
    output(2, stream(f"test_set.npy: own file, sha256 {'0' * 64}\n"))(folder)
    np.save(folder / "test_set.npy", Y[::-1])


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "\x1b[31mno\n", "traceback": []}
FOLDERS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no notebook": (rename("Assessment.ipynb", "a.txt"), ["missing-file"], "Assessment.ipynb"),
    "notebook renamed": (rename("Assessment.ipynb", "My.ipynb"), ["notebook-name"], "My.ipynb"),
    "no array": (rename("test_set_nogaps.npy", "filled.npy"), ["missing-file"], "filled.npy"),
    "no references": (rename("References.md", "refs.md"), ["missing-file"], "rename refs.md"),
    "device": (linked, ["missing-file"], "not a regular file"),
    "array truncated": (result(None), ["unreadable"], "damaged"),
    "array empty": (result(b""), ["unreadable"], "not a .npy file"),
    "array pickled": (pickled, ["unreadable"], "pickled"),
    "array with a hostile header": (hostile_header, ["unreadable"], ".npy format"),
    "array of text": (result(b"0.1, 0.2"), ["unreadable"], "not a .npy file"),
    "notebook truncated": (text("Assessment.ipynb", '{"cells": ['), ["unreadable"], "cut short"),
    "notebook of numbers": (text("Assessment.ipynb", "[1]"), ["unreadable"], "no list of cells"),
    "notebook nested": (text("Assessment.ipynb", "[" * 99999), ["unreadable"], "not JSON"),
    "notebook, old format": (
        text("Assessment.ipynb", '{"worksheets": [], "nbformat": 3}'),
        ["unreadable"],
        "no list of cells",
    ),
    "no question": (source(3, "## The data"), ["questions"], "no heading for Question 2"),
    "question in a fence": (
        source(3, "```\n# Question 2\n```\n"),
        ["questions"],
        "no heading for Question 2",
    ),
    "order of questions": (
        edited(lambda cells: cells.insert(1, cells.pop(5))),
        ["questions", "figures"],
        "order 3, 1, 2",
    ),
    "cleared": (edited(clear), ["not-executed"], "4 of 4 code cells not executed, first cell 3"),
    "outputs cleared": (
        edited(lambda cells: clear(cells, counts=False)),
        ["not-executed"],
        "no code cell has an output",
    ),
    "one not executed": (
        edited(lambda cells: cells[4].update(execution_count=None)),
        ["not-executed"],
        "1 of 4 code cells not executed, first cell 5",
    ),
    "executed twice": (
        edited(lambda cells: cells[7].update(execution_count=9)),
        ["out-of-order"],
        "cell 8 has execution count 9, not 4",
    ),
    "cells exchanged": (
        edited(lambda cells: [c.update(execution_count=n) for c, n in zip(cells[2:6:2], (2, 1))]),  # noqa: B905
        ["out-of-order"],
        "cell 3 has execution count 2, not 1",
    ),
    "error": (output(4, ERROR), ["error-output"], "cell 5 ends in ValueError: no"),
    "no figure": (edited(lambda cells: cells[4]["outputs"].pop()), ["figures"], "in Question 2"),
    "path in source": (source(2, "open('/home/me/x.npy')"), ["machine-path"], "/home/me/x.npy"),
    "path in output": (output(4, stream("in C:\\Users\\me\n")), ["machine-path"], "cell 5"),
    "path in text": (source(3, "## Question 2\n/tmp/x"), ["machine-path"], "/tmp/x (cell 4)"),
    "path in result": (
        output(4, {"output_type": "execute_result", "data": {"text/plain": "'/Users/me/a'"}}),
        ["machine-path"],
        "/Users/me/a",
    ),
    "too large": (output(4, stream("x" * 3_000_000)), ["notebook-size"], "3.0 MB"),
    "stale": (
        lambda folder: np.save(folder / "test_set_nogaps.npy", TRUTH),
        ["stale"],
        "the notebook printed",
    ),
    "no hash": (
        edited(lambda cells: cells[7].update(outputs=[])),
        ["stale"],
        "the notebook prints none",
    ),
    "other test set": (other_test_set, ["other-test-set", "shuffled"], "0000000000000000…"),
    "references empty": (text("References.md", " \n"), ["references"], "empty"),
    "references without link": (
        text("References.md", "# References\nthe internet"),
        ["references"],
        "no link",
    ),
    "references unfinished": (
        text("References.md", REFERENCES + "- TODO\n" + OPEN),
        ["references"],
        "'TODO'",
    ),
    "references of a template": (
        text("References.md", REFERENCES + "- [Your source here]\n"),
        ["references"],
        "Your source here",
    ),
    "references binary": (
        lambda folder: (folder / "References.md").write_bytes(b"\xff\xfe\x00"),
        ["unreadable"],
        "UTF-8",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_spoilt_folder_is_named(folder: Path, name: str) -> None:
    spoil, expected, words = FOLDERS[name]
    spoil(folder)
    findings = check_submission(folder)
    assert slugs(findings) == expected, "\n".join(map(str, findings))
    assert words in " ".join(map(str, findings))
    json.dumps(report([folder]), allow_nan=False)


@pytest.mark.parametrize(
    "words",
    [
        "open('/content/drive/MyDrive/nogaps')",
        "https://github.com/home/x and https://a.org/tmp/y",
        "runs/tmp/x, ../work/y, ./home/z, ~/work/a",
    ],
)
def test_paths_that_are_no_machine_paths(folder: Path, words: str) -> None:
    source(2, words)(folder)
    assert check_notebook(folder / "Assessment.ipynb") == []


def test_malformed_cells_are_no_exception(folder: Path) -> None:
    path = folder / "Assessment.ipynb"
    for value in (None, 1, "x", [1], {"a": 1}, {"text/plain": 1, "image/png": 0}, True, -1.5):
        for key in ("cell_type", "source", "outputs", "execution_count", "metadata"):
            write(folder, notebook("0" * 64))
            edited(lambda cells, k=key, v=value: cells[2].update({k: v}))(folder)
            assert isinstance(check_notebook(path), list)
        for key in ("output_type", "text", "data", "ename"):
            write(folder, notebook("0" * 64))
            output(2, {"output_type": "error", key: value})(folder)
            slugs(check_notebook(path))
            assert printed_sha256(path, "test_set_nogaps.npy") == "0" * 64


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_notes_name_what_differs_from_head(folder: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)

    assert len(notes(folder)) == 1
    git("init", "--quiet")
    assert len(notes(folder)) == 1
    git("add", "Assessment.ipynb", "test_set_nogaps.npy")
    git("commit", "--quiet", "-m", "hand in")
    np.save(folder / "test_set_nogaps.npy", TRUTH)
    assert notes(folder)[1:] == [
        "test_set_nogaps.npy differs from what is committed",
        "References.md is not committed",
    ]
    (folder / ".git" / "HEAD").write_text("broken")
    assert len(notes(folder)) == 1
