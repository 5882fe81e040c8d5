"""The study of objects in colour: data, masks, scores, and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from benchmarks import object_data, object_masks
from benchmarks import object_scores as scores
from benchmarks.object_scores import fid, lpips_vgg
from nogaps.evaluation.realism import INCEPTION, frechet_distance
from nogaps.metrics import hole_scores
from nogaps.runtime.errors import BadInput


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, for commands as well; LPIPS and FID stand still: nothing is fetched."""
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


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "benchmarks.object_masks", *map(str, arguments)]
    return subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


# data ------------------------------------------------------------------------------------------


def test_shipped_photographs_are_colour_and_need_no_download() -> None:
    found = object_data.photographs("sample")
    assert {"astronaut.png", "chelsea.png", "coffee.png"} <= set(found)
    assert all(x.dtype == np.uint8 and x.shape[2] == 3 for x in found.values())


def test_split_is_by_photograph() -> None:
    photos = {f"{k}": photo(k) for k in range(7)}
    train, test = object_data.split_by_photograph(photos, seed=0)
    assert len(train) == 5 and len(test) == 2 and not set(train) & set(test)
    assert object_data.split_by_photograph(photos, 0)[1].keys() == test.keys()
    assert all(map(len, object_data.split_by_photograph({k: photos[k] for k in "01"}, 0)))


def test_crop_k_depends_on_seed_and_k_only() -> None:
    photos = {"a": photo(0), "b": photo(1)}
    few, many = (object_data.crops_with_objects(photos, n, seed=5) for n in (4, 9))
    assert torch.equal(few.images, many.images[:4]) and torch.equal(few.masks, many.masks[:4])
    assert many.groups == ("a", "b") * 4 + ("a",)
    assert many.images.shape == (9, 3, 32, 32) and many.masks.shape == (9, 1, 32, 32)
    other = object_data.crops_with_objects(photos, 4, seed=6)
    assert not torch.equal(few.images, other.images) and few.fingerprint != other.fingerprint


def test_drawn_objects_have_the_size_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([object_data.draw_object(rng) for _ in range(60)])
    shares = drawn.mean((1, 2))
    assert drawn.dtype == bool and shares.min() >= 0.05 and shares.max() <= 0.4
    assert len(np.unique(drawn.reshape(60, -1), axis=0)) == 60
    assert 0.1 <= object_data.draw_object(rng, 64, 0.1, 0.2).mean() <= 0.2


def test_epochs_are_shuffled_whole_batches() -> None:
    pictures = object_data.crops_with_objects({"a": photo(0)}, 10, seed=0)
    batches = list(pictures(torch.Generator().manual_seed(0), 4))
    again = list(pictures(torch.Generator().manual_seed(0), 4))
    assert [len(x) for _, x, _ in batches] == [4, 4]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches, again, strict=True))
    y, x, mask = batches[0]
    assert (y[~mask.expand_as(y)] == 0).all() and torch.equal(
        y[mask.expand_as(y)], x[mask.expand_as(x)]
    )
    assert [len(x) for _, x, _ in pictures(torch.Generator(), 64)] == [10]


def test_bad_folders_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: is not a folder"):
        object_data.photographs("nowhere")
    with pytest.raises(BadInput, match="holds 0 pictures, expected two or more"):
        object_data.photographs(str(ROOT / "docs" / ".." / "nogaps" / "submission"))
    Image.fromarray(photo(0, 20, 50)).save(folder / "small.png")
    with pytest.raises(BadInput, match=r"small\.png: is 20×50, expected 32×32 or more"):
        object_data.photographs(str(folder))
    (folder / "small.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"small\.png: is damaged"):
        object_data.photographs(str(folder))


# CIFAR-10 and DeepLabV3, with torchvision's place taken --------------------------------------


def halves(images: torch.Tensor) -> torch.Tensor:
    """A segmenter that sees class 3 in the left half of 64×64, class 7 in the right; k=1 none."""
    classes = torch.full((len(images), 64, 64), 3)
    classes[:, :, 32:] = 7
    classes[images[:, 0, 0, 0] == 1] = 0
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
    monkeypatch.setattr(object_data, "SHARD", 4)
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 32, 32)
    calls: list[int] = []

    def segmenter() -> object:
        def segment(batch: torch.Tensor) -> torch.Tensor:
            calls.append(len(batch))
            return halves(batch)

        return segment

    monkeypatch.setattr(object_data, "_segmenter", segmenter)
    masks = object_data.object_masks(images, tmp_path / "train-seed0", 0, batch_size=3)
    assert masks.shape == (10, 1, 32, 32) and masks.dtype == torch.bool
    assert masks[1].all(), "nothing found: nothing missing"
    assert all(masks[k].float().mean() == 0.5 for k in range(10) if k != 1)
    assert sum(calls) == 10 and len(list(tmp_path.glob("train-seed0-*.npy"))) == 3
    (tmp_path / "train-seed0-00004.npy").unlink()
    again = object_data.object_masks(images, tmp_path / "train-seed0", 0, batch_size=4)
    assert torch.equal(again, masks) and sum(calls) == 14
    few = object_data.object_masks(images[:6], tmp_path / "train-seed0", 0)
    assert torch.equal(few, masks[:6]) and sum(calls) == 14, "masks that are there were made again"
    np.save(tmp_path / "train-seed0-00008.npy", masks[8:9, 0].numpy())
    more = object_data.object_masks(images, tmp_path / "train-seed0", 0)
    assert torch.equal(more, masks) and sum(calls) == 16
    np.save(tmp_path / "train-seed0-00008.npy", np.zeros((2, 32, 32)))
    with pytest.raises(BadInput, match=r"00008\.npy: holds float64 .* expected bool \(N, 32, 32\)"):
        object_data.object_masks(images, tmp_path / "train-seed0", 0)


