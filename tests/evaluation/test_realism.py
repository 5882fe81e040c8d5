"""Every measure of two sets of images against a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from nogaps.evaluation.comparison import nearness
from nogaps.evaluation.realism import (
    Heads,
    classifier_auc,
    feature_space,
    frechet_distance,
    halves,
    heads,
    kernel_distance,
    neighbours,
    power_spectrum,
    precision_recall,
    roc_auc,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(n: int, side: int = 16, seed: int = 0, prefix: str = "a") -> Heads:
    x = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Heads(x, np.array([f"{prefix}/{k}" for k in range(n)]), np.arange(n))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    for positive, negative, auc in (([3, 4], [1, 2], 1), ([2, 5], [2, 1, 7], 3.5 / 6)):
        assert roc_auc(np.array(positive), np.array(negative)) == pytest.approx(auc)
        assert roc_auc(np.array(negative), np.array(positive)) == pytest.approx(1 - auc)


def test_classifier_tells_sets_apart_if_they_differ() -> None:
    a, b = noise(160), noise(160, seed=1, prefix="b")
    state = torch.random.get_rng_state()
    same = classifier_auc(a, b, steps=20)
    assert same == pytest.approx(0.5, abs=0.1)
    assert same == classifier_auc(a, b, steps=20), "not deterministic"
    assert torch.equal(state, torch.random.get_rng_state())
    smooth = Heads(torch.nn.functional.avg_pool2d(b.x, 3, 1, 1), b.groups, b.ids)
    assert classifier_auc(a, smooth, steps=20) > 0.99


def test_halves_keep_groups_together_and_sets_even() -> None:
    groups = np.array([f"t1/{k // 10}" for k in range(100)] + [f"x/{k}" for k in range(60)] * 2)
    sets = np.repeat([0, 0, 1], [100, 60, 60])
    for seed in range(5):
        half = halves(groups, sets, rng(seed))
        assert not set(groups[half]) & set(groups[~half])
        for s, file in ((0, "t1"), (0, "x"), (1, "x")):
            part = half[(sets == s) & (np.char.partition(groups, "/")[:, 0] == file)]
            assert part.mean() == pytest.approx(0.5, abs=0.1)
    lonely = np.array(["a/0", "b/0", "c/0", "d/0"])
    assert halves(lonely, np.zeros(4), rng()).sum() == 2


def test_frechet_distance_of_gaussians() -> None:
    a = rng().normal(size=(500, 6)) @ np.diag([1, 2, 3, 1, 1, 1])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    shift = np.array([1.0, -2, 0, 0, 0.5, 0])
    assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum())
    variance = np.linalg.eigvalsh(np.cov(a, rowvar=False)).sum()
    assert frechet_distance(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(4 * variance)
    turn, b = ortho_group.rvs(6, random_state=0), rng(1).normal(size=(400, 6)) + 1
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_kernel_distance_is_unbiased() -> None:
    draws = rng().normal(size=(400, 2, 20, 8))
    values = np.array([kernel_distance(a, b) for a, b in draws])
    assert abs(values.mean()) < 3 * values.std() / 20 and values.min() < 0
    assert kernel_distance(draws[0, 0], draws[0, 1] + 1) > 5 * values.std()
    a, b = draws[0]
    k = np.array([[(x @ y / 8 + 1) ** 3 for y in [*a, *b]] for x in [*a, *b]])
    apart = ~np.eye(20, dtype=bool)
    expected = k[:20, :20][apart].mean() + k[20:, 20:][apart].mean() - 2 * k[:20, 20:].mean()
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_precision_and_recall() -> None:
    real = rng().normal(size=(60, 4))
    assert all(part.all() for part in precision_recall(real, real))
    assert not any(part.any() for part in precision_recall(real, real + 100))
    modes = np.concatenate([real, real + 100])
    precise, recalled = precision_recall(modes, real)  # the fake ones lack a mode
    assert precise.all() and recalled.tolist() == [True] * 60 + [False] * 60


def test_planted_copies_are_nearest() -> None:
    train = noise(12)
    near = neighbours(noise(5, seed=1), train)
    assert near.distance.min() > 0.5 and near.ratio.min() > 0.5
    x = noise(5, seed=1).x
    x[2] = 0.5 * train.x[7] + 0.1  # darker and lighter: still the same picture
    x[3] = train.x[4]
    planted = Heads(x, np.array(list("abcde")), np.arange(5))
    near = neighbours(planted, train)
    assert near.index[[2, 3]].tolist() == [7, 4]
    assert near.distance[[2, 3]] == pytest.approx(0, abs=1e-5)
    assert near.ratio[3] < 1e-6 and near.ratio[[0, 1, 4]].min() > 0.5
    assert nearness(planted, train)["memorised"] == 1
    # the next slice of the copied subject is not the second nearest: it is of the same group
    groups = np.array([*train.groups, "a/4"])
    slices = Heads(torch.cat([train.x, train.x[4:5] + 0.01]), groups, np.arange(13))
    assert neighbours(planted, slices).ratio[3] < 1e-6


def test_near_duplicates_are_counted_but_not_an_image_with_itself() -> None:
    part = noise(10)
    assert nearness(part, part)["near_duplicates"] == 0
    part.x[8] = part.x[1] + 0.001
    summary = nearness(part, part)
    assert summary["near_duplicates"] == 2 and summary["distance"][2] < 1e-4
    for n in (4, 10, 99):
        ids = part[np.repeat(np.arange(10), 2)].distinct(n, rng(n)) // 2
        assert len(ids) == len(set(ids)) == min(n, 10), "draws hold each image once"
    twice = part[np.repeat(np.arange(8), 2)]  # a file given twice holds no near-duplicates
    assert nearness(twice, twice)["near_duplicates"] == 0


@pytest.mark.parametrize("cycles", [3, 20])
def test_spectrum_peaks_at_the_frequency_of_a_wave(cycles: int) -> None:
    columns = torch.arange(64) * 2 * torch.pi / 64
    wave = (0.5 + 0.4 * torch.cos(cycles * columns)).expand(1, 1, 64, 64)
    assert power_spectrum(wave[..., :32, :]).shape == (16,)
    assert power_spectrum(wave).argmax() == cycles - 1
    peak = power_spectrum(wave)[cycles - 1]
    assert power_spectrum(wave.mT)[cycles - 1] == pytest.approx(peak, rel=1e-4)


def test_brightness_is_removed(clean: torch.Tensor) -> None:
    x = heads(clean[:4], list("abcd")).x
    torch.testing.assert_close(heads(0.3 * clean[:4], list("abcd")).x, x)
    assert x.max() == 1 and (x == 1).float().mean() < 0.01


def test_features_see_blur(clean: torch.Tensor) -> None:
    x = clean[::4]
    space = feature_space(x)
    features = space(x)
    assert features.shape[1] <= 64
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    assert np.square(features).mean() == pytest.approx(1)
    blurred = space(torch.nn.functional.avg_pool2d(x, 3, 1, 1))
    halved = kernel_distance(features[::2], features[1::2])
    assert kernel_distance(blurred, features) > halved + 0.2
