"""Training, by `nogaps train` and of one network: exact resume, nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nogaps.Assessment import (
    PROFILES,
    Muon,
    Options,
    augment,
    learning_rate,
    make_datasets,
    new_imputer,
    train,
    train_epoch,
)
from nogaps.filling import TrainedOn
from nogaps.imputers.loading import load_imputer
from nogaps.runtime.checkpoint import RECIPE, fingerprint
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import save_npy, sha256
from nogaps.training import train_imputer

PART = (..., slice(20, 44), slice(16, 40))


def run(x: torch.Tensor, mask: torch.Tensor, path: Path, epochs: int = 3) -> tuple:
    train_set, val_set = make_datasets(x, mask, seed=0)
    imputer = new_imputer(PROFILES["smoke"], train_set.tensors[1], seed=0)
    return train(imputer, train_set, val_set, mask, path, Options(epochs, batch_size=8))


def test_stop_and_resume_gives_the_same_bits(
    tmp_path: Path, clean: torch.Tensor, mask: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, path, generator = clean[:40][PART], tmp_path / "s.safetensors", torch.random.get_rng_state()
    straight, history = run(x, mask[PART], tmp_path / "straight.safetensors")
    assert torch.equal(torch.random.get_rng_state(), generator), "the global generator was used"
    assert min(history["validation"][1:]) < history["validation"][0], "nothing was learnt"
    calls = []

    def interrupted(*arguments: object) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr("nogaps.Assessment.train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(x, mask[PART], path)
    resumed, again = run(x, mask[PART], path)
    assert len(calls) == 4, "the finished epochs were trained again"
    again["seconds"] = history["seconds"]
    assert again == history
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged"):  # it falls back to the checkpoint before
        repaired, _ = run(x, mask[PART], path)
    weights = straight.state_dict()
    for name, value in weights.items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(value, repaired.state_dict()[name]), name
    anew, _ = run(clean[40:80][PART], mask[PART], path, epochs=1)  # other data
    alone, _ = run(clean[40:80][PART], mask[PART], tmp_path / "alone.safetensors", epochs=1)
    assert all(map(torch.equal, anew.state_dict().values(), alone.state_dict().values()))


def test_datasets_are_disjoint_pairs_that_agree(clean: torch.Tensor, mask: torch.Tensor) -> None:
    x = clean + torch.arange(len(clean)).view(-1, 1, 1, 1)  # each image recognisable
    before = x.clone()
    train_set, val_set = make_datasets(x, mask, seed=3)
    assert (len(train_set), len(val_set)) == (80, 20) and torch.equal(x, before)
    y, labels = map(torch.cat, zip(train_set.tensors, val_set.tensors, strict=True))
    assert sorted(labels.amin((1, 2, 3)).floor().tolist()) == list(range(100))
    assert torch.equal(y, labels.where(mask, 0))
    again, _ = make_datasets(x, mask, seed=3)
    assert torch.equal(again.tensors[1], train_set.tensors[1])


def test_augmentation_stays_in_range_and_repeats(clean: torch.Tensor) -> None:
    x, kept = clean[:16].clone(), clean[:16].clone()
    once = augment(x, torch.Generator().manual_seed(5))
    again = augment(x, torch.Generator().manual_seed(5))
    assert torch.equal(once, again) and torch.equal(x, kept)
    assert once.shape == x.shape and once.min() >= 0 and once.max() <= 1
    assert not torch.equal(once, augment(x, torch.Generator().manual_seed(6)))


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(step, 100, peak=1.0) for step in range(100)]
    assert rates[0] < rates[4] == max(rates) == 1.0
    assert rates[-1] < 0.01 and rates[4:] == sorted(rates[4:], reverse=True)


def test_states_name_the_recipe_that_the_notebook_has() -> None:
    highest = max(learning_rate(step, 1000) for step in range(1000))
    assert f"{Muon.__name__}, {highest:g}" == RECIPE, "states of another one would be continued"


def test_a_run_writes_an_imputer_and_is_not_mixed_with_another(
    tmp_path: Path, clean: torch.Tensor, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    x, y, small = (tmp_path / f"{name}.npy" for name in ("x", "y", "small"))
    for path, images in ((x, clean), (y, corrupted), (small, clean[:9])):
        save_npy(path, images[PART].numpy())
    out = tmp_path / "run"
    result = train_imputer(x, y, out, "smoke")
    loaded = load_imputer(out)
    assert result["imputer"] == str(out / "imputer.safetensors") and 0 < result["rmse"] < 0.3
    assert loaded.trained_on == TrainedOn((24, 24), fingerprint(mask[PART][0, 0]))
    assert loaded.calibration.groups == 10 and loaded.calibration.level == 0.9
    weights = sha256(out / "imputer.safetensors")
    wide = tmp_path / "wide.npy"
    save_npy(wide, clean.numpy())
    for images, options, words in (
        (x, {}, "holds a run already"),
        (x, {"resume": True, "seed": 1}, "other images or settings"),
        (small, {"resume": True}, "holds 9 images, expected at least 10"),
        (wide, {"resume": True}, "holds images of 64×64, expected 24×24"),
        (x, {"resume": True, "profile": "large"}, "large"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            train_imputer(images, y, out, **{"profile": "smoke", **options})
        assert "\n" not in str(caught.value)
    assert sha256(out / "imputer.safetensors") == weights


def test_corrupted_images_are_nothing_to_learn_from(
    tmp_path: Path, corrupted: torch.Tensor
) -> None:
    save_npy(tmp_path / "y.npy", corrupted.numpy())
    with pytest.raises(BadInput, match=r"y\.npy: is 0 wherever .* expected complete images"):
        train_imputer(tmp_path / "y.npy", tmp_path / "y.npy", tmp_path / "run", "smoke")
    assert not (tmp_path / "run").exists()
