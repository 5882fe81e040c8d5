"""The study of objects in colour: pictures, masks, and the command."""

from __future__ import annotations

import io
import json
import re
import sys
import types
import zipfile
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
from benchmarks.object_data import Pictures
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_json
from nogaps.runtime.seeds import numbered_generator

SIZE = 96  # of the input of the interpreter that stands where TFLite's would be
CALLS: list[int] = []  # how many pictures were in each of its inputs


@pytest.fixture(autouse=True)
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS and FID stand still: nothing is fetched."""
    for name in ("lpips_vgg", "fid"):
        monkeypatch.setattr(scores, name, lambda *_: "not available (a test)")


def picture(k: int) -> np.ndarray:
    """A dark picture with a red block and a green one; every fifth has none."""
    pixels = np.full((32, 32, 3), 40 + k % 50, np.uint8)
    if k % 5:
        pixels[8:24, 4 : 8 + k % 8] = (250, 20, 20)
        pixels[10:20, 20:30] = (20, 250, 20)
    return pixels


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A zip like CIFAR-10's: four classes of 14 pictures to train on, and of 4 to test on."""
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in (("train", 14), ("test", 4)):
            for k in range(4 * count):
                file = io.BytesIO()
                Image.fromarray(picture(k)).save(file, "JPEG", quality=95, subsampling=0)
                archive.writestr(f"{part}/{'abcd'[k % 4]}/{k // 4:04}.jpg", file.getvalue())
    return path


class Interpreter:
    """Sees class 3 in what is red and class 7 in what is green."""

    def __init__(
        self, model_content: bytes, num_threads: int, experimental_op_resolver_type: str
    ) -> None:
        if model_content != b"model":
            raise ValueError("no FlatBuffer")
        assert num_threads >= 1 and experimental_op_resolver_type == "without"

    def allocate_tensors(self) -> None:
        self.classes = None

    def get_input_details(self) -> list[dict]:
        return [{"index": 6, "shape": np.array([1, SIZE, SIZE, 3])}]

    def get_output_details(self) -> list[dict]:
        return [{"index": 0}]

    def set_tensor(self, index: int, canvas: np.ndarray) -> None:
        assert index == 6 and canvas.shape == (1, SIZE, SIZE, 3) and canvas.dtype == np.uint8
        self.classes = 3 * (canvas[..., 0] > 140) + 7 * (canvas[..., 1] > 140)

    def invoke(self) -> None:
        CALLS.append(1)

    def get_tensor(self, index: int) -> np.ndarray:
        assert index == 0
        return self.classes


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model for Interpreter, which stands where ai-edge-litert's would be."""
    resolver = types.SimpleNamespace(BUILTIN_WITHOUT_DEFAULT_DELEGATES="without")
    library = types.SimpleNamespace(Interpreter=Interpreter, OpResolverType=resolver)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", library)
    (tmp_path / "deeplab.tflite").write_bytes(b"model")
    CALLS.clear()
    return tmp_path / "deeplab.tflite"


