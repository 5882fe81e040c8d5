"""`nogaps train`: the notebook's training on any clean images, for the mask of any test set."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from nogaps.Assessment import (
    PROFILES,
    Ensemble,
    Options,
    choose_profile,
    make_datasets,
    new_imputer,
    train_ensemble,
    validate,
)
from nogaps.imputers.loading import WEIGHTS, trained_on
from nogaps.imputers.uncertainty import CALIBRATION, calibrate_ensemble, save_calibration
from nogaps.masks import shared_mask
from nogaps.runtime.checkpoint import load_state, run_settings, save_model
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, samples_file
from nogaps.runtime.processes import folder_lock

LEAST_TO_TRAIN = 10  # images
LEAST_TO_CALIBRATE = 20  # images held out: fewer do not tell where 90 % lie


def train_imputer(
    images: str | Path,
    test_set: str | Path,
    out: str | Path,
    profile: str = "auto",
    seed: int = 0,
    resume: bool = False,
) -> dict[str, str | float]:
    """Train as the notebook does; write `out/imputer.safetensors` and its checkpoints.

    Args:
        images: A .npy of (N,1,H,W) floats in [0,1], or a folder with `images.npy`.
        test_set: The corrupted images whose mask the imputer is for.
        out: Folder of the run.
        profile: A profile of the notebook, or "auto".
        seed: Of split, weights and augmentation.
        resume: Whether a run in `out` is continued.

    Returns:
        The file, and the RMSE over the holes of the validation images.

    Raises:
        BadInput: Sizes differ, the mask is unclear, the images are corrupted themselves, or `out`
            holds a run that is not to be continued, or that another process trains.
    """
    out, device = Path(out), pick_device()
    try:
        settings = PROFILES[choose_profile(profile, device)]
    except ValueError as error:
        raise BadInput(str(error)) from error
    x, mask = _load(Path(images), test_set)
    mask = mask.to(device)
    with folder_lock(out):
        checkpoint = out / "training-0.safetensors"
        if checkpoint.exists() and not resume:
            raise BadInput("holds a run already; add --resume, or choose another --out", path=out)
        train_set, val_set = make_datasets(x, mask.cpu(), seed)
        first = new_imputer(settings, train_set.tensors[1], 1000 * seed)
        options = Options(settings.epochs, 1000 * seed)
        wanted = run_settings(first, train_set.tensors[1], mask, options)
        state = load_state(checkpoint)
        if state is not None and state.get("settings") != wanted:
            problem = "holds a run on other images or settings; choose another --out"
            raise BadInput(problem, path=out)
        options = Options(settings.epochs, seed)
        trained, _ = train_ensemble(settings, train_set, val_set, mask, out, options)
        return _save(trained, val_set, mask, out)


def _load(images: Path, test_set: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean images (N,1,H,W), and the mask (1,1,H,W) of the test set."""
    x = torch.from_numpy(load_images(samples_file(images)))
    mask = torch.from_numpy(shared_mask(load_images(test_set), str(test_set)))[None, None]
    if x.shape[1:] != mask.shape[1:]:
        held, expected = ("×".join(map(str, size)) for size in (x.shape[2:], mask.shape[2:]))
        raise BadInput(f"holds images of {held}", f"{expected} as {test_set}", path=images)
    if not x[:, ~mask[0]].any():
        problem = f"is 0 wherever {test_set} is in every image: corrupted"
        raise BadInput(problem, "complete images to learn from", path=images)
    if len(x) < LEAST_TO_TRAIN:
        raise BadInput(f"holds {len(x)} images", f"at least {LEAST_TO_TRAIN}", path=images)
    return x, mask


def _save(
    trained: Ensemble, val_set: TensorDataset, mask: torch.Tensor, out: Path
) -> dict[str, str | float]:
    """Write the networks and, with enough images, their calibration; score them."""
    save_model(out / WEIGHTS, trained, trained.config | trained_on(mask))
    if len(val_set) >= LEAST_TO_CALIBRATE:
        pairs = (t.to(mask.device) for t in val_set.tensors)
        calibration = calibrate_ensemble(trained, *pairs, mask).calibration
        save_calibration(out / CALIBRATION, calibration, "on images held out of training")
    mse = validate(trained, DataLoader(val_set, 128, generator=torch.Generator()), mask)
    return {"imputer": str(out / WEIGHTS), "rmse": math.sqrt(mse)}
