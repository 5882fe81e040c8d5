"""The timed benchmarks on a few images: every row is there, and the page is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from benchmarks import (
    changes,
    filling,
    limit,
    page,
    processes,
    published,
    rivals,
    sampling,
    scaling,
    timing,
    training,
)
from nogaps import Assessment
from nogaps.Assessment import corrupt
from nogaps.imputers.loading import load_imputer
from nogaps.prior.frames.heads import load_val
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.files import BadInput, load_json, save_json


def command(main: object, *arguments: object) -> str:
    app = published.typer.Typer()
    app.command()(main)
    line = list(map(str, arguments))
    return CliRunner().invoke(app, line, catch_exceptions=False).output


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def test_filling_has_every_row(results: Path) -> None:
    out = results / "filling.json"
    text = command(filling.main, "--profile", "smoke", "--out", out)
    found = load_json(out)
    names = {row["name"] for row in found["imputers"]}
    assert names >= {"kriging", "ours, fast", "ours, best", "coursework", *CLASSICAL}
    kinds = {(row["name"], row["precision"]) for row in found["imputers"]}
    assert {("ours, fast", k) for k in timing.native_precisions()} <= kinds
    psnr = {row["name"]: row["hole_psnr"] for row in found["imputers"]}
    assert psnr["scikit-image biharmonic"] < psnr["ours, fast"] and psnr["coursework"] is None
    (row,) = found["files"]
    assert row["images"] == 4 and 100 < row["runs"][0]["peak_mb"] < 3000
    start = {name: row["median"] for name, row in found["start"].items()}
    assert start["python -c pass"] < start["nogaps --help"] < row["runs"][0]["seconds"]
    assert "| ours, fast | " in text and "| nogaps --help | " in text
    assert set(found["machine"]) >= {"processor", "cores", "torch", "numpy", "precision"}


CLASSICAL = ("scikit-image biharmonic", "biharmonic, all images of a mask at once")


def test_sampling_draws_what_the_pipeline_draws(results: Path, prior_folder: Path) -> None:
    out = results / "sampling.json"
    arguments = ["--prior", prior_folder, "--profile", "smoke", "--out", out]
    text = command(sampling.main, *arguments)
    rows = load_json(out)["rows"]
    assert rows[0]["way"] == {**vars(sampling.ways(True)[0])} and len(rows) >= 2
    assert "diffusers LDMPipeline, ddim | 4 | fp32 |" in text
    for row in rows:
        assert row["images_per_second"]["median"] > 0 and row["scores"]["frechet"] > 0


def test_pipeline_and_ours_agree(prior: object) -> None:
    theirs = sampling.Way(sampling.PIPELINE, "ddim", 4, "fp32")
    ours = sampling.Way("ours", "ddim", 4, "fp32")
    drawn = [
        sampling.draw(prior, way, sampling.image_generators(0, 0, 2)) for way in (theirs, ours)
    ]
    torch.testing.assert_close(*drawn, atol=1e-4, rtol=0)


def test_limit_adds_up(results: Path) -> None:
    out = results / "limit.json"
    command(limit.main, "--profile", "smoke", "--out", out)
    found = load_json(out)
    (one,) = found["runs"]
    assert one["mflop_per_image"]["training"] > 2.5 * one["mflop_per_image"]["filling"]
    assert set(one["share"]) == {"filling", "training step"}
    step, fill = found["profile"]["training step"], found["profile"]["filling"]
    assert sum(step.values()) == pytest.approx(1) == pytest.approx(sum(fill.values()))
    parts = {"3×3 convolutions", "BatchNorm", "SiLU", "augmentation", "optimiser", "kriging"}
    assert parts <= set(step) and "optimiser" not in fill and step["the rest"] < 0.5


def test_changes_undo_one_thing_each(results: Path) -> None:
    out = results / "changes.json"
    text = command(changes.main, "--profile", "smoke", "--out", out)
    (one,) = load_json(out)["runs"]
    for work, rows in changes.CHANGES.items():
        assert list(one[work]) == [row.name for row in rows]
    assert text.count("(as it is: ") == sum(len(rows) - 1 for rows in changes.CHANGES.values())
    x_hat = [changes.filling(change, 4)() for change in changes.CHANGES["filling"]]
    assert all(torch.allclose(x_hat[0], other, atol=0.05) for other in x_hat[1:])


def test_undone_fusing_runs_layer_by_layer() -> None:
    with torch.no_grad():
        counts = []
        for change in changes.CHANGES["filling"][:2]:
            with torch.profiler.profile() as found:
                changes.filling(change, 2)()
            counts.append(sum("silu" in event.name for event in found.events()))
    assert counts[0] < counts[1]


def test_dense_operations_are_those_that_torch_counts() -> None:
    for backward in (False, True):
        work, flops = limit.dense(4, 6, 2, "fp32", backward)
        assert limit.count(work) == flops


@pytest.fixture
def recipe(tmp_path: Path, frames_file: Path) -> Path:
    log = [{"epoch": e, "seconds": 9.0 * e, "loss": 0.1, "score": 14.0 + e} for e in (1, 2, 3)]
    row = {"log": log, "extrapolated_psnr": None, "scored_on": fingerprint(load_val([frames_file]))}
    save_json(tmp_path / "published" / "published.json", {"coursework": row})
    return tmp_path / "published"


def test_training_is_logged_and_continued(
    results: Path, recipe: Path, frames_file: Path, clean: torch.Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", clean[:40].numpy())
    out, figure = results / "training.json", tmp_path / "training.png"
    line = [tmp_path / "images.npy", frames_file, "--published", recipe, "--profile", "smoke"]
    line += ["--schedules", "1,2", "--folder", tmp_path / "runs", "--out", out, "--figure", figure]
    with pytest.raises(BadInput, match="holds no log"):
        command(training.main, *line, "--rates-only")
    command(training.main, *line)
    first = load_json(out)
    assert [len(log) for log in first["logs"].values()] == [1, 2]
    left = [load_imputer(tmp_path / "runs" / f"{epochs}.safetensors") for epochs in (1, 2)]
    assert [len(one.networks) for one in left] == [1, 1], "benchmarks.hidden ranks them"
    row = first["logs"]["2"][1]
    assert row["epoch"] == 2 and row["seconds"] > 0 and row["val"] == row["frames"] > 15
    assert first["compared"]["recipe"]["best_psnr"] == 17
    assert first["compared"]["times_faster_than_150_epochs"] > 1
    assert figure.stat().st_size > 10_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TRAIN_EPOCH", None)  # nothing is left to train
        text = command(training.main, *line)
    assert (
        load_json(out)["logs"] == first["logs"]
        and "times faster than its 150 epochs" in text
        and "recipe, 3 | " in text
    )
    (recipe / "published.json").write_text(
        json.dumps({"coursework": {"log": [1], "scored_on": ""}})
    )
    with pytest.raises(BadInput, match="other heads"):
        command(training.main, *line)


def test_an_interrupted_training_keeps_its_log(
    clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = Assessment.make_datasets(clean[:40], mask, 0)
    epoch = training.TRAIN_EPOCH

    def run(folder: str) -> list[dict]:
        def score(network: torch.nn.Module) -> dict[str, float]:
            return {"val": float(next(network.parameters()).detach().sum())}

        return training.train_schedule(2, sets, mask, score, tmp_path / folder, "smoke")

    calls = iter([epoch, None])
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(training, "TRAIN_EPOCH", lambda *a: next(calls)(*a))
        run("runs")
    continued, whole = run("runs"), run("at once")
    assert [row["val"] for row in continued] == [row["val"] for row in whole]


def test_curves_are_compared_at_equal_accuracy_and_equal_time() -> None:
    log = [{"epoch": e, "seconds": 0, "score": s} for e, s in ((1, 20.0), (2, 24.0), (3, 23.0))]
    ours = {"1": [{"epoch": 1, "val": 22.0}]}
    ours["4"] = [{"epoch": e, "val": 20.0 + e} for e in (1, 2, 3, 6)]
    rates = {"ours": 10.0, "recipe": 30.0}
    found = training.compare({"log": log, "extrapolated_psnr": None}, ours, rates)
    assert found["schedule_that_reaches"] == 4 and found["reaches_after_seconds"] == 40
    assert found["times_faster_than_150_epochs"] == 150 * 30 / 40
    assert found["times_faster_than_its_best"] == 2 * 30 / 40
    assert found["reaches_between_schedules"] == pytest.approx(10 + 30 * 2 / 4)
    assert found["recipe_by_then"] == 20 and found["more_db_than_its_best"] == 2
    none = training.compare({"log": log, "extrapolated_psnr": None}, {"1": ours["1"]}, rates)
    assert none["times_faster_than_150_epochs"] is None and none["recipe_by_then"] is None


def test_scaling_finds_the_law(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def filled(folder: Path, name: str, threads: int) -> int:
        sizes.append(len(np.load(folder / f"{name}.npy", mmap_mode="r")))
        return sizes[-1]

    def finish(images: int) -> dict[str, float]:
        return {"seconds": 0.1 * images**2, "peak_mb": 300.0}

    monkeypatch.setattr(scaling, "filling", filled)
    monkeypatch.setattr(scaling.processes, "finish", finish)
    command(scaling.main, "--profile", "smoke", "--out", results / "scaling.json")
    laws = load_json(results / "scaling.json")["images"]["laws"]
    assert laws["seconds"]["exponent"] == pytest.approx(2)
    assert laws["peak_mb"]["exponent"] == pytest.approx(0)
    assert len(set(sizes)) == 2


def test_page_is_made_of_what_was_measured(results: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before.md", tmp_path / "after.md"
    command(page.main, "--results", tmp_path, "--out", before)
    assert before.read_text().count("\nnot measured\n") == len(page.SECTIONS)
    names = {path.stem for path in results.iterdir()}
    if len(names) < 5:
        pytest.skip("the tests above were not run in this process")
    for out in (after, tmp_path / "again.md"):
        command(page.main, "--results", results, "--out", out)
    text = after.read_text()
    assert text == (tmp_path / "again.md").read_text()
    assert text.count("\nnot measured\n") == len(page.SECTIONS) - len(names)
    assert "| ours, fast | " in text and "diffusers LDMPipeline" in text
    (tmp_path / "filling.json").write_text('{"machine": {}}')
    with pytest.raises(BadInput, match="expected a new run"):
        command(page.main, "--results", tmp_path, "--out", after)


def test_committed_page_is_that_of_the_committed_files(tmp_path: Path) -> None:
    command(page.main, "--out", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "benchmarks.md").read_text()


# what they share -------------------------------------------------------------------------------


def test_turns_are_taken() -> None:
    calls: list[str] = []
    work = {name: lambda name=name: calls.append(name) for name in "ab"}
    clock = iter(range(99))
    found = timing.interleaved(work, 2, clock=lambda: next(clock))
    assert calls == list("ababab") and found == {"a": [1, 1], "b": [1, 1]}
    assert len(timing.interleaved(work, 9, seconds=0)["a"]) == 1, "one turn is always made"
    calls.clear()
    timing.interleaved(work, 2, warm=True)
    assert calls == list("ab" + "aabb" * 2)


def test_spread_rate_and_exponent() -> None:
    assert timing.spread([4, 1, 2, 3, 5]) == {"median": 3, "low": 2, "high": 4, "repetitions": 5}
    assert timing.said(timing.rate([0.5], 10)) == "20.0" and timing.said(None) == "not measured"
    law = timing.exponent([1, 10, 100], [5, 50 * 10**0.5, 5000])
    assert law["exponent"] == pytest.approx(1.5) and law["r2"] == pytest.approx(1)


def test_precision_and_threads_are_put_back(clean: torch.Tensor) -> None:
    before = Assessment.autocast_dtype, torch.get_num_threads()
    with timing.precision("fp32"), timing.threads(before[1] + 1):
        assert Assessment.autocast_dtype(timing.CPU) is None
        assert torch.get_num_threads() == before[1] + 1
    assert (Assessment.autocast_dtype, torch.get_num_threads()) == before


def test_a_failed_process_is_named() -> None:
    with pytest.raises(BadInput, match=r"a measured process failed: .*--what"):
        processes.alone("nogaps", "--what")


@pytest.mark.parametrize("name", rivals.rivals(small=True))
def test_rivals_fill(name: str, clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path) -> None:
    y = corrupt(clean[:2], mask)
    impute = rivals.rivals(small=True)[name]
    x_hat = impute(y, mask)
    assert x_hat.shape == y.shape and x_hat.dtype == torch.float32
    assert torch.equal(x_hat[mask.expand_as(y)], y[mask.expand_as(y)])
    if name != "coursework":
        error, black = ((x_hat - clean[:2]) ** 2).mean(), ((y - clean[:2]) ** 2).mean()
        assert error < 0.2 * black
    np.save(tmp_path / "y.npy", np.resize(corrupt(clean, mask), (12, 1, 64, 64)))
    line = [name, tmp_path / "y.npy", tmp_path / "x_hat.npy", "--profile", "smoke"]
    command(rivals.main, *line)
    np.testing.assert_allclose(np.load(tmp_path / "x_hat.npy")[:2], x_hat, atol=0.02)
