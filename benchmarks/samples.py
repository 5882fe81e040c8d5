"""Synthetic heads beside the real ones their prior learnt from: sharpness, intensities, copies.

    python -m benchmarks.samples runs/full/samples/images.npy runs/frames/heads.npz \
        runs/frames/heads_t1.npz
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from nogaps.files import load_images, save_json
from nogaps.metrics import gradient_energy
from nogaps.prior.heads import load_frames, to_size

RESULTS = Path(__file__).parent / "results" / "samples.json"
QUANTILES = (0.5, 0.9, 0.99, 0.999)


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Each image of x (N,1,H,W) divided by its 99.7th percentile and clipped to [0,1]."""
    top = x.flatten(1).quantile(0.997, dim=1).clamp(min=1e-6)
    return (x / top.view(-1, 1, 1, 1)).clamp(0, 1)


def nearest(a: torch.Tensor, b: torch.Tensor, same: bool = False) -> np.ndarray:
    """1 - correlation of each image of a with the most similar one of b, (len(a),).

    same: a is b, and an image is not compared with itself.
    """

    def standardise(x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True)

    correlation = standardise(a) @ standardise(b).T
    if same:
        correlation.fill_diagonal_(-1)
    return (1 - correlation.max(1).values).numpy()


def describe(x: torch.Tensor) -> dict[str, float | list[float]]:
    """Number, gradient energy, mean, deviation and QUANTILES of images x (N,1,H,W)."""
    quantiles = np.quantile(x.numpy(), QUANTILES)
    moments = {"mean": float(x.mean()), "std": float(x.std())}
    row = {"images": len(x), "gradient_energy": gradient_energy(x), **moments}
    return row | {"quantiles": [float(value) for value in quantiles]}


def main(
    samples: Annotated[Path, typer.Argument(help="Synthetic images (.npy).")],
    frames: Annotated[list[Path], typer.Argument(help="Frame files of `prior prepare`.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print and write both tables."""
    x = normalise(torch.from_numpy(load_images(samples)))
    train, val = (normalise(to_size(load_frames(frames, split)[0])) for split in ("train", "val"))
    sets = {"train": train, "val": val, "samples": x}
    rows = {name: describe(images) for name, images in sets.items()}
    for name, row in rows.items():
        values = ", ".join(f"{value:.3f}" for value in row["quantiles"])
        print(f"{name:8} {row['images']:5} images, gradient energy {row['gradient_energy']:.3f},")
        print(f"{'':8} mean {row['mean']:.3f}, std {row['std']:.3f}, quantiles {values}")
    distances = {
        "samples to train": nearest(x, train),
        "val to train": nearest(val, train),
        "samples to samples": nearest(x, x, same=True),
        "train to train": nearest(train, train, same=True),
    }
    print("\ndistance (1 - correlation) to the nearest: 5th percentile, median, least")
    summary = {}
    for name, d in distances.items():
        summary[name] = [float(v) for v in (np.quantile(d, 0.05), np.median(d), d.min())]
        print(f"{name:19}", "  ".join(f"{value:.3f}" for value in summary[name]))
    save_json(out, {"sets": rows, "quantiles": QUANTILES, "nearest": summary})


if __name__ == "__main__":
    typer.run(main)
