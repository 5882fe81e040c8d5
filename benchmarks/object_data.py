"""Pictures with an object each as hole: CIFAR-10 with DeepLabV3, photographs with drawn objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.draw import polygon2mask
from torch.utils.data import TensorDataset
from tqdm.auto import tqdm

from nogaps.Assessment import corrupt
from nogaps.runtime.device import autocast, autocast_dtype, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_npy, open_regular, parsing, save_npy
from nogaps.runtime.seeds import numbered_generator

SIDE = 32  # pixels of a picture
SHARD = 1000  # masks in one file
BATCH = 32  # pictures that are segmented at a time
STUDY = "pip install 'nogaps[study]'"
WITHOUT = "or run with --images FOLDER or --images sample"
SHIPPED = {  # colour photographs inside the wheels of these packages
    "skimage": "data/astronaut.png data/chelsea.png data/coffee.png data/motorcycle_left.png "
    "data/rocket.jpg",
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
}


class Pictures(NamedTuple):
    """Pictures x (N,3,H,W) float32 in [0,1], masks (N,1,H,W) bool, and what each comes from."""

    x: torch.Tensor
    mask: torch.Tensor
    groups: list[str]

    def triples(self) -> TensorDataset:
        """Return (y, x, mask), y corrupted."""
        return TensorDataset(corrupt(self.x, self.mask), self.x, self.mask)


def colour(pixels: np.ndarray) -> torch.Tensor:
    """Return pictures (N,H,W,3) uint8 as (N,3,H,W) float32 in [0,1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


# photographs ---------------------------------------------------------------------------------


def photographs(source: str) -> dict[str, np.ndarray]:
    """Read colour pictures (H,W,3) uint8 by name.

    Args:
        source: A folder of PNG and JPG, or "sample": what scikit-image and scikit-learn ship.

    Raises:
        BadInput: A picture is unreadable or smaller than 32×32, or there are fewer than two.
    """
    if source == "sample":
        paths = [_package(name) / one for name, all_ in SHIPPED.items() for one in all_.split()]
    elif Path(source).is_dir():
        stills = (".png", ".jpg", ".jpeg")
        paths = [p for p in sorted(Path(source).rglob("*")) if p.suffix.lower() in stills]
    else:
        raise BadInput("is not a folder", "one with PNG or JPG, or 'sample'", path=source)
    if len(paths) < 2:
        raise BadInput(f"holds {len(paths)} pictures", "two or more to split", path=source)
    return {path.as_posix().removeprefix(f"{source}/"): read_photograph(path) for path in paths}


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise BadInput("is not installed, whose photographs are trained on", STUDY, path=name)
    return Path(spec.origin).parent


def read_photograph(path: Path) -> np.ndarray:
    """Read a PNG or JPG as (H,W,3) uint8; BadInput if unreadable or smaller than 32×32."""
    with open_regular(path) as file, parsing(path, "a PNG or JPG picture"):
        pixels = np.asarray(Image.open(file, formats=["PNG", "JPEG"]).convert("RGB"))
    if min(pixels.shape[:2]) < SIDE:
        height, width = pixels.shape[:2]
        raise BadInput(f"is {height}×{width}", f"{SIDE}×{SIDE} or more", path=path)
    return pixels


def random_crop(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (32,32,3) uint8 from a random place: a square of 1 to 4 times the side, averaged."""
    height, width, _ = photo.shape
    factor = int(rng.integers(1, min(4, min(height, width) // SIDE) + 1))
    edge = SIDE * factor
    top, left = rng.integers(height - edge + 1), rng.integers(width - edge + 1)
    piece = photo[top : top + edge, left : left + edge]
    piece = piece.reshape(SIDE, factor, SIDE, factor, 3).mean((1, 3))
    return piece.round().astype(np.uint8)


def draw_object(rng: np.random.Generator) -> np.ndarray:
    """Draw an ellipse, polygon or blob of 5 to 40 % of the area, bool (32,32)."""
    while True:
        radius = OUTLINES[rng.integers(len(OUTLINES))](rng)
        angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) + rng.uniform(0, 2 * np.pi)
        centre = rng.uniform(0.25, 0.75, 2) * SIDE
        size = rng.uniform(0.1, 0.5) * SIDE
        points = centre + size * radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
        drawn = polygon2mask((SIDE, SIDE), points)
        if 0.05 <= drawn.mean() <= 0.4:
            return drawn


def _ellipse(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return 1 / np.hypot(np.cos(angle), rng.uniform(1, 3) * np.sin(angle))


def _polygon(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.4, 1, rng.integers(4, 10))


def _blob(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves = sum(rng.normal() / k * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 7))
    return np.exp(0.4 * waves)


OUTLINES: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (_ellipse, _polygon, _blob)


def crops_with_objects(photos: dict[str, np.ndarray], count: int, seed: int) -> Pictures:
    """Return crops, equally many of each photograph, each with a drawn object as its hole.

    Crop k depends on the seed and k only.
    """
    names = [list(photos)[k % len(photos)] for k in range(count)]
    images, objects = [], []
    for k, name in enumerate(names):
        rng = np.random.default_rng([seed, k])
        images.append(random_crop(photos[name], rng))
        objects.append(draw_object(rng))
    masks = torch.from_numpy(~np.stack(objects))[:, None]
    return Pictures(colour(np.stack(images)), masks, names)


# CIFAR-10 ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    try:
        yield
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        problem = f"cannot be imported ({error})"
        raise BadInput(problem, f"as of {STUDY}, {WITHOUT}", path="torchvision") from error


def cifar10(folder: Path, train: bool) -> torch.Tensor:
    """Return CIFAR-10 (Krizhevsky 2009), (50000|10000,3,32,32); downloaded if not in `folder`.

    Raises:
        BadInput: torchvision or the data cannot be had, and what to do.
    """
    with _torchvision():
        from torchvision.datasets import CIFAR10
    try:
        return colour(CIFAR10(str(folder), train=train, download=True).data)
    except (OSError, RuntimeError) as error:
        problem = f"CIFAR-10 cannot be fetched ({error})"
        raise BadInput(problem, f"cifar-10-batches-py there, {WITHOUT}", path=folder) from error


def _segmenter() -> Callable[[torch.Tensor], torch.Tensor]:
    """DeepLabV3-ResNet50 (arXiv 1706.05587): (N,3,H,W) to classes (N,h,w), 0 = background."""
    with _torchvision():
        from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50
    weights, device = DeepLabV3_ResNet50_Weights.DEFAULT, pick_device()
    try:
        model = deeplabv3_resnet50(weights=weights).eval().requires_grad_(False).to(device)
    except (OSError, RuntimeError) as error:
        problem = f"the weights of DeepLabV3 cannot be fetched ({error})"
        expected = f"{weights.url.rsplit('/', 1)[-1]} there, {WITHOUT}"
        raise BadInput(problem, expected, path=f"{torch.hub.get_dir()}/checkpoints") from error
    prepare = weights.transforms()

    @torch.no_grad()
    def segment(x: torch.Tensor) -> torch.Tensor:
        with autocast(device, autocast_dtype(device)):
            return model(prepare(x.to(device)))["out"].argmax(1).cpu()

    return segment


def pick_object(classes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return one of the classes in (h,w), at random, as bool (32,32); none: all False."""
    found = classes.unique()
    found = found[found > 0]
    if not len(found):
        return torch.zeros(SIDE, SIDE, dtype=torch.bool)
    one = found[torch.randint(len(found), (), generator=generator)]
    small = F.interpolate((classes == one).float()[None, None], (SIDE, SIDE), mode="nearest")
    return small[0, 0].bool()


def object_masks(x: torch.Tensor, stem: Path, seed: int) -> torch.Tensor:
    """Find the objects that DeepLabV3 sees in x (N,3,32,32): masks (N,1,32,32), True = observed.

    Masks are written in files STEM-FIRST-LAST.npy, and those that are there are not made again.
    Picture k's object depends on the seed and k only.
    """
    segment: Callable[[torch.Tensor], torch.Tensor] | None = None
    shards = []
    for start in tqdm(range(0, len(x), SHARD), desc=f"{stem.name} masks", disable=None):
        part = x[start : start + SHARD]
        path = stem.with_name(f"{stem.name}-{start}-{start + len(part) - 1}.npy")
        if not path.exists():
            segment = segment or _segmenter()
            classes = [one for batch in part.split(BATCH) for one in segment(batch)]
            objects = [
                pick_object(one, numbered_generator(seed, start + k))
                for k, one in enumerate(classes)
            ]
            save_npy(path, ~torch.stack(objects).numpy())
        shards.append(torch.from_numpy(load_npy(path)))
    return torch.cat(shards)[:, None]
