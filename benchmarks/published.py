"""Train the networks that others published for such holes, on the same images as ours.

    python -m benchmarks.published runs/full/samples/images.npy runs/frames/heads.npz ...

The coursework's reference recipe (21.6 million weights, Adam 1e-3, batch 10, MSE over the whole
image) for a given time, and U-Nets with FRM and ASPP-FRM for 15 epochs. After every epoch each is
scored on the `val` split of the frame files, so that accuracy can be drawn against time. An
interrupted run on the same files continues. `benchmarks.imputers --published DIR` puts what is
trained into its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy.optimize import curve_fit
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks import harness
from benchmarks.harness import course_mask
from benchmarks.recipes import COURSEWORK, SMOKE, CourseworkNet, Row, train_plain
from nogaps.Assessment import corrupt, fill, make_datasets
from nogaps.imputers.refinement import build_refined_unet
from nogaps.metrics import hole_scores
from nogaps.prior.frames import load_val
from nogaps.runtime.checkpoint import fingerprint, load_tensors, save_model
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_json, save_json

EPOCHS = {"coursework": 150, "frm": 15, "aspp-frm": 15}  # as published
REFINED = {"learning_rate": 1e-3, "batch_size": 32}


def build(name: str, size: dict | None = None) -> nn.Module:
    """Build an untrained network of EPOCHS; size: `widths` and `bottleneck`, else as published."""
    if name == "coursework":
        return CourseworkNet(**(size or {}))
    return build_refined_unet(name, **(size or {}))


def load_published(folder: Path) -> dict[str, nn.Module]:
    """Load the networks that were trained into a folder, by name.

    Raises:
        BadInput: There is none.
    """
    networks = {}
    for name in EPOCHS:
        path = folder / f"{name}.safetensors"
        if path.exists():
            tensors, config = load_tensors(path)
            size = {"widths": tuple(config["widths"]), "bottleneck": config["bottleneck"]}
            networks[name] = build(name, size).eval().requires_grad_(False)
            networks[name].load_state_dict(tensors)
    if not networks:
        raise BadInput("holds no network", "what benchmarks.published wrote", path=folder)
    return networks


def extrapolate(log: list[Row], epochs: int) -> float | None:
    """Predict the hole MSE after `epochs` from a + b * epoch ** -c, fitted to the log's last half.

    Least squares with all three at least 0; the scores are 10 * log10 of 1 / MSE. None for fewer
    than ten epochs.
    """
    rows = log[len(log) // 2 :]
    if len(rows) < 5:
        return None
    epoch = np.array([row["epoch"] for row in rows], float)
    mse = 10 ** (-np.array([row["score"] for row in rows]) / 10)

    def curve(e: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a + b * e**-c

    guess = (0.9 * mse.min(), mse.max(), 0.5)
    fitted, _ = curve_fit(curve, epoch, mse, guess, bounds=(0, np.inf), max_nfev=20_000)
    return float(curve(np.array([float(epochs)]), *fitted)[0])


def train_one(
    name: str,
    pairs: TensorDataset,
    val: torch.Tensor,
    out: Path,
    minutes: float,
    smoke: bool,
) -> dict:
    """Train one network of EPOCHS, write it to `out`, and return its log and figures.

    pairs: synthetic (y, x) to train on; val: real heads (N,1,64,64) to score on.
    """
    mask, device, heads = course_mask(), pick_device(), fingerprint(val)
    network, y = build(name, SMOKE if smoke else None).to(device), corrupt(val, mask)

    def score(trained: nn.Module) -> float:
        x_hat = fill(trained, y, mask.to(device))
        return float(hole_scores(x_hat, val, mask)["psnr"].mean())

    log = train_plain(
        network,
        pairs,
        mask,
        2 if smoke else EPOCHS[name],
        checkpoint=out / f"{name}-{heads}.training",
        seconds_limit=60 * minutes,
        score=score,
        **(COURSEWORK if name == "coursework" else REFINED),
    )
    save_model(out / f"{name}.safetensors", network, network.config)
    mse = extrapolate(log, EPOCHS[name])
    return {
        "weights": sum(p.numel() for p in network.parameters()),
        "scored_on": heads,
        "epochs": len(log),
        "seconds": log[-1]["seconds"],
        "published_epochs": EPOCHS[name],
        "psnr": log[-1]["score"],
        "best_psnr": max(row["score"] for row in log),
        "extrapolated_psnr": None if mse is None else -10 * float(np.log10(mse)),
        "log": log,
    }


def main(
    images: harness.Images,
    frames: harness.Frames,
    out: Annotated[
        Path, typer.Option(help="Folder of networks and logs; smoke: its folder `smoke`.")
    ] = Path("runs/published"),
    minutes: Annotated[float, typer.Option(help="At most so long for each network.")] = 100,
    only: Annotated[str, typer.Option(help="Which networks, with commas.")] = ",".join(EPOCHS),
    smoke: harness.Smoke = False,
) -> None:
    """Train the published networks and write `published.json`."""
    out, names = out / "smoke" if smoke else out, only.split(",")
    if unknown := [name for name in names if name not in EPOCHS]:
        raise BadInput("is not a network", ", ".join(EPOCHS), path=f"--only {unknown[0]}")
    x, val = torch.from_numpy(load_images(images)), load_val(frames)
    pairs, path = make_datasets(x, course_mask(), seed=0)[0], out / "published.json"
    for name in names:
        row = train_one(name, pairs, val, out, minutes, smoke)
        # read only now: another run may have added its row meanwhile
        save_json(path, (load_json(path) if path.exists() else {}) | {name: row})
        print(f"{name}: {row['epochs']} epochs in {row['seconds']:.0f} s, {row['psnr']:.2f} dB")


if __name__ == "__main__":
    harness.run(main)
