"""Two sets of images compared: can they be told apart, how far apart, who copies whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import mannwhitneyu

from nogaps.augmentation import sharpen
from nogaps.runtime.seeds import numbered_generator

Features = Callable[[torch.Tensor], np.ndarray]  # images (N,C,H,W) in [0,1] to rows (N,d) float64
FEATURES = (
    "up to 64 principal components of random convolutions at 3 scales, fitted to train frames"
)


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
    """Return `Heads` of images x, each divided by its 99.7th percentile and clipped to [0,1].

    Args:
        x: Images (N,1,H,W).
        groups: "file/subject" of each image.
        ids: Numbers of the images; else all of them are different.
    """
    top = x.flatten(1).quantile(0.997, dim=1).clamp(min=1e-6)
    numbers = np.arange(len(x)) if ids is None else np.asarray(ids)
    return Heads((x / top.view(-1, 1, 1, 1)).clamp(0, 1), np.asarray(groups), numbers)


def halves(groups: np.ndarray, sets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose a random half of each set, and of each file's part of it, with no group in both.

    Args:
        groups: "file/subject" of each image, (N,) str.
        sets: The set that an image belongs to, (N,) int.
        rng: Draws the order of the groups.

    Returns:
        bool (N,), True for images of the first half.
    """
    names, which = np.unique(groups, return_inverse=True)
    rows = [which[sets == s] for s in np.unique(sets)]
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in rows])
    files = np.unique([name.partition("/")[0] for name in names], return_inverse=True)[1]
    _, kinds = np.unique(np.vstack([counts > 0, files]), axis=1, return_inverse=True)
    chosen, ahead = np.zeros(len(names), bool), np.zeros(len(counts))
    for kind in range(kinds.max() + 1):
        order = rng.permutation(np.flatnonzero(kinds.ravel() == kind))
        size = counts[:, order].sum(0)
        early = size.cumsum() - size / 2 <= size.sum() / 2
        early = early if ahead @ counts[:, order].sum(1) <= 0 else ~early
        chosen[order[early]] = True
        ahead += counts[:, order] @ np.where(early, 1, -1)
    return chosen[which]


def roc_auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive score exceeds a negative one."""
    scores = (values.astype(np.float64) for values in (positive, negative))
    wins = mannwhitneyu(*scores, method="asymptotic").statistic
    return float(wins / (len(positive) * len(negative)))


class Classifier(torch.nn.Sequential):
    """A small CNN from images (N,1,H,W) in [0,1] to logits (N,1).

    It sees the image and its unsharp residual: a fifth less gradient energy is detected with an
    AUC of 0.7 without the residual, of 0.95 with it.
    """

    def __init__(self) -> None:
        widths, kernels = (2, 32, 64, 64), (5, 3, 3)
        layers: list[torch.nn.Module] = []
        for (a, b), kernel in zip(pairwise(widths), kernels, strict=True):
            layers.append(torch.nn.Conv2d(a, b, kernel, stride=2, padding=kernel // 2))
            layers += [torch.nn.GroupNorm(8, b), torch.nn.SiLU()]
        head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(widths[-1], 1)]
        super().__init__(*layers, *head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of images x."""
        return super().forward(torch.cat([x, sharpen(x, 5.0) - x], 1))


def classifier_auc(a: Heads, b: Heads, steps: int = 200, seed: int = 0) -> float:
    """Train a CNN to tell b from a on half of the groups; return its AUC on the other half.

    Source: the classifier two-sample test (arXiv 1610.06545). An AUC of 0.5 means that the sets
    cannot be told apart. Each of the `steps` batches has 32 images of each set, shifted at random
    by up to two pixels.
    """
    x = torch.cat([a.x, b.x])
    label = np.repeat([0, 1], [len(a), len(b)])
    side = halves(np.concatenate([a.groups, b.groups]), label, np.random.default_rng(seed))
    pools = [torch.from_numpy(np.flatnonzero(side & (label == k))) for k in (0, 1)]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
        torch.manual_seed(seed)
        model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    target = torch.arange(2.0).repeat_interleave(32)[:, None]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        picks = [p[torch.randint(len(p), (32,), generator=generator)] for p in pools]
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        logit = model(x[torch.cat(picks)].roll(shift, (2, 3)))
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(logit, target).backward()
        optimizer.step()
    with torch.no_grad():
        rest = x[torch.from_numpy(~side)].split(128)
        score = torch.cat([model.eval()(batch)[:, 0] for batch in rest]).numpy()
    return roc_auc(score[label[~side] == 1], score[label[~side] == 0])


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


def power_spectrum(x: torch.Tensor) -> np.ndarray:
    """Return the mean radial power spectrum of images x (N,1,H,W), centred and Hann-windowed.

    At 1, 2, … s/2 cycles per s pixels, s = min(H, W), averaged over rings one cycle wide.
    """
    height, width = x.shape[-2:]
    side = min(height, width)
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    centred = (x - x.mean((1, 2, 3), keepdim=True)) * window
    power = torch.fft.fft2(centred).abs().square().mean((0, 1)).numpy()
    down, across = np.fft.fftfreq(height, 1 / side), np.fft.fftfreq(width, 1 / side)
    ring = np.rint(np.hypot(down[:, None], across)).astype(int).ravel()
    return (np.bincount(ring, power.ravel()) / np.bincount(ring))[1 : side // 2 + 1]
