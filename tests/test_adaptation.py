"""Adaptation to an unlabelled test set: what may teach, what may not, and when it is undone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nogaps.Assessment import PROFILES, Ensemble, corrupt, new_imputer
from nogaps.checkpoint import load_state, load_tensors, save_model
from nogaps.files import BadInput, sha256
from nogaps.imputers import adaptation
from nogaps.imputers.adaptation import Settings, adapt
from nogaps.imputers.classical import keep_observed
from nogaps.metrics import hole_mse

WINDOW = (..., slice(20, 44), slice(16, 40))
QUICK = Settings(steps=24, rate=0.02, batch_size=4, self_weight=1.0, check_every=8)


class Small(nn.Module):
    """Two members: convolutions of image and mask, with BatchNorm and Dropout."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            first = nn.Conv2d(2, 8, 5, padding=2)
            self.body = nn.Sequential(first, nn.BatchNorm2d(8), nn.Dropout2d(0.5), nn.SiLU())
            self.heads = nn.Conv2d(8, 2, 3, padding=1)
        self.shown: list[torch.Tensor] = []

    def members(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert (y[~mask.expand_as(y)] == 0).all(), "a hidden pixel was shown"
        self.shown.append(mask)
        h = self.heads(self.body(torch.cat([y, mask.expand_as(y).float()], 1)))
        return torch.where(mask, y, h.movedim(1, 0)[:, :, None])

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return keep_observed(self.members(y, mask).mean(0), y, mask)


@pytest.fixture
def small() -> Small:
    return Small().eval().requires_grad_(False)


def textures() -> torch.Tensor:
    """(12,1,24,24): every other column is another's negative, which no head teaches."""
    level = 0.2 + 0.3 * torch.rand(12, 1, 24, 1, generator=torch.Generator().manual_seed(0))
    return torch.where(torch.arange(24) % 2 == 0, level, 1 - level)


@pytest.fixture
def data(clean: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Test images of textures, their mask, and heads for "synthetic" images."""
    window = mask[WINDOW]
    return {"y": corrupt(textures(), window), "mask": window, "x": clean[WINDOW][40:64]}


def states(network: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(a, b, strict=True))


def test_a_poor_network_gets_better_without_labels(
    small: Small, data: dict[str, torch.Tensor]
) -> None:
    before, random = states(small), torch.random.get_rng_state()
    adapted, report = adapt(small, **data, settings=QUICK)
    assert torch.equal(torch.random.get_rng_state(), random), "the global generator was used"
    assert same(states(small), before), "the original was changed"
    assert report["adopted"] and all(low > 0 for _, low, _ in report["gain_db"].values())
    assert report["after"] > report["before"] and "trained" in report["disclosure"]
    y, mask = data["y"], data["mask"]
    better, worse = (hole_mse(net(y, mask), textures(), mask).mean() for net in (adapted, small))
    assert better < worse / 2
    assert not adapted.training and not any(p.requires_grad for p in adapted.parameters())
    for name, value in small.body[1].named_buffers():
        assert torch.equal(adapted.body[1].get_buffer(name), value), "BatchNorm was re-estimated"
    json.dumps(report, allow_nan=False)


def test_a_worse_network_is_rolled_back_bit_for_bit(
    small: Small, data: dict[str, torch.Tensor]
) -> None:
    good, _ = adapt(small, **data, settings=QUICK)
    wild = replace(QUICK, steps=4, rate=10.0, check_every=1, seed=1)
    adapted, report = adapt(good, **data, settings=wild)
    assert not report["adopted"] and "rolled back" in report["disclosure"]
    assert same(states(adapted), states(good))
    assert max(row[1] for row in report["history"][1:]) < report["before"]


def test_what_the_control_learns_as_well_is_not_adopted(
    small: Small, data: dict[str, torch.Tensor]
) -> None:
    adapted, report = adapt(small, **data, settings=replace(QUICK, self_weight=0.0))
    assert report["gain_db"]["over_original"][1] > 0 and report["history"] == report["control"]
    assert report["gain_db"]["over_control"] == [0, 0, 0] and not report["adopted"]
    assert same(states(adapted), states(small))


def test_what_forgets_its_task_is_not_adopted(
    small: Small, data: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, score = states(small), adaptation._task_mse
    forgot = [1.0, 100.0]  # the original's error at the true holes, then the adapted network's
    monkeypatch.setattr(adaptation, "_task_mse", lambda *args: score(*args) * forgot.pop(0))
    adapted, report = adapt(small, **data, settings=QUICK)
    assert not forgot and report["gain_db"]["over_control"][1] > 0
    assert not report["adopted"] and same(states(adapted), before)


def test_pixels_that_decide_are_neither_shown_nor_learnt_from(
    small: Small, data: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    mask = data["mask"]
    stop = adaptation.stop_pixels(mask, QUICK.seed)
    assert 0.04 < float(stop.sum() / mask.sum()) < 0.09 and not (stop & ~mask).any()
    extra = adaptation.extra_holes(mask & ~stop, QUICK.seed)
    assert not (extra & (stop | ~mask)).any() and (extra.sum((1, 2, 3, 4)) > 0).all()
    changed = data | {"y": torch.where(stop, 1 - data["y"], data["y"])}
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for given, path in zip((data, changed), paths, strict=True):
        adapt(small, **given, settings=QUICK, checkpoint=path)
    a, b = (load_state(path) for path in paths)
    assert a["history"] != b["history"]
    assert same(list(a["ema"].values()), list(b["ema"].values())), "they changed the weights"


def test_both_losses_teach(small: Small, data: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = []
    for k, given in enumerate((data, data | {"y": data["y"] / 2}, data | {"x": data["x"] / 2})):
        path = tmp_path / f"{k}.safetensors"
        adapt(small, **given, settings=QUICK, checkpoint=path)
        found.append(list(load_state(path)["ensemble"].values()))
    assert not same(found[0], found[1]) and not same(found[0], found[2])


def test_stop_and_resume_gives_the_same_bits(
    small: Small, data: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, report = adapt(small, **data, settings=QUICK)
    path, take = tmp_path / "s.safetensors", adaptation._Run.step

    def interrupted(run: adaptation._Run, step: int) -> None:
        if step == 19:
            raise KeyboardInterrupt
        take(run, step)

    monkeypatch.setattr(adaptation._Run, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt(small, **data, settings=QUICK, checkpoint=path)
    taken = []
    monkeypatch.setattr(
        adaptation._Run, "step", lambda run, step: (taken.append(step), take(run, step))
    )
    resumed, again = adapt(small, **data, settings=QUICK, checkpoint=path)
    assert taken == [*range(16, 24), *range(24)] and again == report  # then the control
    assert same(states(straight), states(resumed))
    other = replace(QUICK, seed=1)
    with pytest.raises(BadInput, match="another --out"):
        adapt(small, **data, settings=other, checkpoint=path)


def test_a_mask_without_holes_has_nothing_to_hold_out(
    small: Small, data: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match="beside a hole"):
        adapt(small, **data | {"mask": data["mask"] | True}, settings=QUICK)


def test_command_line(
    data: dict[str, torch.Tensor], tmp_path: Path, nogaps: Callable[..., object]
) -> None:
    network = new_imputer(PROFILES["smoke"], data["x"], 0)
    nn.init.constant_(network.unet.head.bias, 2.0)  # far too bright: easily improved
    ensemble = Ensemble([network])
    save_model(tmp_path / "imputer.safetensors", ensemble, ensemble.config)
    y, x, out = tmp_path / "y.npy", tmp_path / "x.npy", tmp_path / "out"
    np.save(y, data["y"].numpy())
    np.save(x, data["x"].numpy())
    command = ("adapt", y, "--images", x, "--out", out, "--model", tmp_path, "--steps", 2)
    done = nogaps(*command)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "adaptation.json").read_text())
    assert report["disclosure"] in done.stdout and report["settings"]["steps"] == 2
    before = sha256(tmp_path / "imputer.safetensors")
    tensors = [load_tensors(folder / "imputer.safetensors")[0] for folder in (tmp_path, out)]
    assert report["adopted"] != all(torch.equal(t, tensors[1][k]) for k, t in tensors[0].items())
    done = nogaps("adapt", y, "--images", x, "--out", tmp_path, "--model", tmp_path)
    assert done.returncode == 2 and "holds the imputer to adapt" in done.stderr
    assert sha256(tmp_path / "imputer.safetensors") == before
    np.save(x, data["x"][..., :20].numpy())
    with pytest.raises(BadInput, match="expected 10 or more"):
        adaptation.adapt_file(y, x, out)
    np.save(y, np.ones_like(data["y"]))
    np.save(x, data["x"].numpy())
    with pytest.raises(BadInput, match=r"y\.npy: 576 of 576 pixels observed"):
        adaptation.adapt_file(y, x, out)
