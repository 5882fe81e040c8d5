"""`nogaps prior evaluate`: what the first stage loses, how real samples are, what they serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nogaps.evaluation.comparison import compare_sets
from nogaps.evaluation.inception import find_inception
from nogaps.evaluation.page import save_page
from nogaps.evaluation.realism import heads
from nogaps.evaluation.usefulness import Scored, check_size, compare_usefulness
from nogaps.images.formats import open_images
from nogaps.prior.autoencoder import compare_images, reconstruct
from nogaps.prior.frames.heads import load_frames, to_size, unit_range
from nogaps.prior.loading import FirstStage, load_prior, load_stage
from nogaps.prior.sampling import sample_to
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, atomic, load_images, samples_file, save_json

LOSSLESS = 100.0  # dB: a perfect reconstruction's PSNR is infinite, which JSON cannot hold


@dataclass(frozen=True)
class Frames:
    """What frame files hold, at the size of training images, in [0,1].

    x: different train images (N,1,H,W); groups: theirs, (N,); index: those to train on, in which
    the images of a file that is given twice stand twice; val: images and groups by file.
    """

    x: torch.Tensor
    groups: np.ndarray
    index: np.ndarray
    val: Scored


@dataclass(frozen=True)
class Settings:
    """Sizes of an evaluation: samples to draw and how, steps of the networks that are trained."""

    num_samples: int = 2048
    sampling_steps: int = 20
    classifier_steps: int = 200
    usefulness_steps: int = 0  # 0: no imputer is trained
    seeds: tuple[int, ...] = (0, 1)  # of the imputers
    seed: int = 0  # of everything else

    def __post_init__(self) -> None:
        """Raise BadInput for steps and numbers that cannot be."""
        least = {"num_samples": 4, "classifier_steps": 1, "usefulness_steps": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise BadInput(f"{name} {getattr(self, name)}: expected at least {low}")


def evaluate(
    frames: Sequence[str | Path],
    out: str | Path,
    settings: Settings,
    prior: str | Path | None = None,
    samples: str | Path | None = None,
    inception: str | Path | None = None,
) -> dict:
    """Measure a prior against the frames it learnt from, and against their val split.

    frames: files of `prior prepare`; one given twice counts twice in training sets, once in val.
    prior: diffusers folder or Hub id, None the shipped one. samples: .npy of (N,1,H,W) in [0,1],
    or a folder with `images.npy`; None: they are drawn into `out/samples`. inception: weights for
    `find_inception`.

    Returns the result, which is also written to `out/evaluation.json`, with the pairs of original
    and reconstruction in `out/pairs` and the figures in `out/evaluation.png`. Finished samples
    and imputers are taken from `out`. Raises BadInput.
    """
    out, real, loaded = Path(out), read_frames(frames), load_prior(prior)
    space = find_inception(inception)  # before anything that takes long
    if settings.usefulness_steps:
        check_size(real.x, frames[0])
    if samples is None:
        how = (settings.num_samples, settings.sampling_steps)
        samples = sample_to(out / "samples", *how, seed=settings.seed, prior=loaded)
    synthetic = read_samples(samples, real.x)
    tests = {name: x for name, (x, _) in real.val.items()}
    found, reconstructed = evaluate_stage(loaded.vqvae, tests, out)
    lossy = reconstruct_checked(loaded.vqvae, real.x, "train frames")
    sets = {
        "train": heads(real.x[real.index], real.groups[real.index], real.index),
        "val": heads(torch.cat(list(tests.values())), [g for _, v in real.val.values() for g in v]),
        "reconstructions": heads(lossy[real.index], real.groups[real.index], real.index),
        "samples": heads(synthetic, [f"samples/{k}" for k in range(len(synthetic))]),
    }
    compared = compare_sets(sets, settings.classifier_steps, settings.seed, space)
    result = {"first_stage": found, **compared}
    if settings.usefulness_steps:
        train = {"real": real.x[real.index], "reconstructions": lossy[real.index]}
        train["samples"] = synthetic  # as they are: not normalised
        how = (settings.usefulness_steps, settings.seeds)
        result["usefulness"] = compare_usefulness(train, real.val, out / "usefulness", *how)
    save_json(out / "evaluation.json", result)
    save_page(out / "evaluation.png", result, tests, reconstructed, sets)
    return result


def evaluate_first_stage(
    frames: Sequence[str | Path], out: str | Path, stage: str | Path, images: str | Path | None
) -> dict:
    """Measure a first stage alone, without a denoiser, on val frames and on a set of images.

    stage: its diffusers folder; images: any file or folder that `open_images` reads. Returns and
    writes the first part of what `evaluate` does. Raises BadInput.
    """
    out, model = Path(out), load_stage(stage).to(pick_device())
    tests = {name: x for name, (x, _) in read_val(frames).items()}
    if images:
        name = Path(images).absolute().name
        if name in tests:
            raise BadInput(f"{images}: named like a frame file, expected another name")
        tests[name] = read_images(images)
    if not tests:
        raise BadInput(f"{stage}: nothing to reconstruct, expected --frames or --images")
    found, reconstructed = evaluate_stage(model, tests, out)
    result = {"first_stage": found}
    save_json(out / "evaluation.json", result)
    save_page(out / "evaluation.png", result, tests, reconstructed, {})
    return result


def read_frames(paths: Sequence[str | Path]) -> Frames:
    """Train and val split of frame files. Raises BadInput if they are too few to be compared."""
    x, names = load_frames(list(dict.fromkeys(map(Path, paths))))
    val = read_val(paths)
    val_groups = {group for _, groups in val.values() for group in groups}
    if len(set(names)) < 4 or len(val_groups) < 2:
        found = f"{len(set(names))} groups to train on and {len(val_groups)} to validate"
        raise BadInput(f"{paths[0]}: {found}, expected at least 4 and 2")
    files = np.array([name.partition("/")[0] for name in names])
    index = np.concatenate([np.flatnonzero(files == Path(path).stem) for path in paths])
    return Frames(to_size(x), np.array(names), index, val)


def read_val(paths: Sequence[str | Path]) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """Val images (N,1,H,W) and groups of each frame file once, by the file's name."""
    found: dict[str, tuple[torch.Tensor, list[str]]] = {}
    for path in dict.fromkeys(map(Path, paths)):
        if path.stem in found:
            raise BadInput(f"{path}: two frame files of this name, expected different names")
        x, groups = load_frames(path, "val")
        found[path.stem] = to_size(x), groups
    return found


