"""Samples, reconstructions and real heads compared set by set."""

from __future__ import annotations

import numpy as np
import torch

from nogaps.evaluation.inception import Inception
from nogaps.evaluation.realism import (
    FEATURES,
    Features,
    Heads,
    classifier_auc,
    feature_space,
    frechet_distance,
    halves,
    kernel_distance,
    neighbours,
    power_spectrum,
    precision_recall,
)
from nogaps.metrics import bootstrap, gradient_energy, ssim_map
from nogaps.runtime.progress import progress

QUANTILES = (0.5, 0.9, 0.99, 0.999)
DUPLICATE = 0.03  # 1 - correlation: as near as neighbouring slices of one subject
KID_SUBSETS, KID_SUBSET_SIZE = 100, 50


def compare_sets(
    sets: dict[str, Heads], classifier_steps: int, seed: int, inception: Inception
) -> dict:
    """Describe each set, compare pairs of sets, and find each set's nearest neighbours.

    Args:
        sets: "train", "val", "reconstructions" (of train) and "samples".
        classifier_steps: See `classifier_auc`.
        seed: Of the draws of images.
        inception: Adds distances in its space, if available.

    Returns:
        Rows by kind and name. Two pairs are baselines: val with train, and two halves of train.
    """
    train, val, samples = sets["train"], sets["val"], sets["samples"]
    half = halves(train.groups, np.zeros(len(train)), np.random.default_rng(seed))
    pairs = {
        "samples vs train": (samples, train),
        "samples vs val": (samples, val),
        "reconstructions vs train": (sets["reconstructions"], train),
        "val vs train": (val, train),
        "train vs its other half": (train[half], train[~half]),
    }
    most = len(np.unique(train.ids)) // 2  # the size of a half
    space = feature_space(train.x)
    compared = {
        name: {
            "auc": classifier_auc(a, b, classifier_steps, seed),
            **compare(a, b, space, most, seed),
        }
        for name, (a, b) in progress(pairs.items(), "comparing sets")
    }
    different = train[np.unique(train.ids, return_index=True)[1]]
    near = {
        "samples to train": (samples, different),
        "val to train": (val, different),
        "samples to samples": (samples, samples),
        "train to train": (different, different),
    }
    return {
        "sets": {name: describe(part.x, train.x) for name, part in sets.items()},
        "features": FEATURES,
        "pairs": compared,
        "inception": compare_inception(pairs, inception, most, seed),
        "nearest": {name: nearness(a, b) for name, (a, b) in near.items()},
    }


def describe(x: torch.Tensor, real: torch.Tensor) -> dict:
    """Return intensities, gradient energy, its ratio to that of `real`, and spectrum of x.

    Both are images (N,1,H,W) in [0,1].
    """
    energy = gradient_energy(x)
    return {
        "images": len(x),
        "mean": float(x.mean()),
        "std": float(x.std()),
        "quantiles": {str(share): float(np.quantile(x, share)) for share in QUANTILES},
        "gradient_energy": energy,
        "gradient_energy_ratio": energy / gradient_energy(real),
        "power_spectrum": power_spectrum(x).tolist(),
    }


def compare(a: Heads, b: Heads, space: Features, most: int, seed: int) -> dict:
    """Return KID, Fréchet distance, precision and recall of a beside b, the latter with intervals.

    Args:
        a: Samples, for example.
        b: Real heads, for example.
        space: Features of images.
        most: Different images of each set that enter all but KID; compare only rows with the same
            number: a Fréchet distance of few images is biased upwards.
        seed: Of the draws of images.
    """
    rng = np.random.default_rng(seed)
    of_a, of_b = space(a.x), space(b.x)
    least = min(len(np.unique(a.ids)), len(np.unique(b.ids)))
    size = min(KID_SUBSET_SIZE, least)
    kid = [
        kernel_distance(of_a[a.distinct(size, rng)], of_b[b.distinct(size, rng)])
        for _ in range(KID_SUBSETS)
    ]
    i, j = (part.distinct(min(most, least), rng) for part in (a, b))
    precise, recalled = precision_recall(of_b[j], of_a[i])
    return {
        "kid": float(np.mean(kid)),
        "kid_std": float(np.std(kid)),
        "images": len(i),
        "frechet": frechet_distance(of_a[i], of_b[j]),
        "precision": list(bootstrap(precise.astype(float), a.groups[i])),
        "recall": list(bootstrap(recalled.astype(float), b.groups[j])),
    }


def compare_inception(
    pairs: dict[str, tuple[Heads, Heads]], inception: Inception, most: int, seed: int
) -> dict:
    """`compare` at most `most` images of each pair's sets in Inception's space, if available."""
    if inception.space is None:
        return {"features": None, "pairs": None, "reason": inception.about}
    rows = {}
    for name, (a, b) in progress(pairs.items(), "Inception distances"):
        n, rng = (
            min(most, *(len(np.unique(part.ids)) for part in (a, b))),
            np.random.default_rng(seed),
        )
        a, b = a[a.distinct(n, rng)], b[b.distinct(n, rng)]
        rows[name] = compare(a, b, inception.space, n, seed)
    return {"features": inception.about, "pairs": rows, "reason": None}


def nearness(a: Heads, b: Heads) -> dict:
    """Sum up the nearest neighbours of a in b (see `Neighbours`).

    Returns:
        5th percentile, median and least of "distance" and "ratio", the numbers of "memorised"
        images (ratio below 1/3, arXiv 2310.02664) and of "near_duplicates", and the mean "ssim".
    """
    near = neighbours(a, b)

    def summary(values: np.ndarray) -> list[float]:
        return np.quantile(values, [0.05, 0.5, 0]).tolist()

    return {
        "distance": summary(near.distance),
        "ratio": summary(near.ratio),
        "memorised": int((near.ratio < 1 / 3).sum()),
        "near_duplicates": int((near.distance < DUPLICATE).sum()),
        "ssim": float(ssim_map(a.x, b.x[torch.from_numpy(near.index)]).mean()),
    }
