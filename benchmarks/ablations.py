"""What each part of the notebook's imputer is worth on real heads.

    python -m benchmarks.ablations runs/samples/images.npy runs/frames/heads.npz ...

One change at a time: every variant is trained like the notebook's, on the same images for the same
number of steps, and scored on the `val` split of each frame file under the course's mask. The
difference in hole PSNR to the default is averaged over seeds; its 95 % interval is a bootstrap
over groups. What is finished is read from the working folder.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks import check_profile, run
from benchmarks.imputers import ROOT
from benchmarks.variants import VARIANTS, changed
from nogaps import Assessment
from nogaps.Assessment import Imputer, Profile, corrupt, fill, make_datasets
from nogaps.interpolation import keep_observed
from nogaps.metrics import bootstrap, hole_scores
from nogaps.prior.frames.heads import load_frames, to_size
from nogaps.runtime.checkpoint import fingerprint, load_tensors, save_tensors
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, load_images, save_json
from nogaps.standin import course_mask

RESULTS = ROOT / "benchmarks" / "results" / "ablations.json"
Val = dict[str, tuple[torch.Tensor, list[str]]]


def run_variant(
    name: str, x: torch.Tensor, val: Val, profile: Profile, seed: int, folder: Path
) -> tuple[dict[str, torch.Tensor], float]:
    """Filled val images of a variant trained on x (N,1,64,64), by set; and its training seconds."""
    variant = VARIANTS[name]
    if variant.size is not None:
        profile = replace(profile, widths=variant.size[0], bottleneck=variant.size[1])
    mask = torch.from_numpy(course_mask())[None, None]
    key = fingerprint(x, *(images for images, _ in val.values()))
    size = f"{profile.widths[0]}x{len(profile.widths)}"
    stem = f"{name.replace(' ', '-').replace('.', '_')}-{size}-{profile.epochs}-{seed}-{key}"
    done = folder / f"{stem}.safetensors"
    if not done.exists():
        train_set, val_set = make_datasets(x, mask, seed)
        checkpoint, start = folder / f"{stem}.training", time.perf_counter()
        with changed(variant):
            imputer = Assessment.new_imputer(profile, train_set.tensors[1], seed)
            trained = train_network(imputer, train_set, val_set, mask, profile, checkpoint, seed)
            seconds = time.perf_counter() - start
            on = mask.to(pick_device())
            x_hat = {k: fill(trained, corrupt(v, mask), on) for k, (v, _) in val.items()}
        save_tensors(done, x_hat, {"seconds": seconds})
        for state in (checkpoint, checkpoint.with_suffix(".previous")):
            state.unlink(missing_ok=True)
    tensors, meta = load_tensors(done)
    return tensors, meta["seconds"]


def train_network(
    imputer: Imputer,
    train_set: TensorDataset,
    val_set: TensorDataset,
    mask: torch.Tensor,
    profile: Profile,
    checkpoint: Path,
    seed: int,
) -> nn.Module:
    """The notebook's training; its averaged network."""
    on = mask.to(pick_device())
    return Assessment.train(imputer, train_set, val_set, on, profile.epochs, checkpoint, seed)[0]


def compare(fills: dict[str, list[dict]], val: Val) -> dict[str, dict]:
    """Per variant and set: PSNR, and what it is more than the default's, with its interval.

    fills: per variant one dict of filled images per seed. "ensemble of n" is the mean of the
    default's images over its seeds.
    """
    mask = torch.from_numpy(course_mask())[None, None]
    default = fills["default"]
    if len(default) > 1:
        mean = {k: torch.stack([one[k] for one in default]).mean(0) for k in val}
        mean = {k: keep_observed(mean[k], x, mask) for k, (x, _) in val.items()}
        fills = fills | {f"ensemble of {len(default)}": [mean]}
    rows: dict[str, dict] = {}
    for name, runs in fills.items():
        rows[name] = {}
        for k, (x, groups) in val.items():
            psnr = np.mean([hole_scores(run[k], x, mask)["psnr"] for run in runs], 0)
            paired = default if len(runs) == 1 and name.startswith("ens") else default[: len(runs)]
            base = np.mean([hole_scores(run[k], x, mask)["psnr"] for run in paired], 0)
            more = bootstrap((psnr - base).astype(float), groups)
            rows[name][k] = {"psnr": float(psnr.mean()), "more_db": more}
    return rows


def as_markdown(rows: dict[str, dict], seconds: dict[str, float]) -> str:
    """The table: a line per variant."""
    sets = list(next(iter(rows.values())))
    lines = ["| variant | " + " | ".join(sets) + " | seconds |", "|---" * (len(sets) + 2) + "|"]
    for name, row in rows.items():
        cells = []
        for k in sets:
            mean, low, high = row[k]["more_db"]
            change = "" if name == "default" else f" ({mean:+.2f} [{low:+.2f}, {high:+.2f}])"
            cells.append(f"{row[k]['psnr']:.2f}{change}")
        took = f"{seconds[name]:.0f}" if name in seconds else ""
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {took} |")
    return "\n".join(lines)


def main(
    images: Annotated[Path, typer.Argument(help="Synthetic heads, .npy of `nogaps sample`.")],
    frames: Annotated[list[Path], typer.Argument(help="Frame files of `nogaps prior prepare`.")],
    epochs: Annotated[int, typer.Option(help="Passes over four fifths of the images.")] = 10,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0",
    only: Annotated[str | None, typer.Option(help="Names of variants, with commas.")] = None,
    folder: Annotated[Path, typer.Option(help="Finished and interrupted runs.")] = Path(
        "runs/ablations"
    ),
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
    profile: Annotated[str, typer.Option(help="smoke or full: the size of the networks.")] = "full",
) -> None:
    """Train the variants, print a Markdown table and write it as JSON."""
    names = list(VARIANTS) if only is None else ["default", *only.split(",")]
    if unknown := [name for name in names if name not in VARIANTS]:
        raise BadInput(f"--only {unknown[0]}: expected some of {', '.join(VARIANTS)}")
    x = torch.from_numpy(load_images(images))
    val = {path.stem: load_frames(path, "val") for path in frames}
    val = {k: (to_size(heads), list(groups)) for k, (heads, groups) in val.items()}
    check_profile(profile)
    size = replace(Assessment.PROFILES[profile], epochs=epochs)
    folder.mkdir(parents=True, exist_ok=True)
    fills: dict[str, list[dict]] = {name: [] for name in dict.fromkeys(names)}
    seconds: dict[str, float] = {}
    for seed in map(int, seeds.split(",")):
        for name in fills:
            filled, seconds[name] = run_variant(name, x, val, size, seed, folder)
            fills[name].append(filled)
            rows = compare({k: v for k, v in fills.items() if v}, val)
            save_json(out, {"epochs": epochs, "seeds": seeds, "rows": rows, "seconds": seconds})
    print(as_markdown(rows, seconds))


if __name__ == "__main__":
    run(main)
