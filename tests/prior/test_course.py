"""The course's own model: set up from its files, in the place of ours, checked, continued."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
        (None, "is missing, expected the course's zip file: set COURSE_FILES"),
        ("not a zip", "is not a zip file"),
        ("echo 'no network' >&2; exit 1", r"run.sh: failed \(no network\), expected a folder"),
        ("true", "it printed no error"),
    ],
)
def test_a_failed_step_is_one_line(run: str | None, message: str, tmp_path: Path) -> None:
    files, own = tmp_path / "cw1_files.zip", tmp_path / "engine.py"
    own.write_text("my own")
    if run == "not a zip":
        files.write_text(run)
    elif run:
        write_files(files, run)
    with pytest.raises(BadInput, match=message):
        course.set_up(files, tmp_path)
    assert own.read_text() == "my own", "a file was overwritten"


def test_a_set_up_that_failed_is_done_again(tmp_path: Path) -> None:
    broken = "mkdir -p ese-invldm; echo 'no network' >&2; exit 1"
    files = write_files(tmp_path / "cw1_files.zip", f"test -e again || {{ {broken}; }}\n" + RUN)
    with pytest.raises(BadInput, match="no network"):
        course.set_up(files, tmp_path)
    (tmp_path / "again").touch()
    before = list(sys.path)
    course.set_up(files, tmp_path)
    assert sys.path.pop() == str((tmp_path / "ese-invldm").resolve()) and sys.path == before


def test_it_takes_our_place_and_continues(
    engine: ModuleType,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, settings = tmp_path / "samples", (600, 20, 8, "ddim", 1.0, 0)
    batches = course.generate(*settings)
    assert capfd.readouterr().out == "", "the engine's lines came through"
    assert engine.CALLS == [256, 256, 88] and len(batches) == 75
    x = torch.cat(batches)
    assert len(torch.unique(x[:, 0, 0, 0])) > 500, "chunks of one seed"
    first = torch.cat(engine.generate(256, 20, 8, "ddim", 1.0, 0)).float().clamp(0, 1)
    assert torch.equal(x[:256], first), "the first chunk is the course's own call"
    engine.CALLS.clear()
    generate = engine.generate

    def second_fails(**settings: object) -> list[torch.Tensor]:
        if engine.CALLS == [256]:
            raise KeyboardInterrupt
        return generate(**settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "generate", second_fails)
        course.generate(*settings, out=out)
    for _ in range(2):  # continued, then read
        assert torch.equal(torch.cat(course.generate(*settings, out=out)), x)
        assert engine.CALLS == [256, 256, 88]
    assert torch.equal(torch.from_numpy(load_images(out / "images.npy")), x)
    with pytest.raises(BadInput, match="num_inference_steps 20, not 30"):
        course.generate(600, 30, *settings[2:], out=out)


def test_temperature_and_few_steps(engine: ModuleType) -> None:
    def x(*settings: object) -> torch.Tensor:
        return torch.cat(course.generate(4, *settings))

    assert torch.equal(x(20, 4, "ddim", 0.5), x(20, 4, "ddim", 1.0))
    with pytest.warns(UserWarning, match="ddpm of the course's model is wrong with fewer steps"):
        assert not torch.equal(x(20, 4, "ddpm", 0.5), x(20, 4, "ddpm", 1.0))
    with pytest.warns(UserWarning, match="5 steps: the course recommends 10 to 50"):
        x(5, 4)


def fails() -> None:
    raise RuntimeError("Weights only load failed.\nuse weights_only=False")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: torch.ones(5, 64, 64), "returned"),
        (lambda: torch.ones(3, 1, 64, 64), "returned"),
        (lambda: torch.arange(5.0)[:, None, None, None].expand(5, 1, 64, 64) / 2, "returned"),
        (lambda: torch.full((5, 1, 64, 64), torch.nan), "returned"),
        (fails, r"failed \(RuntimeError: use weights_only=False\)"),
    ],
)
def test_what_the_engine_makes_is_checked(
    engine: ModuleType,
    made: Callable[[], torch.Tensor],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "generate", lambda **_: list(made().split(2)))
    with pytest.raises(BadInput, match=f"ese_invldm: {message}"):
        course.generate(5, 10, 2)


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
def test_settings_that_it_does_not_take(settings: dict, text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=text):
        course.generate(**{"num_samples": 5, "out": tmp_path / "s", **settings})
    assert not (tmp_path / "s").exists()


def test_through_the_command_line(engine: ModuleType, tmp_path: Path) -> None:
    grid, test_set = tmp_path / "grid.png", ROOT / "test_set.npy"
    options = ("--num-samples", 5, "--batch-size", 2, "--test-set", test_set, "--grid", grid)
    done = called("sample", "--prior", "course", "--out", tmp_path / "s", *options)
    raw = torch.cat(engine.generate(5, 20, 2, "ddim", 1.0, 42)).float().detach()
    x, y = load_images(tmp_path / "s/images.npy"), np.load(test_set)
    np.testing.assert_array_equal(x, raw.clamp(0, 1))
    seen = (y != 0).any(0)
    assert f"samples: in [{x.min():.3f}, {x.max():.3f}], mean {x.mean():.3f}" in done.out
    ratio = x[:, seen].std(ddof=1) / y[:, seen].std(ddof=1)
    assert f"the samples' is {ratio:.2f} times that" in done.out
    assert f"{(y[:, seen] > x.max()).mean():.2%} of the observed" in done.out
    assert grid.stat().st_size > 1000
    with pytest.raises(BadInput, match="no pixel is observed"):
        course.describe(raw, 0 * raw)


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
    assert not any(text in printed for text in ("Generating batch", "IProgress", "| T"))
