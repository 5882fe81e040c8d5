"""Ensembles with intervals: calibrated, stored, read for their own weights only, in any file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import load, refused, store
from in_process import called
from torch import nn

from benchmarks.uncertainty import main
from nogaps.Assessment import PROFILES, Ensemble, Imputer, corrupt, new_imputer
from nogaps.filling.files import fill_file
from nogaps.imputers import intervals, uncertainty
from nogaps.imputers.intervals import TERMS, Calibration
from nogaps.imputers.loading import TrainedEnsemble, load_imputer, weights_fingerprint
from nogaps.interpolation import autocovariance, linear
from nogaps.runtime.checkpoint import save_model
from nogaps.runtime.errors import BadInput

WEIGHTS = dict(zip(TERMS, (0.02, 0.9, 0.2, 0.05), strict=True))


class Members(TrainedEnsemble):
    """Three members around the linear fill, whose spread grows with brightness."""

    def __init__(self, calibration: Calibration | Path | None = None) -> None:
        networks = [Imputer(torch.eye(5), (2,), 2) for _ in range(3)]
        super().__init__(networks, calibration=calibration)
        with torch.no_grad():
            for weight in self.parameters():
                weight.zero_()
        self.linear, self.bias = linear(), nn.Parameter(torch.tensor(0.01))

    def members(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x_hat = self.linear(y, mask)
        return torch.stack([x_hat * (1 + k * self.bias) for k in (-3, 0, 4)])


def calibrated(factor: float = 2.0) -> Members:
    made = Calibration(0.9, factor, WEIGHTS, 3, weights_fingerprint(Members()), 20)
    return Members(made).requires_grad_(False)


def test_an_ensemble_is_calibrated_on_pairs_and_covers_others(
    clean: torch.Tensor, mask: torch.Tensor
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ensemble = Ensemble([Imputer(autocovariance(clean), (4,), 4).eval() for _ in range(3)])
        for network in ensemble.networks:
            nn.init.normal_(network.unet.head.weight, std=0.02)
    x = clean[torch.arange(len(clean)) * 37 % len(clean)]
    y = corrupt(x, mask)
    sure = uncertainty.calibrate_ensemble(ensemble, y[:60], x[:60], mask, level=0.8)
    assert sure.calibration.groups == 30 and sure.calibration.members == 3
    with torch.no_grad():
        x_hat, half = sure.with_half_width(y[60:], mask)
    inside = ((x_hat - x[60:]).abs() <= half)[:, ~mask[0]]
    assert 0.75 < inside.float().mean() < 0.88
    assert not half[:, mask[0]].any()
    with pytest.raises(BadInput, match="too few"):
        uncertainty.calibrate_ensemble(ensemble, y[:8], x[:8], mask)


@pytest.mark.parametrize("factor", [0.5, 1e6])
def test_intervals_stay_in_range_and_vanish_where_observed(
    corrupted: torch.Tensor, mask: torch.Tensor, clean: torch.Tensor, factor: float
) -> None:
    with torch.no_grad():
        x_hat, half = calibrated(factor).with_half_width(corrupted, mask)
    seen = mask.expand_as(corrupted)
    assert torch.equal(x_hat[seen], corrupted[seen]) and (half[seen] == 0).all()
    assert (half[~seen] > 0).all() and half.max() <= 1
    low, high = intervals.interval(x_hat, half)
    assert low.min() >= 0 and high.max() <= 1 and (low <= high).all()
    assert factor < 1 or ((low <= clean) & (clean <= high)).all(), "the widest cover everything"


RNG = np.random.default_rng(0)
MASK = RNG.random((8, 10)) > 0.4
MASK[0] = True
HOLED = (RNG.uniform(0.05, 1, (5, 8, 10)) * MASK).astype(np.float32)


def half_widths(path: Path, **settings: object) -> np.ndarray:
    """Half-widths of a file; checks that the images are filled as without them."""
    names = (f"plain-{path.name}", path.name, "half.npy")
    plain, output, half = (path.parent / "out" / name for name in names)
    fill_file(path, plain, calibrated(), progress=False, **settings)
    settings |= {"uncertainty": half, "batch_size": 2, "progress": False}
    fill_file(path, output, calibrated(), **settings)
    np.testing.assert_array_equal(load(output), load(plain))
    return np.load(half, allow_pickle=False)


@pytest.mark.parametrize("name", ["a.npy", "a.nii.gz"])
def test_half_widths_have_the_units_of_the_file(tmp_path: Path, name: str) -> None:
    """Of other formats, and their shapes: tests/filling/test_properties.py."""
    images = np.rint(HOLED * 200).astype(np.uint8)
    widths = half_widths(store(tmp_path / name, images))
    assert widths.dtype == np.float32
    widths = widths[:, 0] if name == "a.npy" else np.moveaxis(widths, -1, 0)
    top = images.max((1, 2), keepdims=True).astype(np.float32)
    with torch.no_grad():
        y, mask = torch.from_numpy(images / top)[:, None], torch.from_numpy(MASK)[None, None]
        _, half = calibrated().with_half_width(y, mask)
    np.testing.assert_allclose(widths, half[:, 0].numpy() * top, rtol=1e-5)
    assert (widths[:, MASK] == 0).all() and (widths[:, ~MASK] > 1).any()


def test_half_widths_of_huge_values(tmp_path: Path) -> None:
    path, mask_path = tmp_path / "a.npy", tmp_path / "mask.npy"
    np.save(mask_path, MASK)
    np.save(path, np.asfortranarray(HOLED[0].astype(float) * 1e300))
    widths = half_widths(path, mask=mask_path)
    assert widths.shape == (8, 10) and np.isfinite(widths).all()


def test_a_bad_name_or_a_failing_imputer_writes_nothing(tmp_path: Path) -> None:
    path, output = store(tmp_path / "a.npy", HOLED), tmp_path / "b.npy"
    folder, filled = store(tmp_path / "pngs", (HOLED * 200).astype("u1")), tmp_path / "filled"
    cases = [(path, output, name) for name in (path, output, tmp_path / "half.npz", tmp_path)]
    for source, target, name in (*cases, (folder, filled, filled / "half.npy")):
        refused(lambda s=source, t=target, n=name: fill_file(s, t, calibrated(), uncertainty=n))
    broken = calibrated()
    broken.bias *= torch.nan
    half = tmp_path / "half.npy"
    assert "NaN" in refused(lambda: fill_file(path, output, broken, uncertainty=half))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.npy", "pngs"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an ensemble of two small networks."""
    folder = tmp_path_factory.mktemp("run")
    clean = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    networks = [new_imputer(PROFILES["smoke"], clean, seed) for seed in (0, 1)]
    for network, value in zip(networks, (-0.1, 0.1), strict=True):
        nn.init.constant_(network.unet.head.bias, value)
    ensemble = Ensemble(networks)
    save_model(folder / "imputer.safetensors", ensemble, ensemble.config)
    return folder


