"""The study of objects in colour: data, masks, scores, and the command."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch
from benchmark_commands import called
from conftest import ROOT
from PIL import Image

from benchmarks import object_data, object_masks
from benchmarks import object_scores as scores
from benchmarks.object_scores import fid, lpips_vgg
from nogaps.evaluation.realism import INCEPTION, frechet_distance
from nogaps.metrics import hole_scores
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; LPIPS and FID stand still: nothing is fetched."""
    folder = tmp_path_factory.mktemp("torch")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    for name in ("lpips_vgg", "fid"):
        monkeypatch.setattr(scores, name, lambda *_: "not available (a test)")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    return folder / "hub" / "checkpoints"


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photographs"
    place.mkdir()
    for k in range(3):
        Image.fromarray(photo(k)).save(place / f"{k}.png")
    return place


# data ------------------------------------------------------------------------------------------


def test_shipped_photographs_are_colour_and_need_no_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(object_data.SHIPPED, "sklearn")
    found = object_data.photographs("sample")
    assert len(found) == 5 and all(x.dtype == np.uint8 and x.shape[2] == 3 for x in found.values())
    monkeypatch.setitem(object_data.SHIPPED, "absent", "a.png")
    with pytest.raises(BadInput, match="is not installed"):
        object_data.photographs("sample")


def test_split_is_by_photograph(folder: Path) -> None:
    size = object_masks.SIZES["smoke"]
    study, again = (object_masks.of_photographs(str(folder), size, 0) for _ in range(2))
    assert study.name == "photographs" and len(study.train.x) == 48 and len(study.test.x) == 12
    train, test = set(study.train.groups), set(study.test.groups)
    assert len(train) == 2 and len(test) == 1 and not train & test
    assert test == set(again.test.groups) and torch.equal(study.train.x, again.train.x)


def test_crop_k_depends_on_seed_and_k_only() -> None:
    photos = {"a": photo(0), "b": photo(1)}
    few, many = (object_data.crops_with_objects(photos, n, seed=5) for n in (4, 60))
    assert torch.equal(few.x, many.x[:4]) and torch.equal(few.mask, many.mask[:4])
    assert many.groups == ["a", "b"] * 30
    assert many.x.shape == (60, 3, 32, 32) and many.x.min() >= 0 and many.x.max() <= 1
    missing = 1 - many.mask.float().mean((1, 2, 3))
    assert missing.min() >= 0.05 and missing.max() <= 0.4 and len(many.mask.unique(dim=0)) == 60
    other = object_data.crops_with_objects(photos, 4, seed=6)
    assert not torch.equal(few.x, other.x) and not torch.equal(few.mask, other.mask)
    y, x, mask = many.triples().tensors
    seen = mask.expand_as(x)
    assert (y[~seen] == 0).all() and torch.equal(y[seen], x[seen])


