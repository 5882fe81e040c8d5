"""`nogaps train`: the notebook's training on any clean images, for the mask of any test set."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from nogaps.Assessment import (
    PROFILES,
    Ensemble,
    choose_profile,
    make_datasets,
    new_imputer,
    run_settings,
    train_ensemble,
    validate,
)
from nogaps.imputers.loading import WEIGHTS, trained_on
from nogaps.imputers.uncertainty import CALIBRATION, calibrate_ensemble, save_calibration
from nogaps.masks import shared_mask
from nogaps.runtime.checkpoint import load_state, save_model
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, load_images, samples_file
from nogaps.runtime.locks import folder_lock

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
    mask is found, if `out` holds a run that is not to be continued, or if another process is
    training there.
    """
    out, device = Path(out), pick_device()
    try:
        settings = PROFILES[choose_profile(profile, device)]
    except ValueError as error:
        raise BadInput(str(error)) from error
    x, mask = _load(Path(images), test_set)
    with folder_lock(out):
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
        return _save(trained, val_set, mask.to(device), out)


def _load(images: Path, test_set: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean images (N,1,H,W), and the mask (1,1,H,W) of the test set."""
    x = torch.from_numpy(load_images(samples_file(images)))
    mask = torch.from_numpy(shared_mask(load_images(test_set), str(test_set)))[None, None]
    if x.shape[1:] != mask.shape[1:]:
        found, expected = ("×".join(map(str, one.shape[2:])) for one in (x, mask))
        raise BadInput(f"{images}: holds images of {found}, expected {expected} as {test_set}")
    if len(x) < 10:
        raise BadInput(f"{images}: {len(x)} images, expected at least 10 to train on")
    return x, mask


def _save(
    trained: Ensemble, val_set: TensorDataset, mask: torch.Tensor, out: Path
) -> dict[str, str | float]:
    """Write the trained networks and, with enough images, how sure they are."""
    save_model(out / WEIGHTS, trained, trained.config | trained_on(mask))
    if len(val_set) >= LEAST_TO_CALIBRATE:
        pairs = (t.to(mask.device) for t in val_set.tensors)
        sure = calibrate_ensemble(trained, *pairs, mask)
        save_calibration(out / CALIBRATION, sure.calibration, "on images held out of training")
    loader = DataLoader(val_set, 128, generator=torch.Generator())
    mse = validate(trained, loader, mask)
    return {"imputer": str(out / WEIGHTS), "rmse": math.sqrt(mse)}
