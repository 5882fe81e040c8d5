"""`nogaps prior evaluate`: what it writes, what it uses again, and one line for bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nogaps import standin
from nogaps.commands import prior as cli
from nogaps.evaluation import prior as evaluation
from nogaps.evaluation.inception import WEIGHTS, Inception
from nogaps.evaluation.page import as_text
from nogaps.evaluation.prior import Settings, evaluate, evaluate_first_stage, read_frames
from nogaps.evaluation.usefulness import check_size
from nogaps.runtime.errors import BadInput
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


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty hub cache of torch: nobody's Inception weights are used."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))


def test_command(
    prior_folder: Path,
    frames: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = {"samples": samples, "classifier_steps": 2}
    cli.evaluate(tmp_path, [frames, frames], str(prior_folder), **sizes)
    text = capsys.readouterr().out
    assert "Inception distances: not available (" in text and "--inception" in text
    for words in ("heads ", "reconstructions vs train", "samples to train", "evaluation.png"):
        assert words in text
    result = load_json(tmp_path / "evaluation.json")
    assert result["inception"]["pairs"] is None and WEIGHTS in result["inception"]["reason"]
    assert result["sets"]["train"]["images"] == 32 and result["sets"]["val"]["images"] == 8
    assert result["sets"]["samples"]["images"] == 12 and "usefulness" not in result
    assert result["nearest"]["train to train"]["distance"][2] > 1e-3, "an image met its own copy"
    with Image.open(tmp_path / "evaluation.png") as page:
        assert page.width > 1000 and page.height > 1000
    assert len(list((tmp_path / "pairs").glob("*.png"))) == 16


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
    corners = Inception(lambda x: x[:, 0, ::32, ::32].flatten(1).double().numpy(), "given.pth")
    monkeypatch.setattr(evaluation, "find_inception", lambda path: corners)
    settings = Settings(4, sampling_steps=2, classifier_steps=1, usefulness_steps=1, seeds=(3,))
    result = evaluate([frames], tmp_path, settings, prior_folder)
    assert load_json(tmp_path / "evaluation.json")["inception"] == result["inception"]
    assert (tmp_path / "samples" / "images.npy").exists()
    rows, text = result["inception"]["pairs"], as_text(result)
    counts = [[row["images"] for row in part.values()] for part in (rows, result["pairs"])]
    assert counts[0] == counts[1]
    assert "not available" not in text and "given.pth" in text
    assert "samples, heads" in text and "0.50 [0.12, 1.00]" in text
    assert all(f"{row['frechet']:.3f}" in text for row in rows.values())


def test_options_reach_the_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple] = []
    monkeypatch.setattr(evaluation, "evaluate", lambda *a: calls.append(a) or {"first_stage": {}})
    options = {"seeds": [5, 7], "usefulness_steps": 9, "steps": 3, "num_samples": 8, "seed": 2}
    files = {"samples": Path("s.npy"), "inception": Path("i.pth")}
    cli.evaluate(tmp_path, [Path("a.npz")], **files, **options)
    expected = Settings(8, 3, usefulness_steps=9, seeds=(5, 7), seed=2)
    assert calls == [([Path("a.npz")], tmp_path, expected, None, *files.values())]


def test_first_stage_alone_on_a_folder_of_pictures(
    prior_folder: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "reconstruct", lambda model, x: x)  # lossless
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    images = (255 * standin.clean_images()[:3, 0, :48]).astype(np.uint8)
    for k, image in enumerate(images):
        Image.fromarray(image).save(pictures / f"{k}.png")
    out = tmp_path / "out"
    result = evaluate_first_stage([frames], out, prior_folder / "vqvae", pictures)
    assert list(result["first_stage"]) == ["heads", "pictures"]
    row = result["first_stage"]["pictures"]
    assert row["images"] == 3 and row["ssim"] == pytest.approx(1)
    assert row["gradient_energy"] == pytest.approx(1)
    assert row["psnr"] == 100, "a lossless stage must not leave infinity in the JSON"
    with Image.open(out / "pairs" / "pictures_000_original.png") as original:
        assert original.size == (64, 48) and original.mode == "L"
        assert np.corrcoef(np.asarray(original).ravel(), images[0].ravel())[0, 1] > 0.999
    assert (out / "pairs" / "pictures_002_reconstruction.png").exists()
    assert (out / "evaluation.png").exists()


def test_frames_given_twice_count_twice_in_training_only(frames: Path) -> None:
    once, twice = read_frames([frames]), read_frames([frames, frames])
    assert len(once.x) == len(twice.x) == 16 and len(twice.index) == 32
    assert np.bincount(twice.index).tolist() == [2] * 16
    assert len(twice.val["heads"][0]) == 8


def test_bad_input_is_one_line(
    prior_folder: Path, frames: Path, samples: Path, tmp_path: Path
) -> None:
    arrays = {"small": np.zeros((5, 1, 32, 32), np.float32), "blank": np.zeros((5, 64, 64), "f4")}
    arrays["odd"] = np.random.default_rng(0).random((2, 63, 64))
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    small, blank, odd = (tmp_path / f"{name}.npy" for name in arrays)
    one = tmp_path / "one.npz"
    with np.load(frames) as archive:
        np.savez(one, images=archive["images"], split=archive["split"], group=archive["split"])
    out, settings, stage = tmp_path / "out", Settings(), prior_folder / "vqvae"
    cases: dict[str, Callable[[], object]] = {
        r"small\.npy.*expected": lambda: evaluate([frames], out, settings, prior_folder, small),
        r"one\.npz.*at least 4": lambda: evaluate([one], out, settings, prior_folder, samples),
        r"absent\.npz": lambda: evaluate([tmp_path / "absent.npz"], out, settings, prior_folder),
        r"absent\.pth": lambda: evaluate(
            [frames], out, settings, prior_folder, samples, "absent.pth"
        ),
        "classifier_steps is 0": lambda: Settings(classifier_steps=0),
        "nothing to reconstruct": lambda: evaluate_first_stage([], out, stage, None),
        r"blank\.npy": lambda: evaluate_first_stage([], out, stage, blank),
        r"odd\.npy": lambda: evaluate_first_stage([], out, stage, odd),
        "expected 64×64": lambda: check_size(torch.zeros(1, 1, 32, 64), "x.npz"),
    }
    for message, call in cases.items():
        with pytest.raises(BadInput, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("options", ["stage prior", "stage usefulness_steps", "stage inception"])
def test_options_that_exclude_each_other(tmp_path: Path, options: str) -> None:
    with pytest.raises(BadInput, match=r"--stage"):
        cli.evaluate(tmp_path / "out", **dict.fromkeys(options.split(), tmp_path))
    for more, message in (({"frames": [tmp_path], "images": tmp_path}, "--images"), ({}, "--fram")):
        with pytest.raises(BadInput, match=message):
            cli.evaluate(tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()
