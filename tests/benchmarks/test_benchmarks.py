"""The benchmark commands on small networks: every row is there, every variant changes something."""

from __future__ import annotations

import copy
import json
import os
import runpy
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner, Result

import benchmarks
from benchmarks import ablations, imputers, published, variants
from nogaps import Assessment
from nogaps.Assessment import PROFILES, corrupt, make_datasets
from nogaps.runtime.files import BadInput

SMOKE = replace(PROFILES["smoke"], epochs=2)


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lpips_vgg", "fid"):
        monkeypatch.setattr(imputers, name, lambda *_: "not available (a test)")


def command(main: object, *arguments: object) -> Result:
    app = published.typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def images(tmp_path: Path, clean: torch.Tensor) -> Path:
    np.save(tmp_path / "images.npy", clean[:40].numpy())
    return tmp_path / "images.npy"


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_every_variant_trains_and_differs(
    name: str, tmp_path: Path, clean: torch.Tensor, mask: torch.Tensor
) -> None:
    variant, train_set = variants.VARIANTS[name], make_datasets(clean, mask, 0)[0]
    size = SMOKE if variant.size is None else replace(SMOKE, widths=(16, 32), bottleneck=64)

    def trained(changed: variants.Variant) -> torch.Tensor:
        with variants.changed(changed):
            profile = SMOKE if changed.size is None else size
            imputer = Assessment.new_imputer(profile, train_set.tensors[1], 0)
            sets = (train_set, train_set)
            checkpoint = tmp_path / str(id(changed))
            made = ablations.train_network(imputer, *sets, mask, profile, checkpoint, 0)
            return Assessment.fill(made, corrupt(clean[:2], mask), mask)

    x_hat = trained(variant)
    assert torch.isfinite(x_hat).all()
    assert torch.equal(x_hat[:, mask[0]], clean[:2][:, mask[0]])
    if name != "default":
        assert not torch.equal(x_hat, trained(variants.VARIANTS["default"]))
    assert Assessment.train_epoch is variants.TRAIN_EPOCH, "a patch was left behind"


def test_ablations_compare_pairs_over_seeds(
    images: Path, frames_file: Path, tmp_path: Path
) -> None:
    arguments = ["--profile", "smoke", "--epochs", "1", "--seeds", "0,1"]
    arguments += ["--only", "sharpened up to 0.6", "--folder", tmp_path / "runs"]
    done = command(ablations.main, images, frames_file, *arguments, "--out", tmp_path / "a.json")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert list(rows) == ["default", "sharpened up to 0.6", "ensemble of 2"]
    assert len(list((tmp_path / "runs").iterdir())) == 4, "two variants of two seeds each"
    (name,) = rows["default"]
    assert rows["default"][name]["more_db"] == [0, 0, 0]
    more = rows["sharpened up to 0.6"][name]["more_db"][0]
    assert more == pytest.approx(
        rows["sharpened up to 0.6"][name]["psnr"] - rows["default"][name]["psnr"], abs=1e-5
    )
    assert "| sharpened up to 0.6 | " in done.output
    with pytest.raises(BadInput, match="--only nothing"):
        command(ablations.main, images, frames_file, "--only", "nothing")