def test_command_line_from_calibration_to_half_widths(
    run: Path, tmp_path: Path, clean: torch.Tensor, mask: torch.Tensor
) -> None:
    frames = (255 * clean[:40, 0]).byte().numpy().repeat(2, 1).repeat(2, 2)
    split, group = np.array(["train"] * 12 + ["val"] * 28), np.arange(40).astype(str)
    np.savez(tmp_path / "frames.npz", images=frames, split=split, group=group)
    main([tmp_path / "frames.npz"], run, 0.9, tmp_path / "out.json", tmp_path / "figure.png")
    stored = json.loads((run / "uncertainty.json").read_text())
    assert stored["groups"] == 28 and stored["members"] == 2 and (tmp_path / "figure.png").exists()
    row = stored["measured"]["heads"]["val of frames.npz (calibrated on)"]
    assert row["coverage"] == pytest.approx(0.9 + 0.9 / 28, abs=1e-3)
    assert 0.85 < stored["measured"]["left out"]["half"]["coverage"] < 1
    y, filled, half = tmp_path / "y.npy", tmp_path / "filled.npy", tmp_path / "half.npy"
    np.save(y, corrupt(clean[:3], mask).numpy())
    done = called("fill", y, "-o", filled, "--model", run, "--uncertainty", half)
    assert done.code == 0, done.err
    assert "half-widths of 90% intervals" in done.out
    x_hat, width = np.load(filled), np.load(half)
    hole = np.broadcast_to(~mask.numpy(), x_hat.shape)
    assert (width[~hole] == 0).all() and (width[hole] > 0).all()
    assert (np.abs(x_hat - clean[:3].numpy()) <= width)[hole].mean() > 0.8
    fast = load_imputer(run, quality="fast")
    assert "--quality best" in refused(lambda: fast.calibration)


def test_a_calibration_belongs_to_its_network(tmp_path: Path) -> None:
    right, path = calibrated().calibration, tmp_path / "uncertainty.json"
    assert not Members().has_calibration
    assert "no calibration" in refused(lambda: Members().calibration)
    uncertainty.save_calibration(path, right, {"note": 1})
    assert Members(path).calibration == replace(right, measured={"note": 1})
    whole = json.loads(path.read_text())
    bad = {"factor": "2", "weights": {"image": 1}, "level": -1, "imputer": "0" * 16}
    for damaged in (*(whole | {key: value} for key, value in bad.items()), {"level": 0.9}):
        path.write_text(json.dumps(damaged))
        assert str(path) in refused(lambda: Members(path).calibration)
