"""Scores of colour pictures, whole and over their holes."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import object_scores as scores
from benchmarks.object_scores import fid, lpips_vgg
from nogaps.evaluation.realism import INCEPTION, frechet_distance
from nogaps.metrics import hole_scores


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; LPIPS and FID stand still: nothing is fetched."""
    folder = tmp_path_factory.mktemp("torch")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    for name in ("lpips_vgg", "fid"):
        monkeypatch.setattr(scores, name, lambda *_: "not available (a test)")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    return folder / "hub" / "checkpoints"


def test_scores_of_known_errors() -> None:
    x = torch.full((4, 3, 16, 16), 0.5)
    mask = torch.ones(4, 1, 16, 16, dtype=torch.bool)
    mask[:2, :, 4:8, 4:8] = False
    x_hat = torch.where(mask, x, x + 0.1)
    whole = scores.whole_scores(x_hat, x, mask)
    assert whole["psnr"] == pytest.approx(20 - 10 * np.log10(2 * 16 / (4 * 256)), abs=1e-3)
    assert scores.whole_scores(x, x, mask)["ssim"] == pytest.approx(1)
    assert [patch.shape for patch in scores.hole_patches(x, mask)] == [(3, 4, 4)] * 2
    mask[3] = False
    row = scores.colour_hole_scores(x_hat, x, mask)
    assert row["holes"] == 2, "a picture without a hole was counted, or one that is all hole"
    assert row["hole_psnr"] == pytest.approx(20, abs=1e-3)


def test_colour_scores_agree_with_those_of_one_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 4, 1, 16, 16, generator=generator)
    mask = torch.rand(4, 1, 16, 16, generator=generator) > 0.3
    grey = hole_scores(x_hat, x, mask)
    row = scores.colour_hole_scores(*(t.expand(-1, 3, -1, -1) for t in (x_hat, x)), mask)
    assert row["hole_psnr"] == pytest.approx(grey["psnr"].mean(), rel=1e-5)
    assert row["hole_ssim"] == pytest.approx(grey["ssim"].mean(), rel=1e-4)


class Metric:
    """Stands where torchmetrics' LPIPS would be."""

    def __init__(self, net_type: str, normalize: bool) -> None:
        assert net_type == "vgg" and normalize
        self.count = 0

    def to(self, device: torch.device) -> Metric:
        return self

    def update(self, a: torch.Tensor, b: torch.Tensor) -> None:
        assert a.shape == b.shape
        self.count += len(a)

    def compute(self) -> torch.Tensor:
        return torch.tensor(float(self.count))


def test_lpips_is_of_weights_that_are_there(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(70, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert "not found" in str(lpips_vgg(x, x)), "it would have been downloaded"
    (hub_cache / scores.VGG).write_bytes(b"weights")
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    library = types.SimpleNamespace(LearnedPerceptualImagePatchSimilarity=Metric)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", library)
    assert lpips_vgg(x, x) == 70
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    assert "the extra `study`" in str(lpips_vgg(x, x))


def test_fid_is_the_frechet_distance_at_inceptions_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def space(images: torch.Tensor) -> np.ndarray:
        assert images.shape[1:] == (3, 299, 299)
        return images[:, :, 0, 0].double().numpy()

    pixels = torch.rand(2, 40, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    made, true = (pictures.expand(-1, -1, 4, 5) for pictures in pixels)
    assert INCEPTION in str(fid(list(made), list(true))), "not available, and why"
    monkeypatch.setattr(scores, "load_inception", lambda _: space)
    assert "two images or more" in str(fid(list(made[:1]), list(true)))
    expected = frechet_distance(*(p[..., 0, 0].double().numpy() for p in pixels))
    assert fid(list(made), list(true)) == pytest.approx(expected, rel=1e-5)
