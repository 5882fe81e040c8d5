"""Every measure of two sets of images against a known answer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from nogaps.evaluation.comparison import compare_inception, nearness
from nogaps.evaluation.realism import (
    INCEPTION,
    Heads,
    feature_space,
    frechet_distance,
    half_of_groups,
    heads,
    kernel_distance,
    load_inception,
    neighbours,
    network_features,
    precision_recall,
)
from nogaps.runtime.errors import BadInput


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(n: int, side: int = 16, seed: int = 0, prefix: str = "a") -> Heads:
    x = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Heads(x, np.array([f"{prefix}/{k}" for k in range(n)]), np.arange(n))


def test_halves_keep_groups_together_and_files_even() -> None:
    groups = np.array([f"t1/{k // 10}" for k in range(100)] + [f"x/{k % 60}" for k in range(120)])
    files = np.char.partition(groups, "/")[:, 0]
    for seed in range(5):
        half = half_of_groups(groups, rng(seed))
        assert not set(groups[half]) & set(groups[~half])
        assert [half[files == file].mean() for file in ("t1", "x")] == [0.5, 0.5]
    assert half_of_groups(np.array(["a/0", "b/0", "c/0", "d/0"]), rng()).sum() == 2


def test_frechet_distance_of_gaussians() -> None:
    a = rng().normal(size=(500, 6)) @ np.diag([1, 2, 3, 1, 1, 1])
    shift = np.array([1.0, -2, 0, 0, 0.5, 0])
    assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum())
    variance = np.linalg.eigvalsh(np.cov(a, rowvar=False)).sum()
    assert frechet_distance(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(4 * variance)
    turn, b = ortho_group.rvs(6, random_state=0), rng(1).normal(size=(400, 6)) + 1
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_kernel_distance_is_the_mean_of_pairs_apart() -> None:
    a, b = rng().normal(size=(2, 20, 8))
    k = np.array([[(x @ y / 8 + 1) ** 3 for y in [*a, *b]] for x in [*a, *b]])
    apart = ~np.eye(20, dtype=bool)
    expected = k[:20, :20][apart].mean() + k[20:, 20:][apart].mean() - 2 * k[:20, 20:].mean()
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_precision_and_recall() -> None:
    real = rng().normal(size=(60, 4))
    assert not any(part.any() for part in precision_recall(real, real + 100))
    modes = np.concatenate([real, real + 100])
    # the fake ones lack a mode, and are no copies
    precise, recalled = precision_recall(modes, real + 1e-3)
    assert precise.all() and recalled.tolist() == [True] * 60 + [False] * 60


def test_planted_copies_are_nearest() -> None:
    train, x = noise(12), noise(5, seed=1).x
    x[2] = 0.5 * train.x[7] + 0.1  # darker and lighter: still the same picture
    x[3] = train.x[4]
    planted = Heads(x, np.array(list("abcde")), np.arange(5))
    near = neighbours(planted, train)
    assert near.index[[2, 3]].tolist() == [7, 4]
    assert near.distance[[2, 3]] == pytest.approx(0, abs=1e-5)
    assert near.ratio[3] < 1e-6
    assert min(near.ratio[[0, 1, 4]].min(), near.distance[[0, 1, 4]].min()) > 0.5
    assert nearness(planted, train)["memorised"] == 1
    # the next slice of the copied subject is not the second nearest: it is of the same group
    groups = np.array([*train.groups, "a/4"])
    slices = Heads(torch.cat([train.x, train.x[4:5] + 0.01]), groups, np.arange(13))
    assert neighbours(planted, slices).ratio[3] < 1e-6


def test_near_duplicates_are_counted_but_not_an_image_with_itself() -> None:
    part = noise(10)
    assert nearness(part, part)["near_duplicates"] == 0
    twice = part[np.repeat(np.arange(10), 2)]  # a file given twice holds no near-duplicates
    assert nearness(twice, twice)["near_duplicates"] == 0
    for n in (4, 10, 99):
        ids = twice.distinct(n, rng(n)) // 2
        assert len(ids) == len(set(ids)) == min(n, 10), "draws hold each image once"
    part.x[8] = part.x[1] + 0.001
    summary = nearness(part, part)
    assert summary["near_duplicates"] == 2 and summary["distance"][2] < 1e-4


def test_brightness_is_removed(clean: torch.Tensor) -> None:
    x = heads(clean[:4], list("abcd")).x
    torch.testing.assert_close(heads(0.3 * clean[:4], list("abcd")).x, x)
    assert x.max() == 1 and 0.002 < (x == 1).float().mean() < 0.01


def test_features_see_blur(clean: torch.Tensor) -> None:
    x = clean[::4]
    space = feature_space(x)
    features, blurred = space(x), space(avg_pool2d(x, 3, 1, 1))
    assert features.shape[1] <= 64
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    assert np.square(features).mean() == pytest.approx(1)
    halved = kernel_distance(features[::2], features[1::2])
    assert kernel_distance(blurred, features) > halved + 0.2


class TinyNetwork(torch.nn.Linear):
    """Means of 16 cells of the first channel; the inputs are kept in `seen`."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        vars(self).setdefault("seen", []).append(x)
        return (adaptive_avg_pool2d(x[:, :1].float() / 255, 4).flatten(1),)


