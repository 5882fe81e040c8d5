"""Pictures with an object each as hole: CIFAR-10 with DeepLabV3, photographs with drawn objects."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.draw import polygon2mask
from tqdm.auto import tqdm

from nogaps.Assessment import corrupt
from nogaps.images.arrays import check_pixels
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.device import autocast, autocast_dtype, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_npy, open_regular, parsing, save_npy
from nogaps.runtime.seeds import numbered_generator

SIDE = 32  # pixels of a picture
SHARD = 1000  # masks in one file
STUDY = "pip install 'nogaps[study]'"
WITHOUT = "or run with --images FOLDER or --images sample"
STILLS = (".png", ".jpg", ".jpeg")
SHIPPED = {  # colour photographs inside the wheels of these packages
    "skimage": (
        "data",
        ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}


@dataclass(frozen=True)
class MaskedPictures:
    """Pictures (N,3,H,W) uint8, a mask for each (N,1,H,W) bool, True = observed; a training Source.

    groups: what each picture comes from, for intervals.
    """

    images: torch.Tensor
    masks: torch.Tensor
    groups: tuple[str, ...]

    def __len__(self) -> int:
        """Pictures."""
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any pixel or mask."""
        return fingerprint(self.images, self.masks)

    def batch(self, which: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(y, x, mask) of some pictures: y and x float32 in [0,1]."""
        x, mask = self.images[which].float() / 255, self.masks[which]
        return corrupt(x, mask), x, mask

    def __call__(
        self, generator: torch.Generator, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """All whole batches of one epoch, shuffled; one smaller batch if there is no whole one."""
        order = torch.randperm(len(self), generator=generator)
        for part in order.split(batch_size):
            if len(part) == min(batch_size, len(self)):
                yield self.batch(part)


# photographs ---------------------------------------------------------------------------------


def photographs(source: str) -> dict[str, np.ndarray]:
    """Colour pictures (H,W,3) uint8 by name, from a folder of PNG and JPG, or "sample".

    "sample": those shipped with scikit-image and scikit-learn; an absent package is told on stderr.
    Raises BadInput for an unreadable picture, one smaller than 32×32, or fewer than two.
    """
    if source == "sample":
        paths = {path.name: path for path in _shipped()}
    elif Path(source).is_dir():
        found = (p for p in sorted(Path(source).rglob("*")) if p.suffix.lower() in STILLS)
        paths = {path.relative_to(source).as_posix(): path for path in found}
    else:
        raise BadInput(f"{source}: is not a folder, expected one with PNG or JPG, or 'sample'")
    if len(paths) < 2:
        raise BadInput(f"{source}: holds {len(paths)} pictures, expected two or more to split")
    return {name: read_photograph(path) for name, path in paths.items()}


def _shipped() -> Iterator[Path]:
    for package, (folder, names) in SHIPPED.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            text = f"{package} is not installed: {', '.join(names)} left out ({STUDY})"
            print(f"object_masks: {text}", file=sys.stderr)
            continue
        paths = (Path(spec.origin).parent / folder / name for name in names)
        yield from (path for path in paths if path.exists())


def read_photograph(path: Path) -> np.ndarray:
    """(H,W,3) uint8 of a PNG or JPG. Raises BadInput if unreadable or smaller than 32×32."""
    with open_regular(path) as file, parsing(path, "a PNG or JPG picture"):
        picture = Image.open(file, formats=["PNG", "JPEG"])
        check_pixels(path, picture.height, picture.width)
        pixels = np.asarray(picture.convert("RGB"))
    if min(pixels.shape[:2]) < SIDE:
        height, width = pixels.shape[:2]
        raise BadInput(f"{path}: is {height}×{width}, expected {SIDE}×{SIDE} or more")
    return pixels


def split_by_photograph(
    photos: dict[str, np.ndarray], seed: int, share: float = 0.3
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Photographs to train on and to test on; at least one of each."""
    names = sorted(photos)
    count = min(len(names) - 1, max(1, round(share * len(names))))
    held_out = set(np.random.default_rng(seed).permutation(names)[:count])
    train = {name: photos[name] for name in names if name not in held_out}
    return train, {name: photos[name] for name in names if name in held_out}


def random_crop(photo: np.ndarray, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """(3,side,side) uint8 from a random place: a square of 1 to 4 times the side, averaged down."""
    height, width, _ = photo.shape
    factor = int(rng.integers(1, min(4, min(height, width) // side) + 1))
    top = rng.integers(height - side * factor + 1)
    left = rng.integers(width - side * factor + 1)
    piece = photo[top : top + side * factor, left : left + side * factor]
    piece = piece.reshape(side, factor, side, factor, 3).mean((1, 3))
    return piece.round().astype(np.uint8).transpose(2, 0, 1)


def draw_object(
    rng: np.random.Generator, side: int = SIDE, low: float = 0.05, high: float = 0.4
) -> np.ndarray:
    """A drawn object, bool (side,side): ellipse, polygon or blob of `low` to `high` of the area."""
    while True:
        radius = _OUTLINES[rng.integers(len(_OUTLINES))](rng)
        angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) + rng.uniform(0, 2 * np.pi)
        centre = rng.uniform(0.25, 0.75, 2) * side
        size = rng.uniform(0.1, 0.5) * side
        points = centre + size * radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
        drawn = polygon2mask((side, side), points)
        if low <= drawn.mean() <= high:
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


_OUTLINES: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (_ellipse, _polygon, _blob)


def crops_with_objects(photos: dict[str, np.ndarray], count: int, seed: int) -> MaskedPictures:
    """`count` 32×32 crops, equally many of each photograph, each with a drawn object as its hole.

    Crop k depends on the seed and k only.
    """
    names = [list(photos)[k % len(photos)] for k in range(count)]
    images, objects = [], []
    for k, name in enumerate(names):
        rng = np.random.default_rng([seed, k])
        images.append(random_crop(photos[name], rng))
        objects.append(draw_object(rng))
    masks = torch.from_numpy(~np.stack(objects))[:, None]
    return MaskedPictures(torch.from_numpy(np.stack(images)), masks, tuple(names))


# CIFAR-10 ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    try:
        yield
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        text = f"torchvision: cannot be imported ({error})"
        raise BadInput(f"{text}, expected as of {STUDY}, {WITHOUT}") from error


def cifar10(folder: Path, train: bool) -> torch.Tensor:
    """CIFAR-10 (Krizhevsky 2009), (50000|10000,3,32,32) uint8; downloaded if it is not in `folder`.

    Raises BadInput with what to do if torchvision or the data cannot be had.
    """
    with _torchvision():
        from torchvision.datasets import CIFAR10
    try:
        pixels = CIFAR10(str(folder), train=train, download=True).data
    except (OSError, RuntimeError) as error:
        need = f"put cifar-10-batches-py there (--data), {WITHOUT}"
        raise BadInput(f"{folder}: CIFAR-10 cannot be fetched ({error}); {need}") from error
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _segmenter() -> Callable[[torch.Tensor], torch.Tensor]:
    """DeepLabV3-ResNet50 (arXiv 1706.05587): (N,3,H,W) uint8 to classes (N,h,w), 0 = background."""
    with _torchvision():
        from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50
    weights, device = DeepLabV3_ResNet50_Weights.DEFAULT, pick_device()
    try:
        model = deeplabv3_resnet50(weights=weights).eval().requires_grad_(False).to(device)
    except (OSError, RuntimeError) as error:
        name = weights.url.rsplit("/", 1)[-1]
        need = f"put {name} into {torch.hub.get_dir()}/checkpoints (--weights), {WITHOUT}"
        raise BadInput(f"DeepLabV3: weights cannot be fetched ({error}); {need}") from error
    prepare = weights.transforms()

    @torch.no_grad()
    def segment(images: torch.Tensor) -> torch.Tensor:
        with autocast(device, autocast_dtype(device)):
            return model(prepare(images.to(device)))["out"].argmax(1)

    return segment


def pick_object(classes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the classes found in (h,w), at random, as bool (32,32); none found: all False."""
    found = classes.unique()
    found = found[found > 0]
    if not len(found):
        return torch.zeros(SIDE, SIDE, dtype=torch.bool)
    one = found[torch.randint(len(found), (), generator=generator)]
    small = F.interpolate((classes == one).float()[None, None], (SIDE, SIDE), mode="nearest")
    return small[0, 0].bool()


def object_masks(images: torch.Tensor, stem: Path, seed: int, batch_size: int = 32) -> torch.Tensor:
    """Masks of objects that DeepLabV3 sees in (N,3,32,32) uint8: (N,1,32,32) bool, True = observed.

    Written as STEM-00000.npy and so on, 1000 masks each; those that are there are read, not made
    again, unless they are fewer than now. Picture k's object depends on the seed and k only.
    """
    segment: Callable[[torch.Tensor], torch.Tensor] | None = None
    shards = []
    for start in tqdm(range(0, len(images), SHARD), desc=f"{stem.name} masks", disable=None):
        path = stem.with_name(f"{stem.name}-{start:05}.npy")
        part = images[start : start + SHARD]
        shard = _read_masks(path) if path.exists() else None
        if shard is None or len(shard) < len(part):
            segment = segment or _segmenter()
            shard = _masks_of(part, start, segment, seed, batch_size).numpy()
            save_npy(path, shard)
        shards.append(torch.from_numpy(shard[: len(part)]))
    return torch.cat(shards)[:, None]


def _read_masks(path: Path) -> np.ndarray:
    shard = load_npy(path)
    if shard.shape[1:] != (SIDE, SIDE) or shard.dtype != bool:
        found = f"{shard.dtype} {shard.shape}"
        raise BadInput(f"{path}: holds {found}, expected bool (N, {SIDE}, {SIDE})")
    return shard


def _masks_of(
    images: torch.Tensor,
    first: int,
    segment: Callable[[torch.Tensor], torch.Tensor],
    seed: int,
    batch_size: int,
) -> torch.Tensor:
    """(n,32,32) bool, True = observed, of pictures numbered from `first`."""
    masks = []
    for batch in images.split(batch_size):
        for classes in segment(batch).cpu():
            generator = numbered_generator(seed, first + len(masks))
            masks.append(~pick_object(classes, generator))
    return torch.stack(masks)
