"""CIFAR-10 with an object each as hole: the pictures, and what DeepLabV3 sees in them."""

from __future__ import annotations

import contextlib
import time
import zipfile
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.data import astronaut
from torch.utils.data import TensorDataset

from benchmarks.harness import cores
from nogaps.Assessment import corrupt
from nogaps.runtime.device import autocast, autocast_dtype, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import open_regular, parsing, save_npz
from nogaps.runtime.progress import progress
from nogaps.runtime.seeds import numbered_generator

SIDE = 32  # pixels of a picture
ROW = SIDE * SIDE // 8  # bytes of a mask
COMPARED = 200  # pictures that tiles are compared on
CHUNK = 32  # pictures that are segmented between two writes
Segment = Callable[[np.ndarray], np.ndarray]  # (N,32,32,3) uint8 to classes (N,32,32), 0: none


class Pictures(NamedTuple):
    """Pictures x (N,3,H,W) float32 in [0,1], and masks (N,1,H,W) bool, True = observed."""

    x: torch.Tensor
    mask: torch.Tensor

    def triples(self) -> TensorDataset:
        """Return (y, x, mask), y corrupted."""
        return TensorDataset(corrupt(self.x, self.mask), self.x, self.mask)


def colour(pixels: np.ndarray) -> torch.Tensor:
    """Return pictures (N,H,W,3) uint8 as (N,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def read_pictures(source: Path, part: str, count: int) -> np.ndarray:
    """Read the first pictures of a part, equally many of each class, (count,32,32,3) uint8.

    Args:
        source: A folder or zip that holds PART/CLASS/NUMBER.jpg, or .png.
        part: "train" or "test".
        count: How many; fewer are the first of more.

    Raises:
        BadInput: There are fewer, or one is unreadable or of another size.
    """
    with parsing(source, f"a zip or folder with {part}/CLASS/0000.jpg"):
        root = source
        if not source.is_dir():
            root = zipfile.Path(zipfile.ZipFile(open_regular(source)))
        classes = [folder for folder in (root / part).iterdir() if folder.is_dir()]
        named = [(file.name, folder.name, file) for folder in classes for file in folder.iterdir()]
    stills = [each for each in named if each[0].endswith((".jpg", ".png"))]
    if len(stills) < count:
        problem = f"holds {len(stills)} pictures {part}/CLASS/0000.jpg"
        raise BadInput(problem, f"{count} or more", path=source)
    return np.stack([_pixels(file) for *_, file in sorted(stills, key=itemgetter(0, 1))[:count]])


def _pixels(path: Path | zipfile.Path) -> np.ndarray:
    with parsing(str(path), "a JPEG or PNG of 32×32"), path.open("rb") as file:
        picture = Image.open(file, formats=["JPEG", "PNG"])
        if picture.size != (SIDE, SIDE):
            raise ValueError("{}×{} pixels".format(*picture.size))
        return np.asarray(picture.convert("RGB"))


def large_picture(side: int) -> Pictures:
    """Return a portrait with one large hole in its middle."""
    pixels = np.asarray(Image.fromarray(astronaut()).resize((side, side), Image.Resampling.BOX))
    y, x = np.mgrid[:side, :side] / side - 0.5
    mask = torch.from_numpy(np.hypot(x, y) > 0.25 + 0.05 * np.sin(3 * np.arctan2(y, x)))
    return Pictures(colour(pixels[None]), mask[None, None])


# objects ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _importing(package: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        problem = f"cannot be imported ({error})"
        raise BadInput(problem, "as of pip install 'nogaps[study]'", path=package) from error


def resnet_deeplab() -> Segment:
    """Return torchvision's DeepLabV3-ResNet50 (arXiv 1706.05587), downloaded; else BadInput."""
    with _importing("torchvision"):
        from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50
    weights, device = DeepLabV3_ResNet50_Weights.DEFAULT, pick_device()
    try:
        model = deeplabv3_resnet50(weights=weights).eval().requires_grad_(False).to(device)
    except (OSError, RuntimeError) as error:
        problem = f"the weights of DeepLabV3 cannot be fetched ({error})"
        expected = f"{weights.url.rsplit('/', 1)[-1]} there, or run with --model TFLITE"
        raise BadInput(problem, expected, path=f"{torch.hub.get_dir()}/checkpoints") from error
    prepare = weights.transforms()

    @torch.no_grad()
    def segment(pixels: np.ndarray) -> np.ndarray:
        with autocast(device, autocast_dtype(device)):
            classes = model(prepare(colour(pixels).to(device)))["out"].argmax(1, keepdim=True)
        small = F.interpolate(classes.float(), (SIDE, SIDE), mode="nearest-exact")
        return small[:, 0].long().cpu().numpy()

    return segment


