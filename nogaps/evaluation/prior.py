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
from nogaps.prior.frames.files import load_frames, to_size, unit_range
from nogaps.prior.loading import FirstStage, load_prior, load_stage
from nogaps.prior.sampling import sample_to
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, load_images, samples_file, save_json

LOSSLESS = 100.0  # dB: a perfect reconstruction's PSNR is infinite, which JSON cannot hold
LEAST = {"num_samples": 4, "classifier_steps": 1, "usefulness_steps": 0}


@dataclass(frozen=True)
class Settings:
    """Sizes of an evaluation: samples to draw and how, steps of the networks that are trained.

    Raises:
        BadInput: A number is too small.
    """

    num_samples: int = 2048
    sampling_steps: int = 20
    classifier_steps: int = 200
    usefulness_steps: int = 0  # 0: no imputer is trained
    seeds: tuple[int, ...] = (0, 1)  # of the imputers
    seed: int = 0  # of everything else

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise BadInput(f"{name} is {getattr(self, name)}", f"at least {least}")


def evaluate(
    frames: Sequence[str | Path],
    out: str | Path,
    settings: Settings,
    prior: str | Path | None = None,
    samples: str | Path | None = None,
    inception: str | Path | None = None,
) -> dict:
    """Measure a prior against the frames that it learnt from, and against their val split.

    Args:
        frames: Files of `prior prepare`; one given twice counts twice in training sets, once in
            val.
        out: Folder for evaluation.json, the figures in evaluation.png, and pairs of original and
            reconstruction. Finished samples and imputers in it are used again.
        settings: Sizes.
        prior: Diffusers folder or Hub id; else the shipped one.
        samples: A .npy file of (N,1,H,W) in [0,1], or a folder of `sample`; else they are drawn
            into `out/samples`.
        inception: Weights for `find_inception`.

    Returns:
        The content of evaluation.json.

    Raises:
        BadInput: An input cannot be used.
    """
    out, real, loaded = Path(out), read_frames(frames), load_prior(prior)
    space = find_inception(inception)  # before anything that takes long
    if settings.usefulness_steps:
        check_size(real.x, frames[0])
    if samples is None:
        how = (settings.num_samples, settings.sampling_steps)
        samples = sample_to(out / "samples", *how, seed=settings.seed, prior=loaded)
    synthetic = _read_samples(samples_file(samples), real.x)
    tests = {name: x for name, (x, _) in real.val.items()}
    scores, reconstructed = _evaluate_stage(loaded.vqvae, tests, out)
    index, groups = real.index, real.groups[real.index]
    train, lossy = real.x[index], _reconstruct(loaded.vqvae, real.x, "train frames")[index]
    val_groups = [group for _, groups in real.val.values() for group in groups]
    sets = {
        "train": heads(train, groups, index),
        "val": heads(torch.cat(list(tests.values())), val_groups),
        "reconstructions": heads(lossy, groups, index),
        "samples": heads(synthetic, [f"samples/{k}" for k in range(len(synthetic))]),
    }
    compared = compare_sets(sets, settings.classifier_steps, settings.seed, space)
    result = {"first_stage": scores, **compared}
    if settings.usefulness_steps:
        # the samples as they are: not normalised
        raw = {"real": train, "reconstructions": lossy, "samples": synthetic}
        how = (settings.usefulness_steps, settings.seeds)
        result["usefulness"] = compare_usefulness(raw, real.val, out / "usefulness", *how)
    return _save(out, result, tests, reconstructed, sets)


def evaluate_first_stage(
    frames: Sequence[str | Path], out: str | Path, stage: str | Path, images: str | Path | None
) -> dict:
    """Measure a first stage alone, without a denoiser, on val frames and on a set of images.

    Args:
        frames: Files of `prior prepare`; may be empty.
        out: Folder for the same files as `evaluate` writes.
        stage: The stage's diffusers folder.
        images: Any file or folder that `open_images` reads, or None.

    Returns:
        The content of evaluation.json: "first_stage" only.

    Raises:
        BadInput: An input cannot be used.
    """
    out, model = Path(out), load_stage(stage).to(pick_device())
    tests = {name: x for name, (x, _) in _read_val(frames).items()}
    if images:
        name = Path(images).absolute().name
        if name in tests:
            raise BadInput("has the name of a frame file", "another name", path=images)
        tests[name] = _read_images(images)
    if not tests:
        raise BadInput("has nothing to reconstruct", "--frames or --images", path=stage)
    scores, reconstructed = _evaluate_stage(model, tests, out)
    return _save(out, {"first_stage": scores}, tests, reconstructed, {})


