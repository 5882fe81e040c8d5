"""Impute objects in colour pictures: a U-Net with FRM beside one with ASPP-FRM.

    python -m benchmarks.object_masks                      (CIFAR-10, objects found by DeepLabV3)
    python -m benchmarks.object_masks --images sample      (photographs that need no download)
    python -m benchmarks.object_masks --images FOLDER      (your own PNG or JPG)

The first repeats a public study: 50,000 object masks made once, 15 epochs of Adam and MSE over
whole images, scores on the 10,000 test images. The others do the same on 32×32 crops with drawn
objects, tested on photographs that were not trained on. An interrupted run continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from matplotlib.figure import Figure

from benchmarks import harness, object_data
from benchmarks.harness import RESULTS, ROOT, Impute
from benchmarks.object_data import Pictures
from benchmarks.object_scores import colour_hole_scores, whole_scores
from benchmarks.recipes import train_plain
from nogaps import tables
from nogaps.imputers.refinement import RefinedUNet, build_refined_unet
from nogaps.interpolation import biharmonic, linear
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import atomic, save_json

RUN, CIFAR = ROOT / "runs/object_masks", ROOT / "runs/cifar10"
NETWORKS = {"FRM": "frm", "ASPP-FRM": "aspp-frm"}
PUBLISHED = {  # on CIFAR-10
    "FRM, published": {"psnr": 31.78, "ssim": 0.8667, "lpips": 0.1195, "fid": 20.22},
    "ASPP-FRM, published": {"psnr": 32.17, "ssim": 0.8714, "lpips": 0.1142, "fid": 21.86},
}
COLUMNS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f", "fid": ".2f"}
COLUMNS |= {"hole_psnr": ".2f", "hole_ssim": ".4f"}
BATCH = 250  # pictures filled at a time


@dataclass(frozen=True)
class Size:
    """How much of everything; train and test: pictures."""

    widths: tuple[int, ...]
    bottleneck: int
    epochs: int
    train: int
    test: int
    batch_size: int


SIZES = {
    "smoke": Size((8, 16), 32, 1, 48, 12, 16),
    "full": Size((64, 128, 256), 512, 15, 5000, 1000, 64),
}
CIFAR10 = {"train": 50_000, "test": 10_000}  # pictures in it: the full study takes all of them


class Study(NamedTuple):
    """Pictures to train on, and others to test on."""

    name: str
    train: Pictures
    test: Pictures


def of_photographs(images: str, size: Size, seed: int) -> Study:
    """Return crops with drawn objects, split by photograph: three tenths of them are tested on."""
    photos = object_data.photographs(images)
    names = sorted(photos)
    count = min(len(names) - 1, max(1, round(0.3 * len(names))))
    held_out = set(np.random.default_rng(seed).permutation(names)[:count])
    train, test = ({n: photos[n] for n in names if (n in held_out) == out} for out in (0, 1))
    parts = [
        object_data.crops_with_objects(train, size.train, 2 * seed),
        object_data.crops_with_objects(test, size.test, 2 * seed + 1),
    ]
    return Study("sample" if images == "sample" else "photographs", *parts)


def of_cifar10(masks: Path, size: Size, seed: int) -> Study:
    """Return the first pictures of CIFAR-10 with the objects that DeepLabV3 finds in them."""
    parts = []
    for part, count in (("train", size.train), ("test", size.test)):
        x = object_data.cifar10(CIFAR, part == "train")[:count]
        mask = object_data.object_masks(x, masks / f"{part}-seed{seed}", seed)
        parts.append(Pictures(x, mask, [str(k) for k in range(len(x))]))
    return Study("cifar10", *parts)


# training and scores -------------------------------------------------------------------------


def train_networks(
    study: Study, size: Size, run: Path, seed: int
) -> tuple[dict[str, RefinedUNet], dict[str, dict]]:
    """Return both networks, trained or continued, and for each its weights, seconds and log."""
    networks, training = {}, {}
    for name, kind in NETWORKS.items():
        network = build_refined_unet(kind, 3, size.widths, size.bottleneck, seed)
        networks[name] = network.to(pick_device())
        log = train_plain(
            networks[name],
            study.train.triples(),
            None,
            size.epochs,
            checkpoint=run / f"{study.name}-{kind}.training",
            batch_size=size.batch_size,
            seed=seed,
        )
        weights = sum(p.numel() for p in network.parameters())
        training[name] = {"weights": weights, "seconds": log[-1]["seconds"], "log": log}
    return networks, training


def by_channel(impute: Impute) -> Impute:
    """Use a filling of (N,1,H,W) on each channel of (N,C,H,W); masks (N,1,H,W)."""

    def fill(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        masks = mask.repeat_interleave(y.shape[1], 0)
        return impute(y.flatten(0, 1)[:, None], masks).reshape(y.shape)

    return fill


def on_device(impute: Impute) -> Impute:
    """Fill on the device that networks compute on."""
    device = pick_device()
    return lambda y, mask: impute(y.to(device), mask.to(device)).cpu()


def measure(impute: Impute, test: Pictures) -> dict[str, object]:
    """Return all scores of one filling."""
    y, x, mask = test.triples().tensors
    parts = [impute(*part) for part in zip(y.split(BATCH), mask.split(BATCH), strict=True)]
    x_hat = torch.cat(parts)
    return whole_scores(x_hat, x, mask) | colour_hole_scores(x_hat, x, mask, test.groups)


def compare(study: Study, networks: Mapping[str, RefinedUNet]) -> dict[str, dict]:
    """Return the scores of both networks' own output, and of two fillings without training."""
    fillings = {"linear": by_channel(linear()), "biharmonic": by_channel(biharmonic)}
    fillings |= {name: on_device(network.predict) for name, network in networks.items()}
    return {name: measure(fill, study.test) for name, fill in fillings.items()}