def place_torchvision(monkeypatch: pytest.MonkeyPatch, cifar: object) -> None:
    datasets = types.ModuleType("torchvision.datasets")
    datasets.CIFAR10 = cifar
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_cifar10_is_read_channels_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = []

    def cifar(root: str, train: bool, download: bool) -> types.SimpleNamespace:
        found.append((root, train, download))
        return types.SimpleNamespace(data=pixels)

    place_torchvision(monkeypatch, cifar)
    images = object_data.cifar10(tmp_path, train=False)
    assert found == [(str(tmp_path), False, True)]
    assert np.array_equal(images.numpy(), pixels.transpose(0, 3, 1, 2))


def test_without_data_or_torchvision_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    place_torchvision(monkeypatch, offline)
    says = r"CIFAR-10 cannot be fetched \(no route to host\); put cifar-10-batches-py there"
    with pytest.raises(BadInput, match=says):
        object_data.cifar10(tmp_path, train=True)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(BadInput, match=r"cannot be imported .* or run with --images FOLDER"):
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


def test_colour_scores_agree_with_those_of_one_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 4, 1, 16, 16, generator=generator)
    mask = torch.rand(4, 1, 16, 16, generator=generator) > 0.3
    grey = hole_scores(x_hat, x, mask)
    colour = (t.expand(-1, 3, -1, -1) for t in (x_hat, x))
    row = scores.colour_hole_scores(*colour, mask, list("abcd"))
    assert row["hole_psnr"] == pytest.approx(grey["psnr"].mean(), rel=1e-5)
    assert row["hole_ssim"] == pytest.approx(grey["ssim"].mean(), rel=1e-4)


def test_patches_are_the_bounding_boxes() -> None:
    x = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, 2, 3] = mask[0, 0, 5, 1] = False
    (patch,) = scores.hole_patches(x, mask)
    assert torch.equal(patch, x[0, :, 2:6, 1:4])


