"""`nogaps train`: the notebook's training on any clean images, for the mask of any test set."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from nogaps.Assessment import (
    PROFILES,
    choose_profile,
    find_mask,
    make_datasets,
    new_imputer,
    run_settings,
    train_ensemble,
    validate,
)
from nogaps.checkpoint import load_state, save_model
from nogaps.device import pick_device
from nogaps.files import BadInput, load_images
from nogaps.imputers.loading import WEIGHTS
from nogaps.imputers.uncertainty import CALIBRATION, calibrate_ensemble, save_calibration

LEAST_TO_CALIBRATE = 20  # images held out: fewer say nothing of 90 %


def train_imputer(
    images: str | Path,
    test_set: str | Path,
    out: str | Path,
    profile: str = "auto",
    seed: int = 0,
    resume: bool = False,
) -> dict[str, str | float]:
    """Train as the notebook does; write `out/imputer.safetensors` and its checkpoints.

    images: a .npy of (N,1,H,W) float in [0,1], or a folder with `images.npy`. Returns the file
    and the RMSE over the hole of the validation images. Raises BadInput if sizes differ, if no
    mask is found, or if `out` holds a run that is not to be continued.
    """
    images, out, device = Path(images), Path(out), pick_device()
    try:
        settings = PROFILES[choose_profile(profile, device)]
    except ValueError as error:
        raise BadInput(str(error)) from error
    try:
        x = torch.from_numpy(load_images(images / "images.npy" if images.is_dir() else images))
        mask = find_mask(torch.from_numpy(load_images(test_set)))
    except ValueError as error:
        raise BadInput(f"{test_set}: {error}") from error
    if x.shape[1:] != mask.shape[1:]:
        raise BadInput(
            f"{images}: {tuple(x.shape[2:])} pixels, {test_set}: {tuple(mask.shape[2:])}"
        )
    if len(x) < 10:
        raise BadInput(f"{images}: {len(x)} images, expected at least 10 to train on")
    checkpoint = out / "training-0.safetensors"
    if checkpoint.exists() and not resume:
        raise BadInput(f"{out}: holds a run already; add --resume, or choose another --out")
    train_set, val_set = make_datasets(x, mask, seed)
    state = load_state(checkpoint)
    first = new_imputer(settings, train_set.tensors[1], 1000 * seed)
    wanted = run_settings(first, train_set, mask.to(device), settings.epochs, 1000 * seed)
    if state is not None and state["settings"] != wanted:
        raise BadInput(f"{out}: holds a run on other images or settings; choose another --out")
    trained, _ = train_ensemble(settings, train_set, val_set, mask.to(device), out, seed)
    save_model(out / WEIGHTS, trained, trained.config)
    if len(val_set) >= LEAST_TO_CALIBRATE:
        sure = calibrate_ensemble(
            trained, *(t.to(device) for t in val_set.tensors), mask.to(device)
        )
        save_calibration(out / CALIBRATION, sure.calibration, "on images held out of training")
    mse = validate(trained, DataLoader(val_set, 128), mask.to(device))
    return {"imputer": str(out / WEIGHTS), "rmse": math.sqrt(mse)}
