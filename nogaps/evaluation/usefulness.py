"""What a prior is for: the notebook's imputer, trained on its images and scored on real heads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from nogaps import Assessment, augmentation
from nogaps.Assessment import PROFILES, Profile, corrupt, fill, new_imputer, run_settings, train
from nogaps.interpolation import kriging
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, load_json, save_json, sha256
from nogaps.standin import course_mask

SET_SIZE, BATCH_SIZE = 2048, 32  # images that every set is brought to; images per optimiser step
Scored = Mapping[str, tuple[torch.Tensor, Sequence[str]]]  # images (N,1,H,W) and groups by name


def check_size(x: torch.Tensor, name: str | Path) -> None:
    """Raise BadInput unless the images x (N,1,H,W) of `name` fit the course's mask."""
    wanted = course_mask().shape
    if x.shape[2:] != wanted:
        found = "×".join(map(str, x.shape[2:]))
        raise BadInput(f"{name}: images of {found} pixels, expected {wanted[0]}×{wanted[1]}")


def plan(steps: int) -> tuple[int, int]:
    """Images and epochs of about `steps` optimiser steps: whole epochs, rounded up."""
    images = min(SET_SIZE, BATCH_SIZE * steps)
    return images, math.ceil(steps / (images // BATCH_SIZE))


def repeated(x: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """n images of x in random order: each as often as any other, give or take one."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(x), generator=generator) for _ in range(math.ceil(n / len(x)))]
    return x[torch.cat(orders)[:n]]


def _scores(x_hat: Mapping[str, torch.Tensor], val: Scored, mask: torch.Tensor) -> dict[str, dict]:
    """`summarize` of each set, with the PSNR of every image."""
    rows = {}
    for name, (x, groups) in val.items():
        psnr = hole_scores(x_hat[name], x, mask)["psnr"].astype(float).tolist()
        rows[name] = summarize(x_hat[name], x, mask, groups) | {"psnr_of_images": psnr}
    return rows


def _fingerprint(settings: list, val: Scored, mask: torch.Tensor) -> str:
    """16 hex digits of all that a run depends on, the code that trains included."""
    code = [sha256(module.__file__) for module in (Assessment, augmentation)]
    data = [fingerprint(x, mask) for x, _ in val.values()]
    groups = [list(groups) for _, groups in val.values()]
    text = json.dumps([settings, list(val), data, groups, code])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_and_score(
    name: str,
    x: torch.Tensor,
    val: Scored,
    folder: str | Path,
    steps: int,
    seed: int,
    profile: Profile = PROFILES["full"],
) -> dict[str, dict]:
    """Hole scores on each set of `val` of an imputer trained on images x (N,1,64,64) in [0,1].

    Training and scoring are under the course's mask. A finished run is read from `folder`, an
    interrupted one continued from its last epoch.
    """
    device = pick_device()
    mask = torch.from_numpy(course_mask())[None, None]
    n, epochs = plan(steps)
    x = repeated(x, n, seed)
    train_set = TensorDataset(corrupt(x, mask), x)
    imputer = new_imputer(profile, x, seed)
    settings = run_settings(imputer, train_set, mask.to(device), epochs, seed, BATCH_SIZE)
    stem = Path(folder) / f"{name}-{seed}-{_fingerprint(settings, val, mask)}"
    cache, checkpoint = stem.with_suffix(".json"), stem.with_suffix(".safetensors")
    if not cache.exists():
        real = torch.cat([images for images, _ in val.values()])
        val_set = TensorDataset(corrupt(real, mask), real)
        trained, _ = train(
            imputer, train_set, val_set, mask.to(device), epochs, checkpoint, seed, BATCH_SIZE
        )
        x_hat = {k: fill(trained, corrupt(v, mask), mask.to(device)) for k, (v, _) in val.items()}
        save_json(cache, _scores(x_hat, val, mask))
        for state in (checkpoint, checkpoint.with_suffix(".previous")):
            state.unlink(missing_ok=True)
    return load_json(cache)


def compare_usefulness(
    sets: Mapping[str, torch.Tensor],
    val: Scored,
    folder: str | Path,
    steps: int,
    seeds: Sequence[int],
    profile: Profile = PROFILES["full"],
) -> dict:
    """Train one imputer per set and seed, `steps` optimiser steps each; score them beside kriging.

    sets: images (N,1,64,64) by name, the real ones first; kriging knows these. "lost_db": per set
    but the first and per scored set, how much hole PSNR in dB it costs to train on it instead of
    on the real images: mean over seeds, and the 95 % interval over groups.
    """
    mask = torch.from_numpy(course_mask())[None, None]
    first, *others = sets
    krige = kriging(sets[first])
    x_hat = {name: krige(corrupt(x, mask), mask) for name, (x, _) in val.items()}
    runs = {("kriging", None): _scores(x_hat, val, mask)}
    for seed in seeds:  # seed by seed: what is interrupted has compared all sets once, soonest
        for name, x in sets.items():
            runs[name, seed] = train_and_score(name, x, val, folder, steps, seed, profile)
    psnr = {
        name: {k: np.mean([runs[name, s][k]["psnr_of_images"] for s in seeds], 0) for k in val}
        for name in sets
    }
    lost = {
        name: {k: bootstrap(psnr[first][k] - psnr[name][k], val[k][1]) for k in val}
        for name in others
    }
    rows = {
        name if seed is None else f"{name}, seed {seed}": {
            k: {key: value for key, value in row.items() if key != "psnr_of_images"}
            for k, row in run.items()
        }
        for (name, seed), run in runs.items()
    }
    n, epochs = plan(steps)
    return {"steps": epochs * (n // BATCH_SIZE), "images": n, "scores": rows, "lost_db": lost}
