"""The timed benchmarks on a few images: every row is there, and what is compared is comparable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_commands import called

from benchmarks import filling, harness, published, sampling, scaling, training
from nogaps import Assessment
from nogaps.Assessment import corrupt
from nogaps.imputers.loading import load_imputer
from nogaps.prior.frames import load_val
from nogaps.prior.loading import Prior
from nogaps.prior.sampling import image_generators
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, save_json

METHODS = {**filling.unlearnt(), "coursework": filling.networks(True)["coursework"]}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_fills(name: str, clean: torch.Tensor, mask: torch.Tensor) -> None:
    y = corrupt(clean[:2], mask)
    x_hat = METHODS[name](y, mask)
    assert x_hat.shape == y.shape and x_hat.dtype == torch.float32
    assert torch.equal(x_hat[mask.expand_as(y)], y[mask.expand_as(y)])
    if name != "coursework":
        error, black = ((x_hat - clean[:2]) ** 2).mean(), ((y - clean[:2]) ** 2).mean()
        assert error < 0.2 * black


@pytest.mark.slow
def test_filling_has_every_row(tmp_path: Path) -> None:
    text = called(filling.main, "--smoke", "--out", tmp_path / "filling.json")
    results = load_json(tmp_path / "filling.json")
    psnr = {(row["name"], row["precision"]): row["hole_psnr"] for row in results["imputers"]}
    assert {name for name, _ in psnr} == {*METHODS, "kriging", "ours, fast", "ours, best"}
    assert {("ours, fast", k) for k in (harness.native_precision(), "fp32")} <= set(psnr)
    assert psnr["scikit-image biharmonic", ""] > 15 and psnr["coursework", "fp32"] is None
    (row,) = results["files"]
    assert row["images"] == 4 and 100 < row["runs"][0]["peak_mb"] < 3000
    assert "| ours, fast | " in text
    assert set(results["machine"]) >= {"processor", "cores", "torch", "numpy", "precision"}


@pytest.mark.slow
def test_scaling_has_every_row(tmp_path: Path) -> None:
    text = called(scaling.main, "--smoke", "--out", tmp_path / "scaling.json")
    results = load_json(tmp_path / "scaling.json")
    assert [row["size"] for row in results["sizes"]] == [16, 32]
    (row,) = results["processes"]
    assert row["images_per_second"] == pytest.approx(8 / row["seconds"])
    assert "| 16×16 | " in text


def test_sampling_draws_what_the_pipeline_draws(
    prior: Prior, prior_folder: Path, frames_file: Path, tmp_path: Path
) -> None:
    theirs, ours = (
        sampling.draw(prior, sampling.Way(name, "ddim", 4, "fp32"), image_generators(0, 0, 2))
        for name in (sampling.PIPELINE, "ours")
    )
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    out = tmp_path / "sampling.json"
    arguments = [frames_file, "--prior", prior_folder, "--smoke", "--out", out]
    assert "diffusers LDMPipeline, ddim | 4 | fp32 |" in called(sampling.main, *arguments)
    rows = load_json(out)["rows"]
    assert len(rows) == len(sampling.ways(True)) >= 2
    for row in rows:
        assert row["images_per_second"]["median"] > 0 and row["scores"]["frechet"] > 0


@pytest.mark.slow
def test_training_is_logged_and_continued(
    frames_file: Path, clean: torch.Tensor, tmp_path: Path
) -> None:
    log = [{"epoch": e, "seconds": 9.0 * e, "loss": 0.1, "score": 14.0 + e} for e in (1, 2, 3)]
    row = {"log": log, "extrapolated_psnr": None, "scored_on": fingerprint(load_val([frames_file]))}
    save_json(tmp_path / "published.json", {"coursework": row})
    np.save(tmp_path / "images.npy", clean[:40].numpy())
    out, figure = tmp_path / "training.json", tmp_path / "training.png"
    line = [tmp_path / "images.npy", frames_file, "--published", tmp_path, "--smoke"]
    line += ["--schedules", "1,2", "--folder", tmp_path / "runs", "--out", out, "--figure", figure]
    called(training.main, *line)
    first = load_json(out)
    assert [len(log) for log in first["logs"].values()] == [1, 2]
    left = [load_imputer(tmp_path / "runs" / f"{epochs}.safetensors") for epochs in (1, 2)]
    assert [len(one.networks) for one in left] == [1, 1], "benchmarks.label_free ranks them"
    row = first["logs"]["2"][1]
    assert row["epoch"] == 2 and row["val"] == row["frames"] > 15
    assert first["compared"]["recipe"]["best_psnr"] == 17
    assert first["compared"]["times_faster_than_150_epochs"] > 1
    assert figure.stat().st_size > 10_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "epoch_seconds", lambda *_: first["rates"])
        patch.setattr(Assessment, "train_epoch", None)  # nothing is left to train
        text = called(training.main, *line)
    assert load_json(out)["logs"] == first["logs"]
    assert "times faster than its 150 epochs" in text and "recipe, 3 | " in text
    save_json(tmp_path / "published.json", {"coursework": {"log": [1], "scored_on": ""}})
    with pytest.raises(BadInput, match="other heads"):
        called(training.main, *line)


def test_an_interrupted_training_keeps_its_log(
    clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, epoch = Assessment.make_datasets(clean[:40], mask, 0)[0], Assessment.train_epoch

    def score(network: torch.nn.Module) -> dict[str, float]:
        return {"val": float(next(network.parameters()).detach().sum())}

    def run(folder: str) -> list[dict]:
        profile = Assessment.PROFILES["smoke"]
        return training.train_schedule(profile, pairs, mask, score, tmp_path / folder)

    calls = iter([epoch, None])
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(Assessment, "train_epoch", lambda *a: next(calls)(*a))
        run("runs")
    assert run("runs") == run("at once")


def test_the_schedule_is_the_notebooks_training(
    clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path
) -> None:
    sets, profile = Assessment.make_datasets(clean[:40], mask, 0), Assessment.PROFILES["smoke"]
    imputer = Assessment.new_imputer(profile, sets[0].tensors[1], 0)
    options = Assessment.Options(profile.epochs)
    trained, _ = Assessment.train(imputer, *sets, mask, tmp_path / "theirs", options)
    training.train_schedule(profile, sets[0], mask, lambda _: {"val": 0.0}, tmp_path)
    (ours,) = load_imputer(tmp_path / f"{profile.epochs}.safetensors").networks
    for a, b in zip(ours.state_dict().values(), trained.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_curves_are_compared_at_equal_accuracy_and_equal_time() -> None:
    log = [{"epoch": e, "seconds": 0, "score": s} for e, s in ((1, 20.0), (2, 24.0), (3, 23.0))]
    recipe, rates = {"log": log, "extrapolated_psnr": None}, {"ours": 10.0, "recipe": 30.0}
    ours = {"1": [{"epoch": 1, "val": 22.0}]}
    ours["4"] = [{"epoch": e, "val": v} for e, v in ((1, 21.0), (2, 22.0), (3, 23.0), (4, 26.0))]
    compared = training.compare(recipe, ours, rates)
    assert compared["schedule_that_reaches"] == 4
    whole = published.EPOCHS["coursework"] * 30
    assert compared["times_faster_than_150_epochs"] == whole / 40
    assert compared["times_faster_than_its_best"] == 2 * 30 / 40
    none = training.compare(recipe, {"1": ours["1"]}, rates)
    assert none["times_faster_than_150_epochs"] is None
