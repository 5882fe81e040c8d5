"""Inception's feature space: which weights are loaded, what it is given, why there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nogaps.evaluation import inception
from nogaps.evaluation.comparison import compare_inception
from nogaps.evaluation.inception import WEIGHTS, features, find_inception
from nogaps.evaluation.realism import Heads, frechet_distance
from nogaps.runtime.errors import BadInput
from tests.evaluation.test_realism import noise


class TinyNetwork(torch.nn.Module):
    """Means of 16 cells of the first channel; the inputs are kept in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        self.seen.append(x)
        cells = torch.nn.functional.adaptive_avg_pool2d(x[:, :1].float() / 255, 4)
        return (cells.flatten(1),)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's hub cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, hub_cache: Path) -> TinyNetwork:
    """Stands where Inception would be loaded from cached weights."""
    network = TinyNetwork()
    monkeypatch.setattr(inception, "load_network", lambda path: network)
    (hub_cache / WEIGHTS).write_bytes(b"weights")
    return network


def test_it_sees_8_bit_images_in_three_channels(tiny: TinyNetwork) -> None:
    cached = find_inception()
    assert cached.space and WEIGHTS in cached.about and "sha256 " in cached.about
    x = noise(40).x
    x[0] = 1
    row = cached.space(x)
    assert row.shape == (40, 16) and row.dtype == np.float64
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1).numpy()
    np.testing.assert_allclose(row, expected, atol=0.002)  # half a grey level
    assert [len(batch) for batch in tiny.seen] == [32, 8]
    assert tiny.seen[0].dtype == torch.uint8 and tiny.seen[0].shape[1:] == (3, 16, 16)
    assert torch.equal(tiny.seen[0][:, 0], tiny.seen[0][:, 2])


def test_it_sees_colour() -> None:
    tiny, x = TinyNetwork(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert features(tiny, x).shape == (2, 16)
    assert torch.equal(tiny.seen[0], (255 * x).round().byte())


def test_distances_of_pairs(tiny: TinyNetwork) -> None:
    part = noise(60)
    dark = Heads(part.x / 2, part.groups, part.ids)
    twice = dark[np.repeat(np.arange(60), 2)]
    pairs = {"same": (part, part), "darker": (part, dark), "twice": (part, twice)}
    result = compare_inception(pairs, find_inception(), most=60, seed=0)
    rows = result["pairs"]
    assert list(rows) == list(pairs) and result["reason"] is None
    assert {row["images"] for row in rows.values()} == {60}, "an image was looked at twice"
    assert rows["same"]["frechet"] == pytest.approx(0, abs=1e-6)
    expected = frechet_distance(*(features(tiny, heads.x) for heads in (part, dark)))
    for name in ("darker", "twice"):
        assert rows[name]["frechet"] == pytest.approx(expected, rel=1e-6)
    assert abs(rows["same"]["kid"]) < rows["darker"]["kid"] / 10
    few = compare_inception(pairs, find_inception(), most=7, seed=0)
    assert few["pairs"]["same"]["images"] == 7


def test_without_it_the_reason_is_stated(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = find_inception()
    assert missing.space is None and WEIGHTS in missing.about and "--inception" in missing.about
    result = compare_inception({"a vs b": (noise(4), noise(4))}, missing, most=4, seed=0)
    assert result == {"features": None, "pairs": None, "reason": missing.about}
    path = hub_cache / WEIGHTS
    path.write_bytes(b"half a download")
    assert find_inception().space is None and "is damaged" in find_inception().about
    torch.save({"fc.weight": torch.zeros(3)}, path)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if not installed
    assert "extra `study`" in find_inception().about
    with pytest.raises(BadInput, match="extra `study`"):
        find_inception(path)


class Payload:
    """Pickled code that leaves a file when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_weights_are_checked(tmp_path: Path) -> None:
    run, path = tmp_path / "run", tmp_path / "weights.pth"
    contents = {
        "is damaged, or holds more than tensors": {"fc.weight": Payload(run)},
        "more than tensors": [torch.zeros(3)],
        "NaN": {"fc.weight": torch.tensor([0, torch.nan])},
    }
    for message, value in contents.items():
        torch.save(value, path)
        with pytest.raises(BadInput, match=message) as caught:
            find_inception(path)
        assert str(caught.value).startswith(f"{path}: ") and WEIGHTS in str(caught.value)
    assert not run.exists(), "code in the file was run"
    with pytest.raises(BadInput, match=r"cannot be read.*expected"):
        find_inception(tmp_path)