def test_inception_sees_8_bit_images_in_three_channels() -> None:
    tiny, x = TinyNetwork(1, 1), noise(40).x
    x[0] = 1
    row = network_features(tiny, x)
    assert row.shape == (40, 16) and row.dtype == np.float64
    # to half a grey level
    np.testing.assert_allclose(row, adaptive_avg_pool2d(x, 4).flatten(1), atol=0.002)
    assert [tuple(batch.shape) for batch in tiny.seen] == [(32, 3, 16, 16), (8, 3, 16, 16)]
    assert tiny.seen[0].dtype == torch.uint8
    assert torch.equal(tiny.seen[0][:, 0], tiny.seen[0][:, 2])
    colour = x[:30].reshape(10, 3, 16, 16)
    network_features(tiny, colour)
    assert torch.equal(tiny.seen[2], (255 * colour).round().byte())


def test_distances_in_inceptions_space() -> None:
    def space(x: torch.Tensor) -> np.ndarray:
        return network_features(TinyNetwork(1, 1), x)

    part = noise(60)
    dark = Heads(part.x / 2, part.groups, part.ids)
    twice = dark[np.repeat(np.arange(60), 2)]
    pairs = {"same": (part, part), "darker": (part, dark), "twice": (part, twice)}
    rows = compare_inception(pairs, space, most=60, seed=0)
    assert list(rows) == list(pairs)
    assert {row["images"] for row in rows.values()} == {60}, "an image was looked at twice"
    assert rows["same"]["frechet"] == pytest.approx(0, abs=1e-6)
    expected = frechet_distance(space(part.x), space(dark.x))
    for name in ("darker", "twice"):
        assert rows[name]["frechet"] == pytest.approx(expected, rel=1e-6)
    assert abs(rows["same"]["kid"]) < rows["darker"]["kid"] / 10
    assert compare_inception(pairs, space, most=7, seed=0)["same"]["images"] == 7


class Payload:
    """Pickled code that leaves a file when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_inceptions_weights_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, path = tmp_path / "run", tmp_path / "weights.pth"
    for message, value in {
        "is damaged, or holds more than tensors": {"fc.weight": Payload(run)},
        "more than tensors": [torch.zeros(3)],
        "NaN": {"fc.weight": torch.tensor([0, torch.nan])},
    }.items():
        torch.save(value, path)
        with pytest.raises(BadInput, match=rf"^{path}: .*{message}.*{INCEPTION}"):
            load_inception(path)
    assert not run.exists(), "code in the file was run"
    with pytest.raises(BadInput, match=r"cannot be read.*expected"):
        load_inception(tmp_path)
    torch.save({"fc.weight": torch.zeros(3)}, path)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if not installed
    with pytest.raises(BadInput, match="extra `study`"):
        load_inception(path)
