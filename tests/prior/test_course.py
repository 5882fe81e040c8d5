"""The course's own model: set up from its files, in the place of ours, checked, continued."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT
from course_engine import ENGINE, RUN, write_files
from in_process import called

from nogaps.prior import course
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ModuleType]:
    """The substitute, set up as in the notebook, and forgotten afterwards."""
    path = list(sys.path)
    course.set_up(write_files(tmp_path / "cw1_files.zip"), tmp_path)
    import ese_invldm

    yield ese_invldm
    sys.path[:] = path
    del sys.modules["ese_invldm"]


def test_it_is_set_up_once(engine: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "cw1_files.zip").unlink()
    before = list(sys.path)
    course.set_up(tmp_path / "cw1_files.zip", tmp_path)
    assert sys.path == before, "it was there already"
    sys.path.remove(str(tmp_path / "ese-invldm"))
    del sys.modules["ese_invldm"]
    course.set_up(tmp_path / "cw1_files.zip", tmp_path)  # another session: the folder is there
    import ese_invldm

    sys.modules["ese_invldm"] = ese_invldm
    assert ese_invldm.__file__ == engine.__file__


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            None,
            "is missing, expected the course's zip file: set COURSE_FILES",
        ),
        ("not a zip", "is not a zip file"),
        ("echo 'no network' >&2; exit 1", r"run.sh: failed \(no network\), expected a folder"),
        ("true", "it printed no error"),
    ],
)
def test_a_failed_step_is_one_line(run: str | None, message: str, tmp_path: Path) -> None:
    files = tmp_path / "cw1_files.zip"
    (tmp_path / "here").mkdir()
    if run == "not a zip":
        files.write_text(run)
    elif run:
        write_files(files, run)
    (tmp_path / "here" / "engine.py").write_text("my own")
    with pytest.raises(BadInput, match=message):
        course.set_up(files, tmp_path / "here")
    assert (tmp_path / "here" / "engine.py").read_text() == "my own", "a file was overwritten"


def test_it_takes_our_place(
    engine: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "samples"
    batches = course.generate(600, 20, 8, "ddim", 1.0, seed=0, out=out)
    assert capfd.readouterr().out == "", "the engine's lines came through"
    assert engine.CALLS == [256, 256, 88] and len(batches) == 75
    x = torch.cat(batches)
    assert torch.equal(x, torch.from_numpy(load_images(out / "images.npy")))
    assert len(torch.unique(x[:, 0, 0, 0])) > 500, "chunks of one seed"
    assert torch.equal(torch.cat(course.generate(600, 20, 8, "ddim", 1.0, seed=0)), x)
    first = torch.cat(engine.generate(256, 20, 8, "ddim", 1.0, 0)).float().clamp(0, 1)
    assert torch.equal(x[:256], first), "the first chunk is the course's own call"
    engine.CALLS.clear()
    again = course.generate(600, 20, 8, "ddim", 1.0, seed=0, out=out)
    assert torch.equal(torch.cat(again), x) and engine.CALLS == []
    with pytest.raises(BadInput, match="num_inference_steps 20, not 30"):
        course.generate(600, 30, 8, "ddim", 1.0, seed=0, out=out)


def test_an_interrupted_call_continues(
    engine: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "samples", course.generate(600, 20, 8, out=tmp_path / "whole")
    generate, calls = engine.generate, []

    def second_fails(**settings: object) -> list[torch.Tensor]:
        calls.append(settings)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(**settings)

    monkeypatch.setattr(engine, "generate", second_fails)
    with pytest.raises(KeyboardInterrupt):
        course.generate(600, 20, 8, out=out)
    x = course.generate(600, 20, 8, out=out)
    assert torch.equal(torch.cat(x), torch.cat(whole)) and len(calls) == 4


def test_temperature_and_few_steps(engine: ModuleType) -> None:
    def x(*settings: object) -> torch.Tensor:
        return torch.cat(course.generate(4, *settings))

    assert torch.equal(x(20, 4, "ddim", 0.5), x(20, 4, "ddim", 1.0))
    with pytest.warns(UserWarning, match="ddpm of the course's model is wrong with fewer steps"):
        assert not torch.equal(x(20, 4, "ddpm", 0.5), x(20, 4, "ddpm", 1.0))
    with pytest.warns(UserWarning, match="5 steps: the course recommends 10 to 50"):
        x(5, 4)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(5, 64, 64),
        torch.ones(3, 1, 64, 64),
        2 * torch.arange(5.0)[:, None, None, None].expand(5, 1, 64, 64) - 1,
        torch.full((5, 1, 64, 64), torch.nan),
    ],
)
def test_it_is_checked(
    engine: ModuleType, value: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "generate", lambda **_: list(value.split(2)))
    with pytest.raises(BadInput, match="ese_invldm: returned"):
        course.generate(5, 10, 2)


def test_an_error_of_the_engine_is_one_line(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(**_: object) -> None:
        raise RuntimeError("Weights only load failed.\nuse weights_only=False")

    monkeypatch.setattr(engine, "generate", generate)
    with pytest.raises(BadInput, match=r"failed \(RuntimeError: use weights_only=False\)"):
        course.generate(5, 10, 2)


def test_a_set_up_that_failed_is_done_again(tmp_path: Path) -> None:
    broken = "mkdir -p ese-invldm; echo 'no network' >&2; exit 1"
    files = write_files(tmp_path / "cw1_files.zip", f"test -e again || {{ {broken}; }}\n" + RUN)
    with pytest.raises(BadInput, match="no network"):
        course.set_up(files, tmp_path)
    (tmp_path / "again").touch()
    before = list(sys.path)
    course.set_up(files, tmp_path)
    assert sys.path.pop() == str((tmp_path / "ese-invldm").resolve()) and sys.path == before


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scheduler": "dpm"}, "'dpm', expected ddim or ddpm, as the course's"),
        ({"temperature": 1.01}, "expected 0 to 1, as"),
        ({"num_samples": 0}, "num_samples"),
        ({}, "ese_invldm: cannot be imported"),
    ],
)
@pytest.mark.filterwarnings("ignore:temperature")
def test_settings_that_it_does_not_take(settings: dict, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        course.generate(**{"num_samples": 5, **settings})


def test_contrast_needs_a_test_set_that_shows_something() -> None:
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(BadInput, match="no pixel is observed"):
        course.describe(x, 0 * x)


def test_through_the_command_line(engine: ModuleType, tmp_path: Path) -> None:
    options = ("--num-samples", 5, "--batch-size", 2, "--test-set", ROOT / "test_set.npy")
    grid = tmp_path / "grid.png"
    done = called("sample", "--prior", "course", "--out", tmp_path / "s", "--grid", grid, *options)
    raw = torch.cat(engine.generate(5, 20, 2, "ddim", 1.0, 42)).float().detach()
    x = raw.clamp(0, 1).numpy()
    np.testing.assert_array_equal(load_images(tmp_path / "s/images.npy"), x)
    y = np.load(ROOT / "test_set.npy")
    seen = (y != 0).any(0)
    assert f"samples: in [{raw.min():.3f}, {raw.max():.3f}], mean {x.mean():.3f}" in done.out
    ratio = x[:, seen].std(ddof=1) / y[:, seen].std(ddof=1)
    assert f"the samples' is {ratio:.2f} times that" in done.out
    assert f"{(y[:, seen] > float(raw.max())).mean():.2%} of the observed" in done.out
    assert grid.stat().st_size > 1000


@pytest.mark.slow
def test_the_notebook_with_it(tmp_path: Path) -> None:
    """Set up from the zip file; its inert temperature is noticed; nothing of it is printed."""
    import nbformat

    from nogaps import running
    from nogaps.submission.notebook import load_notebook, texts

    for name in ("nogaps", "test_set.npy"):
        (tmp_path / name).symlink_to(ROOT / name)
    notebook = nbformat.read(ROOT / running.NOTEBOOK, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('PRIOR = "shipped"', 'PRIOR = "course"')
        cell.source = cell.source.replace("MyDrive/cw1_files.zip", "cw1_files.zip")
    nbformat.write(notebook, tmp_path / running.NOTEBOOK)
    write_files(tmp_path / "cw1_files.zip", engine=ENGINE)
    running.run(tmp_path, "smoke", tmp_path)
    cells = load_notebook(tmp_path / running.NOTEBOOK).cells
    printed = "\n".join(text for cell in cells for text in texts(cell))
    assert "The temperature changes nothing: with ddim" in printed
    assert "Generating batch" not in printed and "| T" not in printed