def read_samples(path: str | Path, like: torch.Tensor) -> torch.Tensor:
    """Images (N,1,H,W) of a .npy, or of `images.npy` in a folder, of the size of `like`."""
    path = samples_file(path)
    x = torch.from_numpy(load_images(path))
    if x.shape[2:] != like.shape[2:] or len(x) < 4:
        shape = (4, *like.shape[1:])
        raise BadInput(f"{path}: has shape {tuple(x.shape)}, expected at least {shape}")
    return x


def read_images(path: str | Path) -> torch.Tensor:
    """Images of any file or folder that `open_images` reads, (N,1,H,W), scaled as frames are."""
    with open_images(path) as source:
        values = source.read(0, source.shape[0])
    if not np.isfinite(values).all() or values.min() == values.max():
        raise BadInput(f"{path}: holds NaN, or one value only, expected images")
    return unit_range(values)


def evaluate_stage(
    model: FirstStage, tests: Mapping[str, torch.Tensor], out: Path
) -> tuple[dict[str, dict], dict[str, torch.Tensor]]:
    """Scores and reconstructions of each set; pairs of PNGs in `out/pairs`.

    Scores: `compare_images`; also of all sets together, if they are of one size.
    """
    x_hat = {name: reconstruct_checked(model, x, name) for name, x in tests.items()}
    sets = {name: (x_hat[name], x) for name, x in tests.items()}
    if len(tests) > 1 and len({x.shape[2:] for x in tests.values()}) == 1:
        sets["together"] = torch.cat(list(x_hat.values())), torch.cat(list(tests.values()))
    rows = {}
    for name, (found, x) in sets.items():
        scores = compare_images(found, x)
        rows[name] = {"images": len(x), **scores, "psnr": min(scores["psnr"], LOSSLESS)}
    for name, x in tests.items():
        save_pairs(out / "pairs", name, x, x_hat[name])
    return rows, x_hat


def reconstruct_checked(model: FirstStage, x: torch.Tensor, name: str) -> torch.Tensor:
    """`reconstruct`. Raises BadInput for a size that the first stage cannot halve often enough."""
    size = "×".join(map(str, x.shape[2:]))
    try:
        x_hat = reconstruct(model, x)
    except RuntimeError as error:
        raise BadInput(f"{name}: {size} pixels, which this first stage cannot take") from error
    if x_hat.shape != x.shape:
        back = "×".join(map(str, x_hat.shape[2:]))
        raise BadInput(f"{name}: {size} pixels come back as {back}, expected the same size")
    return x_hat


def save_pairs(folder: Path, name: str, x: torch.Tensor, x_hat: torch.Tensor) -> None:
    """Originals and reconstructions (N,1,H,W) as 8-bit grey PNGs, neighbours by name."""
    for kind, images in (("original", x), ("reconstruction", x_hat)):
        for k, image in enumerate((255 * images[:, 0]).round().byte().numpy()):
            with atomic(folder / f"{name}_{k:03d}_{kind}.png") as temporary:
                Image.fromarray(image).save(temporary)