class Metric:
    """Stands where torchmetrics' LPIPS would be."""

    error: Exception | None = None

    def __init__(self, net_type: str, normalize: bool) -> None:
        assert net_type == "vgg" and normalize
        self.fed: list[tuple[int, ...]] = []

    def to(self, device: torch.device) -> Metric:
        return self

    def update(self, a: torch.Tensor, b: torch.Tensor) -> None:
        if self.error:
            raise self.error
        self.fed += [tuple(a.shape), tuple(b.shape)]

    def compute(self) -> torch.Tensor:
        assert self.fed == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)]
        return torch.tensor(0.25)


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> type[Metric]:
    for name in ("torchvision", "torchmetrics", "torchmetrics.image", "torchmetrics.image.lpip"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchmetrics.image.lpip"].LearnedPerceptualImagePatchSimilarity = Metric
    return Metric


def test_lpips_is_of_weights_that_are_there(
    metric: type[Metric], hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    says = f"not available ({scores.VGG}: not found, expected in checkpoints of torch's hub cache)"
    assert lpips_vgg(x, x) == says, "it would have been downloaded"
    (hub_cache / scores.VGG).write_bytes(b"half a download")
    assert lpips_vgg(x, x) == f"not available ({scores.VGG}: damaged, expected torchvision's)"
    monkeypatch.setattr(scores, "sha256", lambda path: "397923af" + "0" * 56)
    assert lpips_vgg(x, x, batch_size=2) == 0.25
    monkeypatch.setattr(metric, "error", RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        lpips_vgg(x, x)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "the extra `study`" in str(lpips_vgg(x, x))


def test_fid_says_why_there_is_none(hub_cache: Path) -> None:
    x = list(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert "two or more needed" in str(fid(x[:1], x))
    assert str(fid(x, x)).startswith(f"not available (checkpoints/{INCEPTION}: cannot be read")
    (hub_cache / INCEPTION).write_bytes(b"half a download")
    assert str(fid(x, x)).startswith(f"not available (checkpoints/{INCEPTION}: is damaged")


def test_fid_feeds_both_sets_at_inceptions_size(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = []

    def space(images: torch.Tensor) -> np.ndarray:
        fed.append((tuple(images.shape), float(images.mean())))
        return images[:, :, :8, :8].double().mean((2, 3)).numpy()

    monkeypatch.setattr(scores, "load_inception", lambda path: space)
    monkeypatch.setattr(scores, "frechet_distance", lambda a, b: float(b.mean() - a.mean()))
    made, true = [torch.zeros(3, 4, 5)] * 2, [torch.ones(1, 7, 3)] * 3
    assert fid(made, true, batch_size=2) == 1
    assert fed == [((2, 3, 299, 299), 0.0), ((2, 3, 299, 299), 1.0), ((1, 3, 299, 299), 1.0)]


def test_fid_is_the_frechet_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    corner = lambda x: x[:, :, 0, 0].double().numpy()  # noqa: E731
    monkeypatch.setattr(scores, "load_inception", lambda path: corner)
    pixels = torch.rand(2, 40, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    made, true = (pictures.expand(-1, -1, 4, 4) for pictures in pixels)
    expected = frechet_distance(*(p[..., 0, 0].double().numpy() for p in pixels))
    assert fid(list(made), list(true)) == pytest.approx(expected, rel=1e-5)


# the study -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_trains_scores_draws_and_resumes(folder: Path, tmp_path: Path) -> None:
    options = ("--images", folder, "--profile", "smoke", "--run", tmp_path, "--out", tmp_path)
    done = command(*options)
    assert done.returncode == 0, done.stderr
    stem = "object_masks_photographs-smoke"
    found = json.loads((tmp_path / f"{stem}.json").read_text())
    assert list(found["table"]) == ["linear", "biharmonic", "FRM", "ASPP-FRM"]
    for row in found["table"].values():
        assert 5 < row["psnr"] < 60 and row["hole_psnr_95"][0] <= row["hole_psnr"]
        assert isinstance(row["lpips"], float) or row["lpips"].startswith("not available")
    assert str(tmp_path) not in json.dumps(found)
    for end in ("frm", "aspp-frm", "large"):
        assert Image.open(tmp_path / f"{stem}_{end}.png").size[0] > 300
    assert "ASPP-FRM" in done.stdout and "one large hole" in done.stdout
    checkpoint = tmp_path / "smoke" / "photographs-smoke-frm.safetensors"
    made = checkpoint.stat().st_mtime_ns
    size = object_masks.SIZES["smoke"]
    study = object_masks.of_photographs(str(folder), size, 0)
    study = replace(study, name="photographs-smoke")
    _, training = object_masks.train_networks(study, size, tmp_path / "smoke", 0)
    assert training == found["training"]
    assert checkpoint.stat().st_mtime_ns == made, "the finished training was done again"


def test_published_rows_stand_beside_cifar10_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = object_data.crops_with_objects({"a": photo(0)}, 20, seed=0)
    monkeypatch.setattr(object_data, "cifar10", lambda *_: small.images)
    segmented = []

    def masks(x: torch.Tensor, *_: object) -> torch.Tensor:
        segmented.append(len(x))
        return small.masks[: len(x)]

    monkeypatch.setattr(object_data, "object_masks", masks)
    found = object_masks.run_study(None, "smoke", crops=16, run=tmp_path, out=tmp_path)
    published = {name: row["psnr"] for name, row in found["table"].items() if "publ" in name}
    assert published == {"FRM, published": 31.78, "ASPP-FRM, published": 32.17}
    assert object_masks.as_table(found["table"]).endswith("| 0.1142 | 21.86 | - | - |")
    assert segmented == [16, 12], "more pictures than the profile has went through DeepLabV3"
    assert found["settings"]["train"] == 16 and found["settings"]["test"] == 12
    assert (tmp_path / "object_masks_cifar10-smoke.json").exists()


def test_large_hole_keeps_what_was_observed(tmp_path: Path) -> None:
    rows = object_masks.draw_large(
        tmp_path / "large.png", {"grey": lambda y, m: torch.where(m, y, 0.5)}, photo(0), 40, 0
    )
    mask = object_masks.large_mask(40, 0)
    assert 0.12 <= float((~mask).float().mean()) <= 0.25
    seen = mask.expand_as(rows["grey"])
    assert torch.equal(rows["grey"][seen], rows["original"][seen])
    assert (rows["masked"][~seen] == 0).all()


def test_notebook_and_its_twin_are_one_text() -> None:
    notebook = nbformat.read(ROOT / "benchmarks" / "object_masks.ipynb", as_version=4)
    twin = jupytext.read(ROOT / "benchmarks" / "object_masks.md")
    assert [(c.cell_type, c.source.strip()) for c in notebook.cells] == [
        (c.cell_type, c.source.strip()) for c in twin.cells
    ]
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    compile(code, "object_masks.ipynb", "exec")
