"""Imputers on the Hub: pushed, fetched, loaded strictly; cards say what was measured."""

# ruff: noqa: F811 (the fixture `hub`)
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from fake_hub import REPO, FakeHub, hub  # noqa: F401 (a fixture)
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from image_files import refused
from in_process import called

from nogaps import standin
from nogaps.Assessment import Ensemble, Imputer
from nogaps.imputers.intervals import Calibration
from nogaps.imputers.loading import (
    CALIBRATION,
    CONFIG,
    SHIPPED,
    WEIGHTS,
    TrainedEnsemble,
    load_imputer,
    trained_on,
    weights_fingerprint,
)
from nogaps.imputers.uncertainty import save_calibration
from nogaps.interpolation import autocovariance
from nogaps.runtime.checkpoint import load_tensors, save_model, save_tensors
from nogaps.runtime.files import load_json, save_json, sha256
from nogaps.runtime.hub import CARD

DATA = "Samples of a prior that saw nobody."
FILES = sorted([CARD, CONFIG, WEIGHTS, CALIBRATION])
ANEW = ("--data", DATA)  # says what the card is written from


@pytest.fixture
def run(tmp_path: Path, clean: torch.Tensor, mask: torch.Tensor) -> Path:
    """A run folder with two small networks, unlike kriging, and a calibration."""
    folder = tmp_path / "run"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        networks = [Imputer(autocovariance(clean[:9], lag=6), (4, 8), 8) for _ in range(2)]
        for network in networks:
            torch.nn.init.normal_(network.unet.head.weight, std=0.1)
    ensemble = Ensemble(networks)
    save_model(folder / WEIGHTS, ensemble, ensemble.config | trained_on(mask))
    terms = dict.fromkeys(("image", "spread", "contrast", "brightness"), 0.1)
    made = Calibration(0.9, 2.0, terms, 2, weights_fingerprint(ensemble), 40)
    save_calibration(folder / CALIBRATION, made, "on nobody")
    (folder / "training-0.safetensors").write_bytes(b"nobody's business")
    return folder


def push(run: Path, *arguments: object) -> tuple[int, str]:
    done = called("push", REPO, "--model", run, *arguments)
    return done.code, done.out or done.err  # an upload's progress goes to stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def filled(imputer: object, mask: torch.Tensor) -> torch.Tensor:
    return imputer(torch.from_numpy(standin.corrupted_images()[:2]), mask)


def test_a_pushed_imputer_fills_as_before(
    hub: FakeHub, run: Path, mask: torch.Tensor, tmp_path: Path
) -> None:
    code, text = push(run, *ANEW, "--yes", "--revision", "v1")
    assert (code, text) == (0, f"{REPO}: uploaded, {hub.url}/{REPO}/commit/1\n")
    assert sorted(hub.branches["v1"]) == FILES and hub.branches["main"] == {}
    here, there = load_imputer(run), load_imputer(REPO, revision="v1")
    assert there.trained_on == here.trained_on and there.trained_on.size == (64, 64)
    np.save(tmp_path / "y.npy", standin.corrupted_images()[:3])
    np.save(tmp_path / "m.npy", standin.course_mask())
    results = []
    for model in ((run,), (REPO, "--revision", "v1")):
        x, half = tmp_path / "x.npy", tmp_path / "half.npy"
        arguments = ("-o", x, "--uncertainty", half, "--mask", tmp_path / "m.npy")
        done = called("fill", tmp_path / "y.npy", *arguments, "--model", *model)
        assert done.code == 0 and "note:" not in done.out, done.err
        results.append((sha256(x), sha256(half)))
    assert results[0] == results[1]


def test_from_pretrained_is_the_same_and_strict(
    hub: FakeHub, run: Path, mask: torch.Tensor, tmp_path: Path
) -> None:
    assert push(run, *ANEW, "--yes")[0] == 0
    there = TrainedEnsemble.from_pretrained(REPO, revision="main", cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) and not there.training
    assert torch.equal(filled(there, mask), filled(load_imputer(run), mask))
    there.save_pretrained(tmp_path / "again")
    assert names(tmp_path / "again") == FILES
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == hub.branches["main"][WEIGHTS]
    card = ModelCard.load(tmp_path / "again" / CARD)
    assert card.data.library_name == "nogaps" and card.data.license is None, "a claim of nobody"
    assert load_imputer(tmp_path / "again").calibration.groups
    next(there.parameters()).add_(1)  # what is saved is what it is now
    there.save_pretrained(tmp_path / "other")
    saved, own = load_imputer(tmp_path / "other"), load_imputer(run)
    assert weights_fingerprint(saved) == weights_fingerprint(there) != weights_fingerprint(own)
    with pytest.raises(ValueError, match="loaded strictly"):
        TrainedEnsemble.from_pretrained(str(run), strict=False)


