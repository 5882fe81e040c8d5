"""Measures of two sets of images: how far apart they are, and which images are copies."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from nogaps.prior.frames import unit_range
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.seeds import numbered_generator

Features = Callable[[torch.Tensor], np.ndarray]  # images (N,C,H,W) in [0,1] to rows (N,d) float64
FEATURES = (
    "up to 64 principal components of random convolutions at 3 scales, fitted to train frames"
)
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # of torch-fidelity


@dataclass(frozen=True)
class Heads:
    """A set of images, in which an image may stand several times."""

    x: torch.Tensor  # (N,1,H,W) in [0,1]
    groups: np.ndarray  # "file/subject" of each image, (N,) str
    ids: np.ndarray  # numbers of the images, (N,) int; copies of one image have one number

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.x)

    def __getitem__(self, index: np.ndarray) -> Heads:
        """Return the images of an array of numbers or of bool."""
        return Heads(self.x[torch.from_numpy(index)], self.groups[index], self.ids[index])

    def distinct(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return the index of at most n different images in random order."""
        order = rng.permutation(len(self))
        _, first = np.unique(self.ids[order], return_index=True)
        return order[np.sort(first)[:n]]


def heads(x: torch.Tensor, groups: Sequence[str], ids: Sequence[int] | None = None) -> Heads:
    """Return images x (N,1,H,W), scaled by `unit_range`, with the "file/subject" of each.

    ids: Numbers of the images; else all of them are different.
    """
    numbers = np.arange(len(x)) if ids is None else np.asarray(ids)
    return Heads(unit_range(x[:, 0].numpy()), np.asarray(groups), numbers)


