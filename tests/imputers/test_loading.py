"""Properties that every imputer must have: one registry, the same tests for all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nogaps.Assessment import PROFILES, Ensemble, Imputer, corrupt
from nogaps.imputers.loading import TrainedEnsemble, load_imputer, weights_fingerprint
from nogaps.interpolation import autocovariance, biharmonic, kriging, linear
from nogaps.metrics import hole_scores
from nogaps.runtime.checkpoint import save_model
from nogaps.runtime.errors import BadInput

Filling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def untrained(x: torch.Tensor) -> Imputer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        imputer = Imputer(autocovariance(x), (8, 16), 16)
        torch.nn.init.normal_(imputer.unet.head.weight, std=0.1)
    return imputer.eval().requires_grad_(False)


REGISTRY: dict[str, Callable[[torch.Tensor], Filling]] = {
    "linear": lambda x: linear(),
    "biharmonic": lambda x: biharmonic,
    "kriging": kriging,
    "untrained network": untrained,
    "shipped network": lambda x: load_imputer(),
}


@pytest.fixture(scope="module", params=list(REGISTRY))
def imputer(request: pytest.FixtureRequest, clean: torch.Tensor) -> Filling:
    return REGISTRY[request.param](clean)


def test_observed_pixels_are_identical_and_holes_filled_within_range(
    imputer: Filling, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    y, seen = corrupted[:8].clone(), mask.expand(8, -1, -1, -1)
    x_hat = imputer(y, mask)
    assert x_hat.shape == y.shape and x_hat.dtype == torch.float32
    assert torch.equal(x_hat[seen], y[seen])
    assert torch.equal(y, corrupted[:8]), "the input was changed"
    hole = x_hat[~seen]
    assert hole.min() >= 0 and hole.max() <= 1 and torch.isfinite(hole).all()
    assert hole.std() > 0.1, "holes look constant"
    garbage = torch.where(mask, y, 0.77)  # what lies in the holes does not matter
    torch.testing.assert_close(imputer(garbage, mask), x_hat, rtol=0, atol=1e-5)


def test_an_image_of_any_size_depends_on_its_own_mask_alone(imputer: Filling) -> None:
    x = torch.rand(3, 1, 33, 65, generator=torch.Generator().manual_seed(1))
    masks = torch.ones(3, 1, 33, 65, dtype=torch.bool)
    masks[..., 10:20, 5:25] = False
    masks[1] = masks[1].flip(-1)
    y = corrupt(x, masks)
    x_hat = imputer(y, masks)
    assert x_hat.shape == y.shape and torch.isfinite(x_hat).all()
    assert torch.equal(x_hat[masks], y[masks])
    for k in range(3):
        alone = imputer(y[k : k + 1], masks[k : k + 1])
        torch.testing.assert_close(alone, x_hat[k : k + 1], rtol=0, atol=6e-3)


def test_shipped_imputer_is_of_the_full_profile_and_beats_kriging(
    clean: torch.Tensor, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    imputer, y, x = load_imputer(), corrupted[::10], clean[::10]
    ours, krige = (
        hole_scores(fill(y, mask), x, mask)["psnr"] for fill in (imputer, imputer.kriging)
    )
    assert np.mean(ours - krige) > 1.0
    assert len(imputer.networks) == PROFILES["full"].networks and imputer.calibration.level == 0.9
    assert len({id(network.interpolation) for network in imputer.networks}) == 1, "of one kriging"


def test_saved_imputer_fills_alike(
    tmp_path: Path, clean: torch.Tensor, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    imputer, y = Ensemble([untrained(clean), untrained(clean)]), corrupted[:3]
    for head, value in zip((n.unet.head for n in imputer.networks), (0.1, 0.3), strict=True):
        torch.nn.init.constant_(head.bias, value)
    save_model(tmp_path / "imputer.safetensors", imputer, imputer.config)
    best, fast = load_imputer(tmp_path), load_imputer(tmp_path, quality="fast")
    assert weights_fingerprint(best) == weights_fingerprint(imputer)
    torch.testing.assert_close(fast(y, mask), imputer.networks[0](y, mask), atol=5e-3, rtol=0)
    torch.testing.assert_close(best(y, mask), imputer(y, mask), atol=5e-3, rtol=0)
    torch.testing.assert_close(best.members(y, mask).mean(0), best(y, mask))
    assert not torch.equal(best(y, mask), fast(y, mask))
    with pytest.raises(BadInput, match="quality 'good' is unknown, expected fast or best"):
        load_imputer(tmp_path, quality="good")


def test_network_is_kriging_before_training(
    clean: torch.Tensor, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    network = Imputer(autocovariance(clean), (8, 16), 16).eval().requires_grad_(False)
    x_hat = network(corrupted[:4], mask)
    torch.testing.assert_close(x_hat, kriging(clean)(corrupted[:4], mask))
    assert torch.equal(copy.deepcopy(network)(corrupted[:4], mask), x_hat), "a copy after use"


def test_filling_folds_batchnorm_and_nothing_else(
    clean: torch.Tensor, corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    generator, y = torch.Generator().manual_seed(0), corrupted[:3]
    plain = Ensemble([untrained(clean)])
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    ensemble = TrainedEnsemble(list(plain.networks)).eval()
    names = list(plain.state_dict())
    for _ in range(2):
        x_hat = ensemble(y, mask)
        torch.testing.assert_close(x_hat, plain(y, mask), atol=2e-2, rtol=0)
        assert torch.equal(copy.deepcopy(ensemble)(y, mask), x_hat)
        assert list(ensemble.state_dict()) == names
        plain.networks[0].unet.head.weight.mul_(-3)  # changed weights count at once
    with torch.no_grad(), torch.autograd.profiler.profile() as profile:
        ensemble(y, mask)
    names = [event.name for event in profile.function_events]
    assert names.count("aten::silu_") == 9 and not any("norm" in name for name in names)
    ensemble.requires_grad_(True)
    assert torch.equal(ensemble(y, mask), plain(y, mask)), "to train further, nothing is folded"
    ensemble(y, mask).sum().backward()
    assert ensemble.networks[0].unet.head.weight.grad.abs().max() > 0
