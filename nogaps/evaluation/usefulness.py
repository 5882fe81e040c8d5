"""What a prior is for: the notebook's imputer, trained on its images and scored on real heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from nogaps.Assessment import PROFILES, Options, Profile, corrupt, fill, new_imputer, train
from nogaps.interpolation import kriging
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.standin import course_mask

SET_SIZE, BATCH_SIZE = 2048, 32  # images that every set is brought to; images per optimiser step
Scored = Mapping[str, tuple[torch.Tensor, Sequence[str]]]  # images (N,1,H,W) and groups by name


def check_size(x: torch.Tensor, name: str | Path) -> None:
    """Raise BadInput unless the images x (N,1,H,W) of the file `name` fit the course's mask."""
    size, wanted = ("×".join(map(str, shape)) for shape in (x.shape[2:], course_mask().shape))
    if size != wanted:
        raise BadInput(f"holds images of {size} pixels", wanted, path=name)


def plan(steps: int) -> tuple[int, int]:
    """Return the images and the whole epochs that make `steps` optimiser steps, rounded up."""
    images = min(SET_SIZE, BATCH_SIZE * steps)
    return images, math.ceil(steps / (images // BATCH_SIZE))


def repeated(x: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Return n images of x in random order, each as often as any other, give or take one."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(x), generator=generator) for _ in range(math.ceil(n / len(x)))]
    return x[torch.cat(orders)[:n]]


def compare_usefulness(
    sets: Mapping[str, torch.Tensor],
    val: Scored,
    folder: str | Path,
    steps: int,
    seeds: Sequence[int],
    profile: Profile = PROFILES["full"],
) -> dict:
    """Train one imputer per set and seed, and score all of them beside kriging.

    Args:
        sets: Images (N,1,64,64) in [0,1] by name, the real ones first; kriging knows these.
        val: Images to score, under the course's mask.
        folder: Keeps a checkpoint of each imputer, from which the same call continues.
        steps: Optimiser steps of each imputer.
        seeds: One imputer per set and seed.
        profile: Widths of the networks.

    Returns:
        "scores" by imputer and scored set. "lost_db", by set but the first and by scored set: the
        hole PSNR in dB that training on it costs, mean over seeds and 95 % interval over groups.
    """
    folder, mask = Path(folder), torch.from_numpy(course_mask())[None, None]
    y = {name: corrupt(x, mask) for name, (x, _) in val.items()}
    krige = kriging(next(iter(sets.values())))
    x_hats = {"kriging": {name: krige(images, mask) for name, images in y.items()}}
    device = pick_device()
    for seed in seeds:  # seed by seed: an interrupted comparison has soon seen all sets once
        for name, x in sets.items():
            imputer = _train(x, val, folder / f"{name}-{seed}.safetensors", steps, seed, profile)
            filled = {k: fill(imputer, images, mask.to(device)) for k, images in y.items()}
            x_hats[f"{name}, seed {seed}"] = filled
    scores = {
        imputer: {k: summarize(x_hat, val[k][0], mask, val[k][1]) for k, x_hat in filled.items()}
        for imputer, filled in x_hats.items()
    }
    lost: dict[str, dict] = {name: {} for name in [*sets][1:]}
    for k, (x, groups) in val.items():
        psnr = [
            [hole_scores(x_hats[f"{name}, seed {seed}"][k], x, mask)["psnr"] for seed in seeds]
            for name in sets
        ]
        real, *others = np.mean(psnr, 1, np.float64)
        for name, other in zip(lost, others, strict=True):
            lost[name][k] = bootstrap(real - other, groups)
    n, epochs = plan(steps)
    return {"steps": epochs * (n // BATCH_SIZE), "images": n, "scores": scores, "lost_db": lost}


def _train(
    x: torch.Tensor, val: Scored, checkpoint: Path, steps: int, seed: int, profile: Profile
) -> torch.nn.Module:
    """An imputer trained on images x under the course's mask."""
    mask = torch.from_numpy(course_mask())[None, None]
    n, epochs = plan(steps)
    x, real = repeated(x, n, seed), torch.cat([images for images, _ in val.values()])
    pairs = [TensorDataset(corrupt(images, mask), images) for images in (x, real)]
    imputer, mask = new_imputer(profile, x, seed), mask.to(pick_device())
    return train(imputer, *pairs, mask, checkpoint, Options(epochs, seed, BATCH_SIZE))[0]