def as_table(scores: Mapping[str, Mapping]) -> str:
    """Return a Markdown table; "n/a": could not be had (the JSON says why), "-": not published."""

    def cell(value: object, form: str) -> str:
        text = format(value, form) if isinstance(value, float) else "n/a"
        return "-" if value is None else text

    rows = [[k, *(cell(row.get(c), f) for c, f in COLUMNS.items())] for k, row in scores.items()]
    return tables.as_markdown(["", *COLUMNS], rows)


# the figure -------------------------------------------------------------------------------------


def draw_filled(path: Path, name: str, fill: Impute, test: Pictures, seed: int) -> None:
    """Draw ten random test pictures with a hole: original, mask, masked, filled."""
    holed = (~test.mask).flatten(1).any(1).nonzero().flatten()
    order = torch.randperm(len(holed), generator=torch.Generator().manual_seed(seed))
    y, x, mask = test.triples()[holed[order[:10]]]
    rows = {"original": x, "mask": mask.float().expand_as(x), "masked": y, "filled": fill(y, mask)}
    figure = Figure(figsize=(len(x) + 1, 5), dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), len(x), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    figure.suptitle(f"{name}: pictures that it was not trained on (mask: black is missing)")
    with atomic(path) as temporary:
        figure.savefig(temporary)


# the study -----------------------------------------------------------------------------------


def run_study(
    images: str | None = None,
    profile: str = "full",
    *,
    seed: int = 0,
    run: Path = RUN,
    out: Path = RESULTS,
) -> dict:
    """Train, score and draw; writes `out/object_masks_NAME.json` and PNGs, and returns the JSON.

    Args:
        images: A folder, "sample", or None for CIFAR-10.
        profile: "full", or "smoke": small networks, few pictures.
        seed: Of split, crops, masks and training.
        run: Folder of masks and checkpoints; what it holds of the same study is continued.
        out: Folder of the results.

    Raises:
        BadInput: Data or weights cannot be had.
    """
    size, run = SIZES[profile], run / profile
    if images is None and profile == "full":
        size = replace(size, **CIFAR10)
    if images is None:
        study = of_cifar10(run / "masks", size, seed)
    else:
        study = of_photographs(images, size, seed)
    if profile != "full":  # its results stand beside the others, not in their place
        study = study._replace(name=f"{study.name}-{profile}")
    networks, training = train_networks(study, size, run, seed)
    with torch.no_grad():
        scores = compare(study, networks)
        for name, network in networks.items():
            path = out / f"object_masks_{study.name}_{NETWORKS[name]}.png"
            draw_filled(path, name, on_device(network), study.test, seed)
    result = {
        "study": study.name,
        "settings": asdict(size),
        "seed": seed,
        "test_pictures": sorted(set(study.test.groups)) if images else "the test part",
        "machine": {"torch": torch.__version__, "device": pick_device().type},
        "table": scores if images else scores | PUBLISHED,
        "training": training,
    }
    save_json(out / f"object_masks_{study.name}.json", result)
    return result


def main(
    images: Annotated[
        str | None, typer.Option(help="Folder of PNG or JPG, or 'sample'. Else CIFAR-10.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Folder of masks and checkpoints.")] = RUN,
    out: Annotated[Path, typer.Option(help="Folder of the JSON and PNGs.")] = RESULTS,
    smoke: harness.Smoke = False,
    seed: Annotated[int, typer.Option(help="Of split, crops, masks and training.", min=0)] = 0,
) -> None:
    """Fill objects in colour pictures by U-Nets with FRM and ASPP-FRM; print their scores."""
    result = run_study(images, "smoke" if smoke else "full", seed=seed, run=run, out=out)
    pictures = result["settings"]["test"]
    print(f"{result['study']}: {pictures} test pictures\n{as_table(result['table'])}")


if __name__ == "__main__":
    harness.run(main)