def test_what_lacks_a_part_is_not_loaded(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    assert push(run, *ANEW, "--yes")[0] == 0
    whole, (tensors, config) = hub.branches["main"], load_tensors(run / WEIGHTS)
    tensors.popitem()
    save_tensors(tmp_path / "w.safetensors", tensors, config)
    other = whole[CONFIG].replace(b'"bottleneck": 8', b'"bottleneck": 9')
    pickled = {"pytorch_model.bin": b"never fetched", "imputer.py": b"never fetched"}
    hub.branches |= {
        "p": whole | {CONFIG: other},
        "q": whole | {CONFIG: b"[]"},
        "r": whole | {WEIGHTS: (tmp_path / "w.safetensors").read_bytes()},
        "s": {CONFIG: whole[CONFIG]} | pickled,
    }
    for load, revision, message in (
        (load_imputer, "p", f"{CONFIG}: differs from the config in {WEIGHTS}"),
        (load_imputer, "q", f"{CONFIG}: holds a JSON list"),
        (load_imputer, "r", "do not fit"),
        (TrainedEnsemble.from_pretrained, "r", "do not fit"),
        (load_imputer, "s", f"{REPO}: has no {WEIGHTS}"),
        (TrainedEnsemble.from_pretrained, "s", f"{WEIGHTS}: cannot be read"),
    ):
        assert message in refused(lambda f=load, r=revision: f(REPO, revision=r))
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_dry_runs_write_the_folder_and_its_card(run: Path, tmp_path: Path) -> None:
    out, second = tmp_path / "out", tmp_path / "second"
    code, text = push(run, "--dry-run", out)
    assert code == 2 and "expected --data" in text and not out.exists()
    code, text = push(run, *ANEW, "--dry-run", out, "--licence", "mit")
    assert code == 0 and text.endswith("nothing was uploaded\n") and names(out) == FILES
    card = ModelCard.load(out / CARD)
    assert card.data.license == "mit" and card.data.eval_results is None
    assert DATA in card.text and "no scores are claimed" in card.text
    assert "the mean of 2 U-Nets" in card.text and "Trained for images of 64×64" in card.text
    (out / "notes.txt").write_text("mine")
    assert "is in use" in push(run, *ANEW, "--dry-run", out)[1] and (out / "notes.txt").exists()
    shutil.copyfile(out / CARD, run / CARD)  # the card beside the weights, as it is
    assert push(run / WEIGHTS, "--dry-run", second)[0] == 0
    assert (second / CARD).read_bytes() == (out / CARD).read_bytes()
    (run / CARD).write_text("# No metadata\n")
    code, text = push(run, "--dry-run", second)
    assert code == 2 and "has no metadata" in text


def test_scores_in_a_card_belong_to_its_weights(run: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "r.json"
    results = load_json(ROOT / "benchmarks/results/imputers.json")
    best = results["tables"]["stand-in"]["ours, best"]
    best["psnr"] = 12.3456

    def push_with(imputer: str) -> tuple[int, str]:
        save_json(path, results | {"imputer": imputer})
        return push(run, *ANEW, "--results", path, "--dry-run", out)

    own = weights_fingerprint(load_imputer(run))
    assert push_with(own)[0] == 0
    card = ModelCard.load(out / CARD)
    row = f"| **this imputer** | {best['rmse']:.4f} | 12.35 [{best['psnr_95'][0]:.2f}"
    assert row in card.text
    claimed = {(row.dataset_name, row.metric_value) for row in card.data.eval_results}
    assert ("stand-in", 12.346) in claimed
    code, text = push_with("0" * 16)
    assert code == 2 and "measured with other weights" in text
    del best["psnr_95"]
    code, text = push_with(own)
    assert code == 2 and "lacks an entry" in text and "'psnr_95'" in text and text.count("\n") == 1
    assert "12.35" in (out / CARD).read_text(), "an earlier folder was changed"


def test_the_shipped_imputer_can_be_published(hub: FakeHub, tmp_path: Path) -> None:
    """That its card is what the results say, tests/docs/test_render.py compares."""
    done = called("push", REPO, "--dry-run", tmp_path / "out", "--json")
    assert done.code == 0 and json.loads(done.out)["files"] == FILES, done.err
    assert (tmp_path / "out" / CARD).read_bytes() == (SHIPPED / CARD).read_bytes()
    here, there = load_imputer(), load_imputer(tmp_path / "out")
    assert weights_fingerprint(here) == weights_fingerprint(there)
    assert here.trained_on == there.trained_on and there.calibration.level == 0.9
    assert not hub.branches
    card = ModelCard.load(SHIPPED / CARD)
    assert card.data.license == "cc-by-sa-4.0" and card.data.library_name == "nogaps"
    name, again = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "nogaps imputer" and again == card.data.eval_results
    for source in ("masoudnickparvar", "ds000011", "IXI", "NiChart", "Not a medical device"):
        assert source in card.text
