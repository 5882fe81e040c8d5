"""Two sets of images compared: can they be told apart, how far apart, who copies whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from nogaps.augmentation import sharpen
from nogaps.metrics import ssim_map
from nogaps.runtime.seeds import numbered_generator

Features = Callable[[torch.Tensor], np.ndarray]
FEATURES = (
    "up to 64 principal components of random convolutions at 3 scales, fitted to train frames"
)


@dataclass(frozen=True)
class Heads:
    """Images with what belongs together.

    x: (N,1,H,W) in [0,1]; groups: "file/subject", (N,) str; ids: (N,) int, the same for copies.
    """

    x: torch.Tensor
    groups: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.x)

    def __getitem__(self, index: np.ndarray) -> Heads:
        """The images of an index array, or of a bool array."""
        return Heads(self.x[torch.from_numpy(index)], self.groups[index], self.ids[index])

    def distinct(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random index of at most n different images; one that is given twice comes sooner."""
        order = rng.permutation(len(self))
        _, first = np.unique(self.ids[order], return_index=True)
        return order[np.sort(first)[:n]]


def heads(x: torch.Tensor, groups: Sequence[str], ids: Sequence[int] | None = None) -> Heads:
    """`Heads` of images normalised by `normalise`."""
    numbers = np.arange(len(x)) if ids is None else np.asarray(ids)
    return Heads(normalise(x), np.asarray(groups), numbers)


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Each image of x (N,1,H,W) divided by its 99.7th percentile and clipped to [0,1]."""
    top = x.flatten(1).quantile(0.997, dim=1).clamp(min=1e-6)
    return (x / top.view(-1, 1, 1, 1)).clamp(0, 1)


def halves(groups: np.ndarray, sets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random half, (N,) bool: half of each set and of each file's part of it, no group in both.

    groups: (N,) str, "file/subject" as `load_frames` names them; sets: (N,) int, which set an
    image belongs to.
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
    """Area under the ROC curve of scores: the chance that a positive one exceeds a negative one."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    n, m = len(positive), len(negative)
    return float((ranks - n * (n + 1) / 2) / (n * m))


class Classifier(torch.nn.Sequential):
    """A small CNN from (N,1,H,W) to (N,1) logits.

    It sees the image and its unsharp residual: without it a fifth less gradient energy is told
    apart with an AUC of 0.7, with it of 0.95.
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
        """Logits of images x in [0,1]."""
        return super().forward(torch.cat([x, sharpen(x, 5.0) - x], 1))


def classifier_auc(a: Heads, b: Heads, steps: int = 200, seed: int = 0) -> float:
    """AUC of a CNN that tells b from a: 0.5 if it cannot, 1 if it always can.

    Classifier two-sample test (arXiv 1610.06545): trained for `steps` batches of 32 images of each
    set, shifted at random by up to two pixels, on one half of the groups; scored on the other.
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
    """`FEATURES` of images (N,1,H,W), fitted to x: arrays (N,size) of mean 0, mean square 1."""

    def responses(images: torch.Tensor) -> np.ndarray:
        return torch.cat([_responses(batch) for batch in images.split(128)]).double().numpy()

    raw = responses(x)
    mean, std = raw.mean(0), raw.std(0) + 1e-6
    _, values, axes = np.linalg.svd((raw - mean) / std, full_matrices=False)
    size = min(size, int((values > 1e-6 * values[0]).sum()))
    scale = np.sqrt(np.square(values[:size]).sum() / (len(x) * size))
    return lambda images: (responses(images) - mean) / std @ axes[:size].T / scale


# Not by torchmetrics, which gives the same (test_distances_are_those_of_torchmetrics): it is an
# optional dependency, and this space needs none. `inception.py` computes Inception's with it.
def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to features (N,d) and (M,d).

    |mu_a - mu_b|² + tr(C_a + C_b - 2 (C_a C_b)^½), arXiv 1706.08500; biased upwards for few images.
    """
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(np.atleast_2d(cov_a))
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ np.atleast_2d(cov_b) @ root).clip(min=0)).sum()
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(shift + np.trace(np.atleast_2d(cov_a + cov_b)) - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD of features (N,d) and (M,d), kernel (x·y/d + 1)³ (arXiv 1801.01401)."""

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p @ q.T / p.shape[1] + 1) ** 3

    def within(p: np.ndarray) -> float:
        values = kernel(p, p)
        return (values.sum() - np.trace(values)) / (len(p) * (len(p) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Which fake features (M,d) lie among the real (N,d), (M,) bool, and which real among the fake.

    Among: within the distance from one of them to its k-th nearest neighbour; the means are
    precision and recall (arXiv 1904.06991). They depend on N and M.
    """

    def inside(points: torch.Tensor, manifold: torch.Tensor) -> np.ndarray:
        k_th = min(k, len(manifold) - 1) + 1  # the nearest is the point itself
        radius = torch.cdist(manifold, manifold).kthvalue(k_th, dim=1).values
        return (torch.cdist(points, manifold) <= radius).any(1).numpy()

    p, q = torch.from_numpy(fake), torch.from_numpy(real)
    return inside(p, q), inside(q, p)


@dataclass(frozen=True)
class Neighbours:
    """For each of N images the nearest of a set: its index, and measures of how near it is.

    distance: 1 - correlation. ratio: Euclidean distance to the nearest over that to the nearest of
    another group; below 1/3 counts as memorised in arXiv 2310.02664.
    """

    index: np.ndarray
    distance: np.ndarray
    ratio: np.ndarray


def neighbours(a: Heads, b: Heads) -> Neighbours:
    """Nearest image of b for each image of a; if a is b, nearest but for itself and its copies."""

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
    first = euclid[rows, near]
    others = np.where(b.groups[near][:, None] == b.groups, np.inf, euclid).min(1)
    return Neighbours(index, distance[rows, index], first / np.maximum(others, 1e-6))


def nearest_ssim(a: Heads, b: Heads, index: np.ndarray) -> float:
    """Mean SSIM of the images of a and of those of b that `index` names."""
    return float(ssim_map(a.x, b.x[torch.from_numpy(index)]).mean())


def power_spectrum(x: torch.Tensor) -> np.ndarray:
    """Mean radial power spectrum of x (N,1,H,W) at 1, 2, … s/2 cycles per s pixels, s = min(H, W).

    Each image is centred and Hann-windowed; power is averaged over rings one cycle wide.
    """
    height, width = x.shape[-2:]
    side = min(height, width)
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    centred = (x - x.mean((1, 2, 3), keepdim=True)) * window
    power = torch.fft.fft2(centred).abs().square().mean((0, 1)).numpy()
    down, across = np.fft.fftfreq(height, 1 / side), np.fft.fftfreq(width, 1 / side)
    ring = np.rint(np.hypot(down[:, None], across)).astype(int).ravel()
    return (np.bincount(ring, power.ravel()) / np.bincount(ring))[1 : side // 2 + 1]
