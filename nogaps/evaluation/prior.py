"""`nogaps prior evaluate`: what the first stage loses, how real samples are, what they serve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils.data import TensorDataset

from nogaps.Assessment import PROFILES, Options, Profile, corrupt, fill, new_imputer, train
from nogaps.evaluation.comparison import compare_sets
from nogaps.evaluation.realism import Heads, heads, load_inception, neighbours
from nogaps.figures import show_rows
from nogaps.interpolation import kriging
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.prior.autoencoder import compare_images, reconstruct
from nogaps.prior.frames import load_frames, to_size
from nogaps.prior.loading import load_prior
from nogaps.prior.sampling import sample_to
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, load_images, samples_file, save_json
from nogaps.standin import course_mask

LEAST = 4  # samples
SET_SIZE, BATCH_SIZE = 2048, 32  # images that every set is brought to; images per optimiser step
COLUMNS = 10  # images of a row of the figure
Scored = Mapping[str, tuple[torch.Tensor, Sequence[str]]]  # images (N,1,H,W) and groups by name


def evaluate(
    frames: Sequence[str | Path],
    out: str | Path,
    prior: str | Path | None = None,
    samples: str | Path | None = None,
    inception: str | Path | None = None,
    *,
    num_samples: int = 2048,
    steps: int = 20,
    usefulness_steps: int = 0,
    seeds: Sequence[int] = (0, 1),
    seed: int = 0,
) -> dict:
    """Measure a prior against the frames that it learnt from, and against their val split.

    Args:
        frames: Files of `prior prepare`; one given twice counts twice in training sets, once in
            val.
        out: Folder for evaluation.json and the figure evaluation.png. Finished samples and
            imputers in it are used again.
        prior: Diffusers folder or Hub id; else the shipped one.
        samples: A .npy file of (N,1,H,W) in [0,1], or a folder of `sample`; else they are drawn
            into `out/samples`.
        inception: Weights for `load_inception`.
        num_samples: How many samples are drawn.
        steps: Of the reverse process.
        usefulness_steps: Optimiser steps of each imputer that is trained; 0: none.
        seeds: Of the imputers.
        seed: Of everything else.

    Returns:
        The content of evaluation.json.

    Raises:
        BadInput: An input cannot be used.
    """
    out, (train, val), loaded = Path(out), read_frames(frames), load_prior(prior)
    space = load_inception(inception) if inception else None  # before anything that takes long
    if usefulness_steps and train.x.shape[2:] != course_mask().shape:
        size, wanted = ("×".join(map(str, s)) for s in (train.x.shape[2:], course_mask().shape))
        raise BadInput(f"holds images of {size} pixels", wanted, path=frames[0])
    if samples is None:
        samples = sample_to(out / "samples", num_samples, steps, seed=seed, prior=loaded)
    synthetic = _read_samples(samples_file(samples), train.x)
    lossy = reconstruct(loaded.vqvae, train.x)
    x_hats = {name: reconstruct(loaded.vqvae, x) for name, (x, _) in val.items()}
    stage = {
        name: {"images": len(x_hat), **compare_images(x_hat, val[name][0])}
        for name, x_hat in x_hats.items()
    }
    sets = _sets(train, val, lossy, synthetic)
    result = {"first_stage": stage, **compare_sets(sets, seed, space)}
    if usefulness_steps:
        # the samples as they are: not normalised
        raw = {"real": train.x, "reconstructions": lossy, "samples": synthetic}
        folder = out / "usefulness"
        result["usefulness"] = compare_usefulness(raw, val, folder, usefulness_steps, seeds)
    save_json(out / "evaluation.json", result)
    _draw(out / "evaluation.png", val, x_hats, sets)
    return result


def read_frames(paths: Sequence[str | Path]) -> tuple[Heads, Scored]:
    """Read the train images of frame files, those of a file given twice twice, and the val images.

    Raises:
        BadInput: They hold too few groups to compare.
    """
    files = list(dict.fromkeys(map(Path, paths)))
    x, names = load_frames(files)
    val: dict[str, tuple[torch.Tensor, list[str]]] = {}
    for path in files:
        if path.stem in val:
            raise BadInput("has the name of another frame file", "different names", path=path)
        images, groups = load_frames(path, "val")
        val[path.stem] = to_size(images), groups
    train_groups, val_groups = len(set(names)), len({g for _, part in val.values() for g in part})
    if train_groups < 4 or val_groups < 2:
        problem = f"has {train_groups} groups in train and {val_groups} in val"
        raise BadInput(problem, "at least 4 and 2", path=paths[0])
    stems = np.array([name.partition("/")[0] for name in names])
    index = np.concatenate([np.flatnonzero(stems == Path(path).stem) for path in paths])
    return Heads(to_size(x), np.array(names), np.arange(len(x)))[index], val


def _read_samples(path: Path, like: torch.Tensor) -> torch.Tensor:
    x = torch.from_numpy(load_images(path))
    if x.shape[2:] != like.shape[2:] or len(x) < LEAST:
        expected = f"at least {(LEAST, *like.shape[1:])}"
        raise BadInput(f"has shape {tuple(x.shape)}", expected, path=path)
    return x


def _sets(
    train: Heads, val: Scored, lossy: torch.Tensor, synthetic: torch.Tensor
) -> dict[str, Heads]:
    """What `compare_sets` takes; lossy: reconstructions of the training images."""
    x = torch.cat([images for images, _ in val.values()])
    return {
        "train": heads(train.x, train.groups, train.ids),
        "val": heads(x, [group for _, groups in val.values() for group in groups]),
        "reconstructions": heads(lossy, train.groups, train.ids),
        "samples": heads(synthetic, [f"samples/{k}" for k in range(len(synthetic))]),
    }


def _draw(
    path: Path, val: Scored, x_hats: Mapping[str, torch.Tensor], sets: Mapping[str, Heads]
) -> None:
    """Draw ten images of each kind; x_hats: reconstructions of the val images by file."""
    x, x_hat = torch.cat([x for x, _ in val.values()]), torch.cat([*x_hats.values()])
    samples, train = sets["samples"].x, sets["train"].x
    near = neighbours(sets["samples"], sets["train"])
    order = near.distance.argsort()[:COLUMNS]
    even = torch.linspace(0, len(x) - 1, COLUMNS).long()
    rows = {
        "original": x[even],
        "reconstruction": x_hat[even],
        "error": x_hat[even] - x[even],
        "sample": samples,
        "nearest sample": samples[order],
        "nearest real": train[near.index[order]],
    }
    title = "First stage on unseen images; samples; those nearest to a training image"
    figure = show_rows(rows, title, COLUMNS, error_rows=["error"])
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


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