def tflite_deeplab(model: Path, tiles: int = 1) -> Segment:
    """Return a quantised DeepLabV3, to which pictures are enlarged.

    Args:
        model: A .tflite; input (1,S,S,3) uint8, output (1,S,S) classes.
        tiles: So many pictures a side share one input.

    Raises:
        BadInput: ai-edge-litert is not installed, or the model is damaged.
    """
    with _importing("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    # the default delegate cannot prepare the graph of MobileNetV2's DeepLabV3
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with open_regular(model) as file, parsing(model, "a TFLite DeepLabV3"):
        options = {"num_threads": cores(), "experimental_op_resolver_type": resolver}
        interpreter = Interpreter(model_content=file.read(), **options)
        interpreter.allocate_tensors()
        (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
        size = int(given["shape"][1])
    cell = size // tiles
    centres = ((np.arange(SIDE) + 0.5) * cell / SIDE).astype(int)

    def segment(pixels: np.ndarray) -> np.ndarray:
        classes = []
        for first in range(0, len(pixels), tiles**2):
            canvas, some = Image.new("RGB", (size, size), "grey"), pixels[first : first + tiles**2]
            corners = [(k // tiles * cell, k % tiles * cell) for k in range(len(some))]
            for (top, left), picture in zip(corners, some, strict=True):
                large = Image.fromarray(picture).resize((cell, cell), Image.Resampling.BICUBIC)
                canvas.paste(large, (left, top))
            interpreter.set_tensor(given["index"], np.asarray(canvas)[None])
            interpreter.invoke()
            (whole,) = interpreter.get_tensor(made["index"])
            classes += [whole[np.ix_(top + centres, left + centres)] for top, left in corners]
        return np.stack(classes)

    return segment


def compare_tiles(images: Path, model: Path | None) -> dict[str, object]:
    """Compare the objects of test pictures that share an input with those of single pictures.

    Returns:
        "model", "pictures", and "tiles": by "2×2" and so on the mean "iou" of where a picture has
        objects (1: both have none), the share "with_object", and "cpu_seconds" a picture.
    """
    if model is None:
        raise BadInput("only an input of one size can be shared", "--model TFLITE")
    pixels, rows, alone = read_pictures(images, "test", COMPARED), {}, None
    for tiles in (1, 2, 3, 4):
        segment, began = tflite_deeplab(model, tiles), time.process_time()
        objects = segment(pixels) > 0
        seconds = (time.process_time() - began) / len(pixels)
        alone = objects if alone is None else alone
        both, either = (part.sum((1, 2)) for part in (objects & alone, objects | alone))
        iou = float(np.where(either > 0, both / np.maximum(either, 1), 1).mean())
        found = float(objects.any((1, 2)).mean())
        rows[f"{tiles}×{tiles}"] = {"iou": iou, "with_object": found, "cpu_seconds": seconds}
    return {"model": model.name, "pictures": len(pixels), "tiles": rows}


# masks -----------------------------------------------------------------------------------------


def pick_object(classes: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Return where one of the classes in (32,32) is, at random, bool; none: all False."""
    found = np.unique(classes[classes > 0])
    if not len(found):
        return np.zeros(classes.shape, bool)
    return classes == found[int(torch.randint(len(found), (), generator=generator))]


def load_masks(path: Path) -> dict[str, np.ndarray]:
    """Return packed bits (N,128) uint8 by part, and "made_of": a .npz; empty if there is none."""
    if not path.exists():
        return {}
    with open_regular(path) as file, parsing(path, "masks that this study made"):
        stored = dict(np.load(file, allow_pickle=False))
        shapes = {name: array.shape[1:] for name, array in stored.items()}
        if shapes.pop("made_of") or any(shape != (ROW,) for shape in shapes.values()):
            raise ValueError(f"arrays of {shapes}")
    return stored


def object_masks(
    pixels: np.ndarray, part: str, path: Path, model: Path | None, seed: int
) -> torch.Tensor:
    """Return the masks of the first pictures of a part, (N,1,32,32) bool, True = observed.

    Those that `path` lacks are made and added; an interrupted call continues to the same bits.

    Args:
        pixels: Pictures (N,32,32,3) uint8.
        part: Name of the pictures in `path`.
        path: See `load_masks`.
        model: See `tflite_deeplab`; None: torchvision's.
        seed: Of the choice where a picture has objects of several classes.

    Raises:
        BadInput: The file is damaged, or lacks masks and was made otherwise.
    """
    stored = load_masks(path)
    packed = stored.get(part, np.zeros((0, ROW), np.uint8))
    if len(packed) < len(pixels):
        made_of = f"{model.name if model else 'torchvision'}, seed {seed}"
        if stored and str(stored["made_of"]) != made_of:
            problem = f"holds {len(packed)} masks of {part}, made by {stored['made_of']}"
            raise BadInput(problem, f"{len(pixels)}, or by {made_of} to continue", path=path)
        segment = tflite_deeplab(model) if model else resnet_deeplab()
        starts = range(len(packed), len(pixels), CHUNK)
        for start in progress(starts, f"{part} masks"):
            objects = [
                pick_object(classes, numbered_generator(seed, start + k))
                for k, classes in enumerate(segment(pixels[start : start + CHUNK]))
            ]
            rows = np.packbits(~np.stack(objects).reshape(len(objects), -1), axis=1)
            packed = np.concatenate([packed, rows])
            save_npz(path, **stored | {"made_of": np.array(made_of), part: packed})
    bits = np.unpackbits(packed[: len(pixels)], axis=1).reshape(-1, 1, SIDE, SIDE)
    return torch.from_numpy(bits).bool()


def mask_facts(mask: torch.Tensor) -> dict[str, float]:
    """Return how many pictures have no object, how many are one, and the share that is missing."""
    missing = (~mask).float().mean((1, 2, 3))
    without, wholly = int((missing == 0).sum()), int((missing == 1).sum())
    counts = {"pictures": len(mask), "without_object": without, "wholly_object": wholly}
    return counts | {"missing": float(missing.mean())}