def _save(out: Path, result: dict, *images: Mapping) -> dict:
    save_json(out / "evaluation.json", result)
    save_page(out / "evaluation.png", result, *images)
    return result


@dataclass(frozen=True)
class Frames:
    """The content of frame files, at the size of training images, in [0,1]."""

    x: torch.Tensor  # different train images (N,1,H,W)
    groups: np.ndarray  # their groups (N,)
    index: np.ndarray  # which to train on; those of a file that is given twice stand in it twice
    val: Scored  # val images and groups by file


def read_frames(paths: Sequence[str | Path]) -> Frames:
    """Read frame files. Raises BadInput if they hold too few groups to compare."""
    x, names = load_frames(list(dict.fromkeys(map(Path, paths))))
    val = _read_val(paths)
    train_groups, val_groups = len(set(names)), len({g for _, part in val.values() for g in part})
    if train_groups < 4 or val_groups < 2:
        problem = f"has {train_groups} groups in train and {val_groups} in val"
        raise BadInput(problem, "at least 4 and 2", path=paths[0])
    files = np.array([name.partition("/")[0] for name in names])
    index = np.concatenate([np.flatnonzero(files == Path(path).stem) for path in paths])
    return Frames(to_size(x), np.array(names), index, val)


def _read_val(paths: Sequence[str | Path]) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """Val images (N,1,H,W) and groups of each frame file once, by the file's name."""
    val: dict[str, tuple[torch.Tensor, list[str]]] = {}
    for path in dict.fromkeys(map(Path, paths)):
        if path.stem in val:
            raise BadInput("has the name of another frame file", "different names", path=path)
        x, groups = load_frames(path, "val")
        val[path.stem] = to_size(x), groups
    return val


def _read_samples(path: Path, like: torch.Tensor) -> torch.Tensor:
    x = torch.from_numpy(load_images(path))
    if x.shape[2:] != like.shape[2:] or len(x) < 4:
        expected = f"at least {(4, *like.shape[1:])}"
        raise BadInput(f"has shape {tuple(x.shape)}", expected, path=path)
    return x


def _read_images(path: str | Path) -> torch.Tensor:
    """Images (N,1,H,W), scaled as frames are."""
    with open_images(path) as source:
        values = source.read(0, source.shape[0])
    if not np.isfinite(values).all() or values.min() == values.max():
        raise BadInput("holds NaN, or one value only", "images", path=path)
    return unit_range(values)


def _evaluate_stage(
    model: FirstStage, tests: Mapping[str, torch.Tensor], out: Path
) -> tuple[dict[str, dict], dict[str, torch.Tensor]]:
    """Scores of each set, and of all together if they have one size; the reconstructions."""
    x_hat = {name: _reconstruct(model, x, name) for name, x in tests.items()}
    pairs = {name: (x_hat[name], x) for name, x in tests.items()}
    for name, both in pairs.items():
        for kind, images in zip(("reconstruction", "original"), both, strict=True):
            _save_pngs(out / "pairs", f"{name}_{{:03d}}_{kind}.png", images)
    if len(tests) > 1 and len({x.shape[2:] for x in tests.values()}) == 1:
        pairs["together"] = torch.cat(list(x_hat.values())), torch.cat(list(tests.values()))
    rows = {}
    for name, both in pairs.items():
        scores = compare_images(*both)
        rows[name] = {"images": len(both[1]), **scores, "psnr": min(scores["psnr"], LOSSLESS)}
    return rows, x_hat


def _reconstruct(model: FirstStage, x: torch.Tensor, name: str) -> torch.Tensor:
    """`reconstruct`. Raises BadInput for a size that the first stage cannot halve often enough."""
    try:
        x_hat = reconstruct(model, x)
    except RuntimeError as error:
        size = "×".join(map(str, x.shape[2:]))
        raise BadInput(
            f"has {size} pixels, which the first stage cannot take", path=name
        ) from error
    if x_hat.shape != x.shape:
        size, other = ("×".join(map(str, images.shape[2:])) for images in (x, x_hat))
        raise BadInput(f"has {size} pixels, which the first stage turns into {other}", path=name)
    return x_hat


def _save_pngs(folder: Path, name: str, x: torch.Tensor) -> None:
    """Images (N,1,H,W) as 8-bit grey PNGs; their numbers are filled into the name."""
    for k, image in enumerate((255 * x[:, 0]).round().byte().numpy()):
        with atomic(folder / name.format(k)) as temporary:
            Image.fromarray(image).save(temporary)