def test_bad_folders_are_named(folder: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        object_data.photographs("nowhere")
    with pytest.raises(BadInput, match="holds 0 pictures"):
        object_data.photographs(str(ROOT / "nogaps" / "submission"))
    Image.fromarray(photo(0, 20, 50)).save(folder / "small.png")
    with pytest.raises(BadInput, match="is 20×50"):
        object_data.photographs(str(folder))
    (folder / "small.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="is damaged"):
        object_data.photographs(str(folder))


# CIFAR-10 and DeepLabV3, with torchvision's place taken --------------------------------------


def halves(x: torch.Tensor) -> torch.Tensor:
    """A segmenter that sees class 3 in the left half of 64×64, class 7 in the right; k=1 none."""
    classes = torch.full((len(x), 64, 64), 3)
    classes[:, :, 32:] = 7
    classes[x[:, 0, 0, 0] == 1] = 0
    return classes


def test_one_of_the_classes_is_picked() -> None:
    (classes,) = halves(torch.zeros(1, 3, 32, 32))
    picked = [
        object_data.pick_object(classes, torch.Generator().manual_seed(seed)) for seed in range(20)
    ]
    left = [bool(p[:, :16].all() and not p[:, 16:].any()) for p in picked]
    right = [bool(p[:, 16:].all() and not p[:, :16].any()) for p in picked]
    assert any(left) and any(right) and all(a != b for a, b in zip(left, right, strict=True))


def test_masks_are_made_once_and_resume_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.arange(10.0)[:, None, None, None].repeat(1, 3, 32, 32)
    calls: list[int] = []

    def segment(batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(batch))
        return halves(batch)

    monkeypatch.setattr(object_data, "SHARD", 4)
    monkeypatch.setattr(object_data, "_segmenter", lambda: segment)
    masks = object_data.object_masks(x, tmp_path / "train", 0)
    assert masks.shape == (10, 1, 32, 32) and masks.dtype == torch.bool
    assert masks[1].all(), "nothing found: nothing missing"
    assert all(masks[k].float().mean() == 0.5 for k in range(10) if k != 1)
    assert calls == [4, 4, 2] and len(list(tmp_path.iterdir())) == 3
    (tmp_path / "train-4-7.npy").unlink()
    monkeypatch.setattr(object_data, "BATCH", 3)
    assert torch.equal(object_data.object_masks(x, tmp_path / "train", 0), masks)
    assert calls[3:] == [3, 1], "masks that are there were made again"
    assert torch.equal(object_data.object_masks(x[:6], tmp_path / "train", 0), masks[:6])


def test_cifar10_is_read_channels_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)

    def cifar(root: str, train: bool, download: bool) -> types.SimpleNamespace:
        assert root == str(tmp_path) and download
        if train:
            raise OSError("no route to host")
        return types.SimpleNamespace(data=pixels)

    datasets = types.SimpleNamespace(CIFAR10=cifar)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    x = object_data.cifar10(tmp_path, train=False)
    assert np.array_equal(255 * x.numpy(), pixels.transpose(0, 3, 1, 2))
    with pytest.raises(BadInput) as error:
        object_data.cifar10(tmp_path, train=True)
    assert "no route to host" in error.value.line() and "--images" in error.value.line()
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(BadInput, match="cannot be imported"):
        object_data.cifar10(tmp_path, train=True)


# scores ----------------------------------------------------------------------------------------


def test_scores_of_known_errors() -> None:
    x = torch.full((3, 3, 16, 16), 0.5)
    mask = torch.ones(3, 1, 16, 16, dtype=torch.bool)
    mask[:2, :, 4:8, 4:8] = False
    x_hat = torch.where(mask, x, x + 0.1)
    row = scores.colour_hole_scores(x_hat, x, mask, ["a", "b", "c"])
    assert row["holes"] == 2, "a picture without a hole was counted"
    assert row["hole_psnr"] == pytest.approx(20, abs=1e-3)
    whole = scores.whole_scores(x_hat, x, mask)
    assert whole["psnr"] == pytest.approx(20 - 10 * np.log10(2 * 16 / (3 * 256)), abs=1e-3)
    assert scores.whole_scores(x, x, mask)["ssim"] == pytest.approx(1)
    assert [patch.shape for patch in scores.hole_patches(x, mask)] == [(3, 4, 4)] * 2


def test_colour_scores_agree_with_those_of_one_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 4, 1, 16, 16, generator=generator)
    mask = torch.rand(4, 1, 16, 16, generator=generator) > 0.3
    grey = hole_scores(x_hat, x, mask)
    colour = (t.expand(-1, 3, -1, -1) for t in (x_hat, x))
    row = scores.colour_hole_scores(*colour, mask, list("abcd"))
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


# the study -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_trains_scores_draws_and_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--images", folder, "--smoke", "--run", tmp_path, "--out", tmp_path)
    text = called(object_masks.main, *options)
    stem = "object_masks_photographs-smoke"
    found = load_json(tmp_path / f"{stem}.json")
    assert list(found["table"]) == ["linear", "biharmonic", "FRM", "ASPP-FRM"]
    for row in found["table"].values():
        assert 5 < row["psnr"] < 60 and row["hole_psnr_95"][0] <= row["hole_psnr"]
    assert str(tmp_path) not in (tmp_path / f"{stem}.json").read_text()
    for end in ("frm", "aspp-frm"):
        assert Image.open(tmp_path / f"{stem}_{end}.png").size[0] > 300
    assert "| ASPP-FRM | " in text
    monkeypatch.setattr("benchmarks.recipes.plain_epoch", None)  # nothing is left to train
    called(object_masks.main, *options)
    assert load_json(tmp_path / f"{stem}.json") == found


def test_published_rows_stand_beside_cifar10_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = object_data.crops_with_objects({"a": photo(0)}, 48, seed=0)
    monkeypatch.setattr(object_data, "cifar10", lambda *_: small.x)
    monkeypatch.setattr(object_data, "object_masks", lambda x, *_: small.mask[: len(x)])
    found = object_masks.run_study(None, "smoke", run=tmp_path, out=tmp_path)
    published = {name: row["psnr"] for name, row in found["table"].items() if "publ" in name}
    assert published == {"FRM, published": 31.78, "ASPP-FRM, published": 32.17}
    assert object_masks.as_table(found["table"]).endswith("| 0.1142 | 21.86 | - | - |")
    assert (tmp_path / "object_masks_cifar10-smoke.json").exists()


def test_notebook_and_its_twin_are_one_text() -> None:
    notebook = nbformat.read(ROOT / "benchmarks" / "object_masks.ipynb", as_version=4)
    twin = jupytext.read(ROOT / "benchmarks" / "object_masks.md")
    assert [(c.cell_type, c.source.strip()) for c in notebook.cells] == [
        (c.cell_type, c.source.strip()) for c in twin.cells
    ]
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    compile(code, "object_masks.ipynb", "exec")
