"""The benchmarks of accuracy on small networks: every row is there, every variant differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from benchmark_commands import called

from benchmarks import ablations, harness, imputers, label_free, published, unseen
from nogaps import Assessment
from nogaps.Assessment import PROFILES, corrupt, make_datasets
from nogaps.imputers.loading import SHIPPED
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json, save_json


@pytest.fixture
def images(tmp_path: Path, clean: torch.Tensor) -> Path:
    np.save(tmp_path / "images.npy", clean[:40].numpy())
    return tmp_path / "images.npy"


def trained(name: str, clean: torch.Tensor, mask: torch.Tensor, folder: Path) -> torch.Tensor:
    """Two images as the variant fills them after one epoch."""
    profile, sets = replace(PROFILES["smoke"], epochs=1), make_datasets(clean[:40], mask, 0)
    with mock.patch.multiple(Assessment, **ablations.VARIANTS[name]):
        network = Assessment.new_imputer(profile, sets[0].tensors[1], 0)
        options = Assessment.Options(epochs=1)
        network, _ = Assessment.train(network, *sets, mask, folder / "checkpoint", options)
        return Assessment.fill(network, corrupt(clean[:2], mask), mask)


@pytest.fixture(scope="module")
def default(clean: torch.Tensor, mask: torch.Tensor, tmp_path_factory) -> torch.Tensor:
    return trained("default", clean, mask, tmp_path_factory.mktemp("default"))


@pytest.mark.parametrize("name", [name for name in ablations.VARIANTS if name != "default"])
def test_every_variant_trains_and_differs(
    name: str, tmp_path: Path, clean: torch.Tensor, mask: torch.Tensor, default: torch.Tensor
) -> None:
    x_hat = trained(name, clean, mask, tmp_path)
    assert torch.isfinite(x_hat).all() and not torch.equal(x_hat, default)
    assert torch.equal(x_hat[:, mask[0]], clean[:2][:, mask[0]])


@pytest.mark.slow
def test_ablations_compare_pairs(images: Path, frames_file: Path, tmp_path: Path) -> None:
    arguments = ["--smoke", "--epochs", "1", "--only", "residual blocks"]
    arguments += ["--folder", tmp_path / "runs", "--out", tmp_path / "a.json"]
    text = called(ablations.main, images, frames_file, *arguments)
    rows = {name: row["frames"] for name, row in load_json(tmp_path / "a.json")["rows"].items()}
    assert list(rows) == ["default", "residual blocks"]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    default, residual = rows.values()
    assert default["more_db"] == [0, 0, 0]
    difference = residual["psnr"] - default["psnr"]
    assert residual["more_db"][0] == pytest.approx(difference, abs=1e-5)
    assert "| residual blocks | " in text
    with pytest.raises(BadInput, match="--only nothing"):
        called(ablations.main, images, frames_file, "--only", "nothing")


@pytest.mark.slow
def test_published_networks_get_their_rows(images: Path, frames_file: Path, tmp_path: Path) -> None:
    folder, full = tmp_path / "published", {"frm": "of the full profile"}
    save_json(folder / "published.json", full)
    called(published.main, images, frames_file, "--out", folder, "--smoke")
    assert len(list(folder.iterdir())) == 2, "smoke wrote where the full size does"
    assert load_json(folder / "published.json") == full
    rows = load_json(folder / "smoke" / "published.json")
    assert list(rows) == ["coursework", "frm", "aspp-frm"]
    assert all(row["epochs"] == 2 and row["seconds"] > 0 for row in rows.values())
    out, figure = tmp_path / "i.json", tmp_path / "filled.png"
    line = [frames_file, "--published", folder / "smoke", "--out", out, "--figure", figure]
    called(imputers.main, *line)
    val, heads = load_json(out)["tables"].values()
    names = {"zero", "kriging (real)", *rows, "ours, fast", "ours, best"}
    assert set(val) == set(heads) >= names
    assert val["ours, best"]["more_db"] == [0, 0, 0]
    assert heads["zero"]["psnr"] < heads["linear"]["psnr"] < heads["ours, best"]["psnr"]
    assert figure.stat().st_size > 10_000
    with pytest.raises(BadInput, match="holds no network"):
        published.load_published(tmp_path)
    with pytest.raises(BadInput, match="--only nothing"):
        called(published.main, images, frames_file, "--only", "nothing")


def test_rows_that_were_not_measured_again_are_kept() -> None:
    row, last = {"psnr": 1.0}, {name: {} for name in imputers.OURS}

    def run(heads: str, methods: list[str]) -> dict:
        tables = {"val": {name: row for name in methods} | last}
        return {"heads": {"val": heads}, "training": dict.fromkeys(methods), "tables": tables}

    both = imputers.with_earlier(run("a", ["linear"]), run("a", ["linear", "frm"]))
    assert list(both["tables"]["val"]) == ["linear", "frm", *imputers.OURS]
    assert set(both["training"]) == {"linear", "frm"}
    other = imputers.with_earlier(run("a", ["linear"]), run("b", ["frm"]))
    assert "frm" not in other["tables"]["val"], "scored on other heads"


def test_extrapolation_finds_the_curve_it_was_given() -> None:
    log = [{"epoch": e, "score": -10 * np.log10(0.004 + 0.01 * e**-0.7)} for e in range(1, 61)]
    assert published.extrapolate(log, 150) == pytest.approx(0.004 + 0.01 * 150**-0.7, rel=0.02)
    assert published.extrapolate(log[:8], 150) is None


def test_scores_belong_to_the_heads_that_were_scored(
    clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path
) -> None:
    pairs = make_datasets(clean[:40], mask, 0)[0]

    def train(val: torch.Tensor) -> dict:
        return published.train_one("coursework", pairs, val, tmp_path, 9, smoke=True)

    first, again = train(clean[40:44]), train(clean[40:44])
    assert again == first, "a finished training was done again"
    other = train(clean[50:54])
    assert other["scored_on"] != first["scored_on"]
    assert other["psnr"] != first["psnr"], "the score is of the first heads"


def test_time_is_of_the_second_call(clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def impute(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(len(y))
        return imputers.zero(y, mask)

    monkeypatch.setattr(imputers.time, "perf_counter", lambda: calls.append(0) or len(calls))
    imputers.measure({"ours, best": impute}, {"heads": (clean[:3], ["a", "b", "c"])})
    assert calls == [1, 0, 3, 0], "an imputer was timed while it made its weights for the mask"


@pytest.mark.slow
def test_unseen_images_have_their_rows(
    clean: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = (255 * clean[:6, 0]).byte().numpy().repeat(2, 1).repeat(2, 2)
    split, group = np.array(["train"] * 4 + ["val"] * 2), np.arange(6).astype(str)
    np.savez(tmp_path / "few.npz", images=images, split=split, group=group)
    few = {name: (x[:2], ["a", "b"]) for name, x in (("val", clean), ("stand-in", clean))}
    monkeypatch.setattr(harness, "heads", lambda _: few)
    called(unseen.main, tmp_path / "few.npz", "--out", tmp_path / "u.json")
    results = load_json(tmp_path / "u.json")
    counts = {name: len(tables) for name, tables in results.items()}
    assert counts == {"masks": 2, "holes": 1, "sizes": 3}
    rows = [row for part in results.values() for table in part.values() for row in table.values()]
    assert len(rows) == 2 * 6 + 5 + 4
    for row in rows:
        psnr = [row["rows"][k]["psnr"] for k in ("ours", row["best_other"])]
        assert row["more_db"][0] == pytest.approx(psnr[0] - psnr[1], abs=1e-4)
        assert 0 < row["coverage"] <= 1 and row["images"] == 2
    own = results["masks"]["stand-in"]["the course's"]["rows"]
    assert own["ours"]["psnr"] > own["kriging"]["psnr"] + 2
    assert results["sizes"]["few, 128×128"].keys() == {"gaps of 2 pixels", "gaps of 4 pixels"}


def test_masks_are_of_the_kinds_that_they_say(mask: torch.Tensor) -> None:
    shares = {name: float(m.float().mean()) for name, m in unseen.other_masks(64).items()}
    assert shares["every 4th row"] == 0.75 and 0.45 < shares["random half"] < 0.55
    assert shares["shifted"] == shares["mirrored"] == shares["transposed"] == mask.float().mean()
    missing = {name: int((~m).sum()) for name, m in unseen.wide_holes(64).items()}
    assert missing["square of 8"] == 64 and missing["right half"] == 2048


@pytest.mark.slow
def test_label_free_scores_every_imputer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: torch.Tensor, mask: torch.Tensor
) -> None:
    methods = label_free.imputers([SHIPPED])
    numbered = {f"{SHIPPED}#{k}" for k in range(3)}
    assert set(methods) == {"linear", "biharmonic", "kriging", str(SHIPPED), *numbered}
    chosen = {name: methods[name] for name in ("linear", "kriging", f"{SHIPPED}#0")}
    x, small = clean[:4, :, 16:48, 16:48], mask[..., 16:48, 16:48]
    sets = {"val": (x, list("abcd")), "stand-in": (x, list("abcd"))}
    for name, value in {
        "imputers": lambda _: chosen,
        "load_imputer": lambda _: chosen["kriging"],
        "heads": lambda frames: dict(sets) if frames else {"stand-in": sets["stand-in"]},
        "course_mask": lambda: small,
    }.items():
        monkeypatch.setattr(label_free, name, value)
    np.save(tmp_path / "y.npy", corrupt(x, small).numpy())
    line = [SHIPPED, "--frames", "f.npz", "--test-set", tmp_path / "y.npy"]
    text = called(label_free.main, *line, "--out", tmp_path / "l.json")
    results = load_json(tmp_path / "l.json")
    assert list(results) == ["val", "y.npy"], "something was chosen on the stand-in"
    assert set(results["val"]["models"]) == set(results["y.npy"]) == set(chosen)
    assert "val: rank correlation 1.000" in text
    gain = {name: row["gain"]["psnr"] for name, row in results["y.npy"].items()}
    assert gain["kriging"] == 0 and gain[f"{SHIPPED}#0"] > 0 > gain["linear"]
    called(label_free.main, SHIPPED, *line[3:], "--out", tmp_path / "l.json")
    assert load_json(tmp_path / "l.json")["val"] == results["val"], "not measured again, so kept"
    with pytest.raises(BadInput, match="--frames or --test-set"):
        called(label_free.main, SHIPPED)