def test_zip_and_folder_give_the_same_pictures_of_every_class(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with zipfile.ZipFile(images) as archive:
        archive.extractall(folder)
    (folder / "train" / "notes.txt").touch()
    (folder / "train" / "a" / "notes.txt").touch()
    x = object_data.read_pictures(images, "train", 50)
    assert x.shape == (50, 32, 32, 3) and x.dtype == np.uint8
    assert np.abs(x - np.stack([picture(k) for k in range(50)]).astype(int)).mean() < 2
    assert np.array_equal(object_data.read_pictures(folder, "train", 50), x)
    assert np.array_equal(object_data.read_pictures(images, "train", 3), x[:3])


def test_bad_pictures_are_named(images: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds 16 pictures test"):
        object_data.read_pictures(images, "test", 17)
    with pytest.raises(BadInput, match="other"):
        object_data.read_pictures(images, "other", 1)
    (tmp_path / "damaged.zip").write_bytes(images.read_bytes()[:500])
    with pytest.raises(BadInput, match="zip: is damaged"):
        object_data.read_pictures(tmp_path / "damaged.zip", "test", 1)
    file = tmp_path / "test" / "a" / "0000.png"
    file.parent.mkdir(parents=True)
    for content, words in ((b"no picture", "is damaged"), (b"", "50×20 pixels")):
        file.write_bytes(content)
        if not content:
            Image.new("RGB", (50, 20)).save(file)
        with pytest.raises(BadInput, match=f"0000.png: .*{words}"):
            object_data.read_pictures(tmp_path, "test", 1)


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_objects_are_found_where_they_are(tiles: int, model: Path) -> None:
    x = np.stack([picture(k) for k in range(7)])
    classes = object_data.tflite_deeplab(model, tiles)(x)
    assert len(CALLS) == -(-7 // tiles**2)
    truth = 3 * (x[..., 0] > 140) + 7 * (x[..., 1] > 140)
    assert classes.shape == (7, 32, 32) and (classes == truth).mean() > 0.98


def test_what_segments_and_cannot_be_had_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.write_bytes(b"other")
    with pytest.raises(BadInput, match=r"tflite: is damaged .*no FlatBuffer"):
        object_data.tflite_deeplab(model)
    for name in ("ai_edge_litert.interpreter", "torchvision.models.segmentation"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match="ai_edge_litert: cannot be imported"):
        object_data.tflite_deeplab(model)
    with pytest.raises(BadInput, match=r"torchvision: cannot be imported .*nogaps\[study\]"):
        object_data.resnet_deeplab()


def test_torchvisions_classes_are_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": x[:, [2, 0, 1]]}

    weights = types.SimpleNamespace(transforms=lambda: torch.nn.Upsample(scale_factor=2))
    library = types.SimpleNamespace(
        DeepLabV3_ResNet50_Weights=types.SimpleNamespace(DEFAULT=weights),
        deeplabv3_resnet50=lambda weights: Network(),
    )
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models.segmentation", library)
    x = np.stack([picture(k) for k in range(5)])
    classes = object_data.resnet_deeplab()(x)
    assert np.array_equal(classes, np.stack([x[..., 2], x[..., 0], x[..., 1]]).argmax(0))


def test_one_of_the_classes_is_picked() -> None:
    classes = np.repeat([[3] * 16 + [7] * 16], 32, 0)
    generators = (torch.Generator().manual_seed(seed) for seed in range(20))
    picked = [object_data.pick_object(classes, generator) for generator in generators]
    left = [bool(p[:, :16].all() and not p[:, 16:].any()) for p in picked]
    right = [bool(p[:, 16:].all() and not p[:, :16].any()) for p in picked]
    assert any(left) and any(right) and all(a != b for a, b in zip(left, right, strict=True))


def test_masks_are_made_once_and_resume_exactly(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_data, "CHUNK", 4)
    x = np.stack([picture(k) for k in range(11)])
    masks = object_data.object_masks(x, "test", tmp_path / "a.npz", model, 0)
    assert masks.shape == (11, 1, 32, 32) and masks.dtype == torch.bool and len(CALLS) == 11
    assert masks[0].all() and masks[5].all(), "nothing found: nothing missing"
    assert all(0 < (~masks[k]).float().mean() < 0.2 for k in range(11) if k % 5)

    def killed(self: Interpreter) -> None:
        CALLS.append(1)
        if len(CALLS) == 11 + 6:
            raise KeyboardInterrupt

    path = tmp_path / "b.npz"
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(Interpreter, "invoke", killed)
        object_data.object_masks(x, "test", path, model, 0)
    assert torch.equal(object_data.object_masks(x, "test", path, model, 0), masks)
    assert len(CALLS) == 17 + 7, "masks that were there were made again"
    object_data.object_masks(x[:2], "train", path, model, 0)
    assert torch.equal(object_data.object_masks(x[:6], "test", path, None, 9), masks[:6])
    assert len(CALLS) == 24 + 2
    with pytest.raises(BadInput, match=r"2 masks of train, made by deeplab.tflite, seed 0, exp"):
        object_data.object_masks(x, "train", path, model, 1)
    for k, classes in enumerate(object_data.tflite_deeplab(model)(x)):
        picked = object_data.pick_object(classes, numbered_generator(0, k))
        assert np.array_equal(masks[k, 0], ~picked)
    for content in ({"made_of": "?", "test": np.zeros((3, 5))}, {"test": np.zeros((1, 128))}):
        np.savez(path, **content)
        with pytest.raises(BadInput, match="npz: is damaged"):
            object_data.load_masks(path)


def test_every_method_fills_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 32, 32, generator=generator)
    mask = torch.ones(3, 1, 32, 32, dtype=torch.bool)
    mask[1, :, 5:9, 5:9] = mask[2] = False
    monkeypatch.setattr(object_masks, "find_spec", lambda _: True)
    monkeypatch.setattr(object_masks, "opencv", lambda _: lambda y, mask: torch.where(mask, y, 1))
    monkeypatch.setattr(object_masks, "BATCH", 2)
    size = object_masks.SIZES["smoke"]
    networks = {
        kind: object_masks.build(kind, size, 0, residual).eval()
        for kind, residual in (("plain", True), ("frm", False))
    }
    filled = dict(object_masks.fillings(Pictures(x, mask), networks))
    assert list(filled) == ["linear", "biharmonic", "Telea", "plain", "frm"]
    seen = mask.expand_as(x)
    for name in ("linear", "biharmonic", "Telea", "plain"):
        assert torch.equal(filled[name][seen], x[seen])
        assert (filled[name][2] == 0.5).all(), "of nothing observed nothing is interpolated"
    assert (filled["Telea"][1][~seen[1]] == 1).all()
    assert torch.equal(filled["plain"], filled["biharmonic"]), "untrained, a residual is none"
    assert not torch.equal(filled["frm"][seen], x[seen])


def test_masks_alone_and_tiles_alone(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", model, "--smoke", "--masks", tmp_path / "masks.npz", "--out", tmp_path)
    found = json.loads(called(object_masks.main, images, *options, "--masks-only"))["masks"]
    assert found["made_of"] == "deeplab.tflite, seed 0"
    assert found["test"]["pictures"] == 12 and found["test"]["without_object"] == 3
    assert found["train"]["wholly_object"] == 0 < found["train"]["missing"] < 0.2
    assert Image.open(tmp_path / "object_masks_cifar10-smoke_masks.png").size[0] > 300
    monkeypatch.setattr(object_data, "COMPARED", 10)
    called(object_masks.main, images, *options, "--tiles")
    rows = load_json(tmp_path / "object_masks_tiles.json")["tiles"]
    assert list(rows) == ["1×1", "2×2", "3×3", "4×4"] and rows["1×1"]["iou"] == 1
    assert 0.7 < rows["4×4"]["iou"] < min(rows["2×2"]["iou"], 1), "pictures of 24 pixels"
    assert all(row["with_object"] == 0.8 for row in rows.values())
    with pytest.raises(BadInput, match="--model TFLITE"):
        called(object_masks.main, images, "--tiles")


@pytest.mark.slow
def test_command_trains_scores_draws_and_resumes(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ("--masks", tmp_path / "masks.npz", "--run", tmp_path, "--out", tmp_path)
    text = called(object_masks.main, images, "--model", model, "--smoke", *places)
    stem = "object_masks_cifar10-smoke"
    found = load_json(tmp_path / f"{stem}.json")
    trained = ["U-Net", "FRM", "ASPP-FRM"]
    trained += [f"{name}, residual" for name in trained]
    assert list(found["training"]) == trained
    published = ["FRM, published", "ASPP-FRM, published"]
    names = [name for name in found["table"] if name != "Telea"]
    assert names == ["linear", "biharmonic", *trained, *published]
    for name in names[:-2]:
        row = found["table"][name]
        assert 5 < row["psnr"] < 60 and row["hole_psnr_95"][0] <= row["hole_psnr"]
    assert text.count("not available") == 2 and re.search(
        r"32.17 \| 0.8714 \|.* - \| +- \|\n", text
    )
    assert str(tmp_path) not in (tmp_path / f"{stem}.json").read_text()
    for end in ("u-net", "aspp-frm-residual", "large"):
        assert Image.open(tmp_path / f"{stem}_{end}.png").size[0] > 200
    monkeypatch.setattr("benchmarks.recipes.plain_epoch", None)  # nothing is left to train
    called(object_masks.main, images, "--smoke", *places)
    assert load_json(tmp_path / f"{stem}.json") == found


def test_notebook_and_its_twin_are_one_text() -> None:
    notebook = nbformat.read(ROOT / "benchmarks" / "object_masks.ipynb", as_version=4)
    twin = jupytext.read(ROOT / "benchmarks" / "object_masks.md")
    assert [(c.cell_type, c.source.strip()) for c in notebook.cells] == [
        (c.cell_type, c.source.strip()) for c in twin.cells
    ]
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    compile(code, "object_masks.ipynb", "exec")