def half_of_groups(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose a random half of the groups, about a half of each file's: bool (N,), True = chosen.

    groups: "file/subject" of each image, (N,) str.
    """
    names = rng.permutation(np.unique(groups))
    by_file = names[np.argsort(np.char.partition(names, "/")[:, 0], kind="stable")]
    return np.isin(groups, by_file[::2])


@torch.no_grad()
def _responses(x: torch.Tensor) -> torch.Tensor:
    """Rectified random convolutions of x (N,1,H,W), averaged over 4×4 cells, at three scales.

    Untrained filters favour no kind of image, while features learnt from ImageNet suit images
    like those (arXiv 2002.09797).
    """
    rows = [F.adaptive_avg_pool2d(x, 8).flatten(1)]
    for scale in range(3):
        filters = torch.randn(16, 1, 5, 5, generator=numbered_generator(0, scale))
        filters = filters - filters.mean((2, 3), keepdim=True)
        filters = filters / filters.square().sum((2, 3), keepdim=True).sqrt()
        rows.append(F.adaptive_avg_pool2d(F.conv2d(x, filters).abs(), 4).flatten(1))
        x = F.avg_pool2d(x, 2)
    return torch.cat(rows, 1)


def feature_space(x: torch.Tensor, size: int = 64) -> Features:
    """Fit the space that `FEATURES` describes to images x (N,1,H,W).

    It has `size` features or fewer; those of x have mean 0 and mean square 1.
    """

    def responses(images: torch.Tensor) -> np.ndarray:
        return torch.cat([_responses(batch) for batch in images.split(128)]).double().numpy()

    raw = responses(x)
    mean, std = raw.mean(0), raw.std(0) + 1e-6
    _, values, axes = np.linalg.svd((raw - mean) / std, full_matrices=False)
    size = min(size, int((values > 1e-6 * values[0]).sum()))
    scale = np.sqrt(np.square(values[:size]).sum() / (len(x) * size))
    return lambda images: (responses(images) - mean) / std @ axes[:size].T / scale


def load_inception(path: str | Path) -> Features:
    """Load the feature space that FID (arXiv 1706.08500) is defined by.

    No code that the file may hold is run.

    Args:
        path: State dict of torch-fidelity's Inception v3 (.pth).

    Returns:
        The function from images (N,1|3,H,W) in [0,1] to features (N,2048).

    Raises:
        BadInput: The weights cannot be used, or torch-fidelity cannot be imported.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        finite = all(value.isfinite().all() for value in state.values())
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", INCEPTION, path=path) from error
    except Exception as error:  # zip, pickle and torch raise errors of many kinds
        problem = "is damaged, or holds more than tensors"
        raise BadInput(problem, INCEPTION, path=path) from error
    if not finite:
        raise BadInput("holds NaN or infinite weights", INCEPTION, path=path)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:  # torchvision built for another torch raises RuntimeError
        problem = f"torch-fidelity cannot be imported ({' '.join(str(error).split())[:80]})"
        raise BadInput(problem, "that of the extra `study`", path=path) from error
    # torch-fidelity would unpickle the file without restriction: it gets the tensors just read
    tensors = io.BytesIO()
    torch.save(state, tensors)
    tensors.seek(0)
    try:
        with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
            network = FeatureExtractorInceptionV3("inception", ["2048"], tensors)
    except RuntimeError as error:
        raise BadInput("holds the tensors of another network", INCEPTION, path=path) from error
    return partial(network_features, network.to(pick_device()))


@torch.no_grad()
def network_features(network: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """Return features (N,d), float64, of images x (N,1|3,H,W) in [0,1], taken as 8 bits."""
    device = next(network.parameters()).device
    colour = (255 * x).round().byte().expand(-1, 3, -1, -1)
    rows = [network(batch.to(device))[0].cpu() for batch in colour.split(32)]
    return torch.cat(rows).double().numpy()


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to features (N,d) and (M,d).

    |mu_a - mu_b|² + tr(C_a + C_b - 2 (C_a C_b)^½), arXiv 1706.08500; biased upwards for few rows.
    """
    cov_a, cov_b = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(shift + np.trace(cov_a + cov_b) - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared MMD of features (N,d) and (M,d), kernel (x·y/d + 1)³.

    Source: arXiv 1801.01401.
    """

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p @ q.T / p.shape[1] + 1) ** 3

    def within(p: np.ndarray) -> float:
        values = kernel(p, p)
        return (values.sum() - np.trace(values)) / (len(p) * (len(p) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Return which fake features (M,d) lie among the real (N,d), and which real among the fake.

    "Among": within the distance from one of them to its k-th nearest neighbour. The means are
    precision and recall (arXiv 1904.06991); they depend on N and M.
    """

    def inside(points: torch.Tensor, manifold: torch.Tensor) -> np.ndarray:
        k_th = min(k, len(manifold) - 1) + 1  # the nearest is the point itself
        radius = torch.cdist(manifold, manifold).kthvalue(k_th, dim=1).values
        return (torch.cdist(points, manifold) <= radius).any(1).numpy()

    p, q = torch.from_numpy(fake), torch.from_numpy(real)
    return inside(p, q), inside(q, p)


class Neighbours(NamedTuple):
    """The image of a set that is nearest to each of N images."""

    index: np.ndarray  # its number in the set, (N,)
    distance: np.ndarray  # 1 - correlation, (N,)
    ratio: np.ndarray  # of Euclidean distances, to it over to the nearest of another group, (N,)


def neighbours(a: Heads, b: Heads) -> Neighbours:
    """Find the nearest image of b for each image of a; copies do not count where a is b."""

    def standardise(x: torch.Tensor) -> torch.Tensor:
        flat = x.double().flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6)

    distance = 1 - (standardise(a.x) @ standardise(b.x).T).numpy()
    euclid = torch.cdist(a.x.flatten(1).double(), b.x.flatten(1).double()).numpy()
    if a is b:
        own = a.ids[:, None] == b.ids
        distance[own], euclid[own] = np.inf, np.inf
    rows, index, near = np.arange(len(a)), distance.argmin(1), euclid.argmin(1)
    others = np.where(b.groups[near][:, None] == b.groups, np.inf, euclid).min(1)
    return Neighbours(index, distance[rows, index], euclid[rows, near] / np.maximum(others, 1e-6))