def test_published_networks_get_their_rows(images: Path, frames_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "published.json").write_text('{"frm": "of the full profile"}')
    arguments = [images, frames_file, "--out", folder, "--profile", "smoke", "--epochs", "2"]
    done = command(published.main, *arguments)
    assert done.exit_code == 0, done.output
    assert len(list(folder.iterdir())) == 2, "smoke wrote where the full profile does"
    assert json.loads((folder / "published.json").read_text()) == {"frm": "of the full profile"}
    folder = folder / "smoke"
    found = json.loads((folder / "published.json").read_text())
    assert list(found) == ["coursework", "frm", "aspp-frm"]
    assert all(row["epochs"] == 2 and row["seconds"] > 0 for row in found.values())
    out = [tmp_path / name for name in ("i.json", "filled.png", "errors.png")]
    files = [x for pair in zip(("--out", "--figure", "--errors"), out, strict=True) for x in pair]
    done = command(imputers.main, frames_file, "--published", folder, *files)
    assert done.exit_code == 0, done.output
    measured = json.loads(out[0].read_text())
    (val, standin) = measured["tables"].values()
    assert (
        set(val) == set(standin) >= {"zero", "kriging (real)", *found, "ours, fast", "ours, best"}
    )
    assert val["ours, best"]["more_db"] == [0, 0, 0]
    assert standin["zero"]["psnr"] < standin["linear"]["psnr"] < standin["ours, best"]["psnr"]
    assert all(path.stat().st_size > 10_000 for path in out[1:])
    groups = {name: groups for name, (_, groups) in imputers.heads([frames_file]).items()}
    less = copy.deepcopy(measured)
    for rows in less["tables"].values():
        del rows["frm"]
    other = copy.deepcopy(less)
    imputers.keep_earlier(less, measured, groups)
    assert less == measured, "rows that were not measured again are lost"
    other["heads"] = dict.fromkeys(other["heads"], "other")
    imputers.keep_earlier(other, measured, groups)
    assert all("frm" not in rows for rows in other["tables"].values()), "scored on other heads"
    with pytest.raises(BadInput, match="holds no network"):
        published.load_published(tmp_path)


def test_extrapolation_finds_the_curve_it_was_given() -> None:
    log = [
        {"epoch": e, "score": -10 * np.log10(0.004 + 0.01 * e**-0.7), "loss": 0, "seconds": e}
        for e in range(1, 61)
    ]
    assert published.extrapolate(log, 150) == pytest.approx(0.004 + 0.01 * 150**-0.7, rel=0.02)
    assert published.extrapolate(log[:8], 150) is None


def test_scores_belong_to_the_heads_that_were_scored(
    clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path
) -> None:
    sets = make_datasets(clean[:40], mask, 0)

    def trained(val: torch.Tensor) -> dict:
        return published.train_one("coursework", sets, val, tmp_path, 9, published.SMOKE, 1)

    first, again = trained(clean[40:44]), trained(clean[40:44])
    assert again == first, "a finished training was done again"
    other = trained(clean[50:54])
    assert other["scored_on"] != first["scored_on"]
    assert other["psnr"] != first["psnr"], "the score is of the first heads"


def test_time_is_of_the_second_call(
    clean: torch.Tensor, mask: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def impute(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(len(y))
        return imputers.zero(y, mask)

    clock = iter(range(9))

    def now() -> float:
        calls.append(0)
        return float(next(clock))

    monkeypatch.setattr(imputers.time, "perf_counter", now)
    imputers.measure({"ours, best": impute}, {"heads": (clean[:3], ["a", "b", "c"])})
    assert calls == [1, 0, 3, 0], "an imputer was timed while it made its weights for the mask"


# the commands ----------------------------------------------------------------------------------


def module(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    return subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_unknown_profile_is_one_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = module("published", "i.npy", "f.npz", "--profile", "ful", "--out", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.strip() == "published: --profile ful: expected smoke or full"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("published", ["absent.npy", "absent.npz"]),
        ("imputers", ["absent.npz"]),
        ("masks", ["absent.npz"]),
        ("hidden", ["absent", "--frames", "absent.npz"]),
        ("uncertainty", ["absent.npz"]),
        ("sampling", ["absent.npz"]),
        ("training", ["absent.npy", "absent.npz"]),
        ("rivals", ["absent", "absent.npy", "absent.npy"]),
    ],
)
def test_bad_input_is_one_line(
    name: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.simplefilter("ignore")  # the module has been imported before
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    text = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and text.startswith(f"{name}: absent")
    assert len(text.splitlines()) == 1


def test_what_is_no_bad_input_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(sys, "argv", ["main.py"])
    with pytest.raises(ValueError, match="a bug"):
        benchmarks.run(main)
