"""Samples, reconstructions and real heads compared set by set, and the tables of the result."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from nogaps.evaluation.realism import (
    FEATURES,
    Features,
    Heads,
    feature_space,
    frechet_distance,
    half_of_groups,
    kernel_distance,
    neighbours,
    precision_recall,
)
from nogaps.metrics import bootstrap, gradient_energy, ssim_map
from nogaps.runtime.progress import progress
from nogaps.tables import as_markdown

QUANTILES = (0.5, 0.9, 0.99, 0.999)
DUPLICATE = 0.03  # 1 - correlation: as near as neighbouring slices of one subject
KID_SUBSETS, KID_SUBSET_SIZE = 100, 50
# The columns of each table: a header, and the format of its cells.
STAGES = {
    "images": "{r[images]}",
    "PSNR / dB": "{r[psnr]:.2f}",
    "SSIM": "{r[ssim]:.4f}",
    "gradient energy": "{r[gradient_energy]:.3f}",
}
SETS = {
    "images": "{r[images]}",
    "gradient energy": "{r[gradient_energy]:.3f}",
    "ratio": "{r[gradient_energy_ratio]:.3f}",
    "mean": "{r[mean]:.3f}",
    "std": "{r[std]:.3f}",
    **{f"quantile {q}": f"{{r[quantiles][{q}]:.3f}}" for q in QUANTILES},
}
PAIRS = {
    "KID ± std": "{r[kid]:.4f} ± {r[kid_std]:.4f}",
    "images": "{r[images]}",
    "Fréchet": "{r[frechet]:.3f}",
    "precision": "{r[precision][0]:.2f} [{r[precision][1]:.2f}, {r[precision][2]:.2f}]",
    "recall": "{r[recall][0]:.2f} [{r[recall][1]:.2f}, {r[recall][2]:.2f}]",
}
NEAREST = {
    "1 - correlation": "{r[distance][0]:.3f} {r[distance][1]:.3f} {r[distance][2]:.3f}",
    "ratio to second": "{r[ratio][0]:.3f} {r[ratio][1]:.3f} {r[ratio][2]:.3f}",
    "SSIM": "{r[ssim]:.3f}",
    "copies": "{r[memorised]}",
    "near-duplicates": "{r[near_duplicates]}",
}
SCORES = {
    "hole RMSE": "{r[rmse]:.4f}",
    "PSNR / dB": "{r[psnr]:.2f} [{r[psnr_95][0]:.2f}, {r[psnr_95][1]:.2f}]",
}
LOST = {"lost PSNR / dB": "{r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]"}


def compare_sets(sets: dict[str, Heads], seed: int, inception: Features | None = None) -> dict:
    """Describe each set, compare pairs of sets, and find each set's nearest neighbours.

    Args:
        sets: "train", "val", "reconstructions" (of train) and "samples".
        seed: Of the draws of images.
        inception: From `load_inception`; adds distances in that space.

    Returns:
        Rows by kind and name. Two pairs are baselines: val with train, and two halves of train.
    """
    train, val, samples = sets["train"], sets["val"], sets["samples"]
    half = half_of_groups(train.groups, np.random.default_rng(seed))
    pairs = {
        "samples vs train": (samples, train),
        "samples vs val": (samples, val),
        "reconstructions vs train": (sets["reconstructions"], train),
        "val vs train": (val, train),
        "train vs its other half": (train[half], train[~half]),
    }
    most = len(np.unique(train.ids)) // 2  # the size of a half
    space = feature_space(train.x)
    different = train[np.unique(train.ids, return_index=True)[1]]
    near = {
        "samples to train": (samples, different),
        "val to train": (val, different),
        "samples to samples": (samples, samples),
        "train to train": (different, different),
    }
    result = {
        "sets": {name: describe(part.x, train.x) for name, part in sets.items()},
        "features": FEATURES,
        "pairs": {name: compare(a, b, space, most, seed) for name, (a, b) in pairs.items()},
        "nearest": {name: nearness(a, b) for name, (a, b) in near.items()},
    }
    if inception:
        result["inception"] = compare_inception(pairs, inception, most, seed)
    return result


def describe(x: torch.Tensor, real: torch.Tensor) -> dict:
    """Return intensities and gradient energy of x, and the ratio of the latter to that of `real`.

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
    }


def compare(a: Heads, b: Heads, space: Features, most: int, seed: int) -> dict:
    """Return KID, Fréchet distance, precision and recall of a beside b, the latter with intervals.

    Args:
        a, b: Samples and real heads, for example.
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
    pairs: dict[str, tuple[Heads, Heads]], space: Features, most: int, seed: int
) -> dict[str, dict]:
    """`compare` in a slow space: at most `most` images of each set are looked at."""
    rows = {}
    for name, (a, b) in progress(pairs.items(), "Inception distances"):
        rng = np.random.default_rng(seed)
        n = min(most, len(np.unique(a.ids)), len(np.unique(b.ids)))
        a, b = a[a.distinct(n, rng)], b[b.distinct(n, rng)]
        rows[name] = compare(a, b, space, n, seed)
    return rows


def nearness(a: Heads, b: Heads) -> dict:
    """Sum up the nearest neighbours of a in b (see `Neighbours`).

    Returns:
        5th percentile, median and least of "distance" and "ratio", the numbers of "memorised"
        images (ratio below 1/3, arXiv 2310.02664) and of "near_duplicates", and the mean "ssim".
    """
    near = neighbours(a, b)
    return {
        "distance": np.quantile(near.distance, [0.05, 0.5, 0]).tolist(),
        "ratio": np.quantile(near.ratio, [0.05, 0.5, 0]).tolist(),
        "memorised": int((near.ratio < 1 / 3).sum()),
        "near_duplicates": int((near.distance < DUPLICATE).sum()),
        "ssim": float(ssim_map(a.x, b.x[torch.from_numpy(near.index)]).mean()),
    }


def as_text(result: Mapping) -> str:
    """Return the result of `evaluate` as aligned tables."""
    parts = [
        _table("first stage", result["first_stage"], STAGES),
        _table("set", result["sets"], SETS),
        _table("pair", result["pairs"], PAIRS),
        f"features: {result['features']}",
        _table("nearest: 5 %, median, least", result["nearest"], NEAREST),
    ]
    if "inception" in result:
        parts.append(_table("pair, Inception features", result["inception"], PAIRS))
    if "usefulness" in result:
        useful = result["usefulness"]
        parts.append("imputers, {steps} steps on {images} images".format(**useful))
        for rows, columns in ((useful["scores"], SCORES), (useful["lost_db"], LOST)):
            flat = {f"{k}, {name}": row[name] for k, row in rows.items() for name in row}
            parts.append(_table("trained on, scored on", flat, columns))
    return "\n\n".join(parts)


def _table(title: str, rows: Mapping[str, object], columns: Mapping[str, str]) -> str:
    cells = [[name, *(c.format(r=row) for c in columns.values())] for name, row in rows.items()]
    return as_markdown([title, *columns], cells)
