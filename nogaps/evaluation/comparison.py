"""Samples, reconstructions and real heads compared set by set: the tables of `prior evaluate`."""

from __future__ import annotations

import numpy as np
import torch

from nogaps.evaluation.inception import Inception, library_distances
from nogaps.evaluation.realism import (
    FEATURES,
    Features,
    Heads,
    classifier_auc,
    feature_space,
    frechet_distance,
    halves,
    kernel_distance,
    nearest_ssim,
    neighbours,
    power_spectrum,
    precision_recall,
)
from nogaps.metrics import bootstrap, gradient_energy
from nogaps.runtime.progress import progress

QUANTILES = (0.5, 0.9, 0.99, 0.999)
DUPLICATE = 0.03  # 1 - correlation: as near as neighbouring slices of one subject
KID_SUBSETS, KID_SUBSET_SIZE = 100, 50


def compare_sets(
    sets: dict[str, Heads], classifier_steps: int, seed: int, inception: Inception
) -> dict:
    """What each set is like, how pairs of sets differ, and who is whose nearest neighbour.

    sets: train, val, reconstructions (of train), samples. The pairs hold two baselines: val
    against train, and two halves of train.
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
    most = len(np.unique(train.ids)) // 2  # what a half can have
    space = feature_space(train.x)
    compared = {
        name: compare(a, b, space, most, classifier_steps, seed)
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
    """Intensities, gradient energy, its ratio to that of `real`, and spectrum of x (N,1,H,W)."""
    energy = gradient_energy(x)
    return {
        "images": len(x),
        "mean": float(x.mean()),
        "std": float(x.std()),
        "quantiles": dict(
            zip(map(str, QUANTILES), np.quantile(x, QUANTILES).tolist(), strict=True)
        ),
        "gradient_energy": energy,
        "gradient_energy_ratio": energy / gradient_energy(real),
        "power_spectrum": power_spectrum(x).tolist(),
    }


def compare(a: Heads, b: Heads, space: Features, most: int, steps: int, seed: int) -> dict:
    """How a differs from b: AUC, KID, Fréchet distance, precision and recall with intervals.

    "images": how many different ones of each set the last three look at, at most `most`; they
    depend on it, so compare rows of the same number only.
    """
    rng = np.random.default_rng(seed)
    of_a, of_b = space(a.x), space(b.x)
    size = min(KID_SUBSET_SIZE, len(np.unique(a.ids)), len(np.unique(b.ids)))
    kid = [
        kernel_distance(of_a[a.distinct(size, rng)], of_b[b.distinct(size, rng)])
        for _ in range(KID_SUBSETS)
    ]
    i, j = equally_many(a, b, most, rng)
    precise, recalled = precision_recall(of_b[j], of_a[i])
    return {
        "auc": classifier_auc(a, b, steps, seed),
        "kid": float(np.mean(kid)),
        "kid_std": float(np.std(kid)),
        "images": len(i),
        "frechet": frechet_distance(of_a[i], of_b[j]),
        "precision": bootstrap(precise.astype(float), a.groups[i]),
        "recall": bootstrap(recalled.astype(float), b.groups[j]),
    }


def equally_many(
    a: Heads, b: Heads, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random index of as many different images of a as of b, at most `most`."""
    n = min(most, len(np.unique(a.ids)), len(np.unique(b.ids)))
    return a.distinct(n, rng), b.distinct(n, rng)


def compare_inception(
    pairs: dict[str, tuple[Heads, Heads]], inception: Inception, most: int, seed: int
) -> dict:
    """KID and Fréchet distance of each pair in Inception's space, or the reason for none.

    "images": how many of each set both look at, at most `most`; a Fréchet distance of fewer images
    than features is biased far upwards, so compare rows of the same number only.
    """
    if inception.space is None:
        return {"features": None, "pairs": None, "reason": inception.about}
    rows = {}
    for name, (a, b) in progress(pairs.items(), "Inception distances"):
        i, j = equally_many(a, b, most, np.random.default_rng(seed))
        of_a, of_b = inception.space(a.x[i]), inception.space(b.x[j])
        size = min(KID_SUBSET_SIZE, len(i))
        found = library_distances(of_a, of_b, KID_SUBSETS, size, seed)
        rows[name] = {"images": len(i), **found}
    return {"features": inception.about, "pairs": rows, "reason": None}


def nearness(a: Heads, b: Heads) -> dict:
    """`neighbours` of a in b, their distance and ratio as 5th percentile, median and least."""
    found = neighbours(a, b)

    def summary(values: np.ndarray) -> list[float]:
        return [float(v) for v in (np.quantile(values, 0.05), np.median(values), values.min())]

    return {
        "distance": summary(found.distance),
        "ratio": summary(found.ratio),
        "memorised": int((found.ratio < 1 / 3).sum()),
        "near_duplicates": int((found.distance < DUPLICATE).sum()),
        "ssim": nearest_ssim(a, b, found.index),
    }
