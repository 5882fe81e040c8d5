"""`nogaps prior evaluate`: what it writes and uses again; imputers trained equally long."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import refused
from PIL import Image

from nogaps import Assessment, standin
from nogaps.Assessment import PROFILES
from nogaps.commands import prior as cli
from nogaps.evaluation import prior as evaluation
from nogaps.evaluation.comparison import as_text
from nogaps.evaluation.prior import compare_usefulness, evaluate, plan, repeated
from nogaps.runtime.files import load_json


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame file with subjects: 16 train images of 8, 8 val images of 4."""
    path = tmp_path_factory.mktemp("frames") / "heads.npz"
    images = standin.clean_images()[:96:4, 0].repeat(2, 1).repeat(2, 2)
    split = np.array(["train"] * 16 + ["val"] * 8)
    group = np.array([f"s{k // 2}" for k in range(24)])
    np.savez(path, images=(255 * images).astype(np.uint8), split=split, group=group)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "images.npy"
    np.save(path, standin.clean_images()[1:97:8])
    return path


def test_command(
    prior_folder: Path,
    frames: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.evaluate(tmp_path, [frames, frames], str(prior_folder), samples=samples)
    text = capsys.readouterr().out
    for words in ("heads ", "reconstructions vs train", "samples to train", "evaluation.png"):
        assert words in text
    result = load_json(tmp_path / "evaluation.json")
    assert not {"inception", "usefulness"} & {*result}
    counts = {name: row["images"] for name, row in result["sets"].items()}
    assert counts == {"train": 32, "val": 8, "reconstructions": 32, "samples": 12}
    assert result["nearest"]["train to train"]["distance"][2] > 1e-3, "an image met its own copy"
    with Image.open(tmp_path / "evaluation.png") as page:
        assert page.width > 1000 and page.height > 800


def test_samples_are_drawn_and_imputers_trained(
    prior_folder: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an Inception space as well, which stands beside the stated space."""

    def trained(sets: dict, val: dict, folder: Path, steps: int, seeds: tuple) -> dict:
        assert (folder, steps, seeds) == (tmp_path / "usefulness", 1, (3,))
        lengths = {name: len(x) for name, x in sets.items()}
        assert lengths == {"real": 16, "reconstructions": 16, "samples": 4}
        assert len(val["heads"][0]) == len(val["heads"][1]) == 8
        row = {"rmse": 0.1, "psnr": 20.0, "psnr_95": [19.0, 21.0]}
        lost = {"samples": {"heads": [0.5, 0.125, 1.0]}}
        return {"steps": 1, "images": 32, "scores": {"A": {"heads": row}}, "lost_db": lost}

    monkeypatch.setattr(evaluation, "compare_usefulness", trained)
    corners = lambda x: x[:, 0, ::32, ::32].flatten(1).double().numpy()  # noqa: E731
    monkeypatch.setattr(evaluation, "load_inception", lambda path: corners)
    sizes = {"num_samples": 4, "steps": 2, "usefulness_steps": 1, "seeds": (3,)}
    result = evaluate([frames], tmp_path, prior_folder, inception="given.pth", **sizes)
    assert load_json(tmp_path / "evaluation.json")["inception"] == result["inception"]
    assert (tmp_path / "samples" / "images.npy").exists()
    rows, text = result["inception"], as_text(result)
    assert [row["images"] for row in rows.values()] == [
        row["images"] for row in result["pairs"].values()
    ]
    assert "samples, heads" in text and "0.50 [0.12, 1.00]" in text
    assert all(f"{row['frechet']:.3f}" in text for row in rows.values())


def test_bad_input_is_one_line(
    prior_folder: Path, frames: Path, samples: Path, tmp_path: Path
) -> None:
    small, one, wide = (tmp_path / name for name in ("small.npy", "one.npz", "wide.npz"))
    out, same = tmp_path / "out", tmp_path / "other" / frames.name
    np.save(small, np.zeros((5, 1, 32, 32), np.float32))
    with np.load(frames) as archive:
        np.savez(one, images=archive["images"], split=archive["split"], group=archive["split"])
        images = archive["images"][..., :64]
        np.savez(wide, images=images, split=archive["split"], group=archive["group"])
    same.parent.mkdir()
    same.write_bytes(frames.read_bytes())
    for words, *arguments in (
        ("small.npy: has shape", [frames], out, prior_folder, small),
        ("at least 4", [one], out, prior_folder, samples),
        ("absent.npz", [tmp_path / "absent.npz"], out, prior_folder),
        ("absent.pth", [frames], out, prior_folder, samples, "absent.pth"),
        ("name of another frame file", [frames, same], out, prior_folder),
    ):
        assert words in refused(lambda a=arguments: evaluate(*a))
    message = refused(lambda: evaluate([wide], out, prior_folder, usefulness_steps=1))
    assert "wide.npz: holds images of 64×32 pixels, expected 64×64" in message
    assert not out.exists()


def test_every_set_is_trained_on_equally_long() -> None:
    assert plan(2) == (64, 1) and plan(64) == (2048, 1)
    assert plan(65) == (2048, 2) and plan(3840) == (2048, 60)
    x = torch.arange(5.0).view(5, 1, 1, 1)
    for n in (3, 5, 12):
        counts = repeated(x, n, seed=0).flatten().long().bincount(minlength=5)
        assert counts.sum() == n and counts.max() - counts.min() <= 1
    assert torch.equal(repeated(x, 12, 0), repeated(x, 12, 0))
    assert not torch.equal(repeated(x, 12, 0), repeated(x, 12, 1))


def test_it_continues_and_notices_other_data(
    tmp_path: Path, clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = {"heads": (clean[60:64], list("aabb"))}
    sets = {"real": clean[:20], "samples": clean[20:40]}
    epochs: list[int] = []
    real_epoch, real_train = Assessment.train_epoch, evaluation.train

    def counted(*arguments: object) -> float:
        epochs.append(1)
        return real_epoch(*arguments)

    def interrupted(*arguments: object) -> tuple:
        if epochs:
            raise KeyboardInterrupt
        return real_train(*arguments)

    def run(**other: torch.Tensor) -> dict:
        return compare_usefulness(sets | other, val, tmp_path, 1, [0], PROFILES["smoke"])

    monkeypatch.setattr(evaluation, "kriging", cache(evaluation.kriging))  # of the same images
    monkeypatch.setattr(Assessment, "train_epoch", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluation, "train", interrupted)
        run()
    result = run()
    assert len(epochs) == 2, "a finished imputer was trained again"
    psnr = {name: row["heads"]["psnr"] for name, row in result["scores"].items()}
    assert list(psnr) == ["kriging", "real, seed 0", "samples, seed 0"] and psnr["kriging"] > 15
    lost = psnr["real, seed 0"] - psnr["samples, seed 0"]
    assert result["lost_db"]["samples"]["heads"][0] == pytest.approx(lost, abs=1e-4)
    assert result["steps"] == 1 and abs(lost) < 3
    run(samples=clean[40:60])
    assert len(epochs) == 3, "other images were not trained on"
