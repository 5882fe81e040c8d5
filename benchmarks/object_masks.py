"""Impute objects in colour pictures: a U-Net with FRM beside one with ASPP-FRM.

    python -m benchmarks.object_masks                      (CIFAR-10, objects found by DeepLabV3)
    python -m benchmarks.object_masks --images sample      (photographs that need no download)
    python -m benchmarks.object_masks --images FOLDER      (your own PNG or JPG)

The first repeats a public study: 50,000 object masks made once, 15 epochs of Adam and MSE over
whole images, scores on the 10,000 test images. The others do the same on 32×32 crops with drawn
objects, tested on photographs that were not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import object_data
from benchmarks.harness import RESULTS, ROOT, Impute, check_profile, table
from benchmarks.harness import run as run_command
from benchmarks.object_data import MaskedPictures
from benchmarks.object_figures import draw_filled, draw_large, large_mask
from benchmarks.object_scores import colour_hole_scores, whole_scores
from benchmarks.recipes import train_plain
from nogaps.imputers.refinement import RefinedUNet, build_refined_unet
from nogaps.interpolation import biharmonic, linear
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import save_json

RUN, CIFAR = ROOT / "runs/object_masks", ROOT / "runs/cifar10"
NETWORKS = {"FRM": "frm", "ASPP-FRM": "aspp-frm"}
PUBLISHED = {  # on CIFAR-10
    "FRM, published": {"psnr": 31.78, "ssim": 0.8667, "lpips": 0.1195, "fid": 20.22},
    "ASPP-FRM, published": {"psnr": 32.17, "ssim": 0.8714, "lpips": 0.1142, "fid": 21.86},
}
COLUMNS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f", "fid": ".2f"}
COLUMNS |= {"hole_psnr": ".2f", "hole_ssim": ".4f"}
CIFAR10 = {"train": 50_000, "test": 10_000}  # pictures in it
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
    large: int  # side of the high-resolution picture in pixels


SIZES = {
    "smoke": Size((8, 16), 32, 1, 48, 12, 16, 64),
    "full": Size((64, 128, 256), 512, 15, 5000, 1000, 64, 256),
}


@dataclass(frozen=True)
class Study:
    """Pictures to train on, others to test on; a photograph (H,W,3) uint8 not trained on."""

    name: str
    train: MaskedPictures
    test: MaskedPictures
    large: np.ndarray


def of_photographs(images: str, size: Size, seed: int) -> Study:
    """Crops with drawn objects, split by photograph; the large one is of the test part."""
    train, test = object_data.split_by_photograph(object_data.photographs(images), seed)
    parts = [
        object_data.crops_with_objects(train, size.train, 2 * seed),
        object_data.crops_with_objects(test, size.test, 2 * seed + 1),
    ]
    name = "sample" if images == "sample" else "photographs"
    return Study(name, *parts, next(iter(test.values())))


def of_cifar10(data: Path, masks: Path, size: Size, seed: int) -> Study:
    """The first pictures of CIFAR-10 with the objects that DeepLabV3 finds in them."""
    parts = []
    for part, count in (("train", size.train), ("test", size.test)):
        x = object_data.cifar10(data, part == "train")[:count]
        mask = object_data.object_masks(x, masks / f"{part}-seed{seed}", seed)
        parts.append(MaskedPictures(x, mask, tuple(map(str, range(len(x))))))
    return Study("cifar10", *parts, next(iter(object_data.photographs("sample").values())))


def by_channel(impute: Impute) -> Impute:
    """A filling of (N,1,H,W) used on each channel of (N,C,H,W); masks (N,1,H,W)."""

    def fill(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        masks = mask.repeat_interleave(y.shape[1], 0)
        return impute(y.flatten(0, 1)[:, None], masks).reshape(y.shape)

    return fill


@torch.no_grad()
def measure(predict: Impute, test: MaskedPictures, device: torch.device) -> dict[str, object]:
    """All scores of one filling and its seconds per picture."""
    parts, start = [], time.perf_counter()
    for k in range(0, len(test), BATCH):
        y, _, mask = test.batch(slice(k, k + BATCH))
        parts.append(predict(y.to(device), mask.to(device)).cpu())
    seconds = (time.perf_counter() - start) / len(test)
    _, x, mask = test.batch(slice(None))
    x_hat = torch.cat(parts)
    row = whole_scores(x_hat, x, mask) | colour_hole_scores(x_hat, x, mask, test.groups)
    return row | {"seconds_per_picture": seconds}


def train_networks(
    study: Study, size: Size, run: Path, seed: int
) -> tuple[dict[str, RefinedUNet], dict[str, dict]]:
    """Both networks, trained or continued, and for each its weights, seconds and log."""
    networks, training = {}, {}
    for name, kind in NETWORKS.items():
        network = build_refined_unet(kind, 3, size.widths, size.bottleneck, seed)
        network = network.to(pick_device())
        log = train_plain(
            network,
            study.train,
            None,
            size.epochs,
            checkpoint=run / f"{study.name}-{kind}.safetensors",
            batch_size=size.batch_size,
            seed=seed,
        )
        weights = sum(p.numel() for p in network.parameters())
        training[name] = {"weights": weights, "seconds": log[-1]["seconds"], "log": log}
        networks[name] = network
    return networks, training


def as_table(scores: Mapping[str, Mapping]) -> str:
    """Return a Markdown table; "n/a": could not be had (the JSON says why), "-": not published."""

    def cell(value: object, form: str) -> str:
        text = format(value, form) if isinstance(value, float) else "n/a"
        return "-" if value is None else text

    rows = [[k, *(cell(row.get(c), f) for c, f in COLUMNS.items())] for k, row in scores.items()]
    return table(["", *COLUMNS], rows)


def compare(study: Study, networks: Mapping[str, RefinedUNet]) -> dict[str, dict]:
    """Scores of both networks' own output, and of two fillings that need no training."""
    cpu = torch.device("cpu")
    scores = {
        "linear": measure(by_channel(linear()), study.test, cpu),
        "biharmonic": measure(by_channel(biharmonic), study.test, cpu),
    }
    for name, network in networks.items():
        scores[name] = measure(network.predict, study.test, pick_device())
    return scores


@torch.no_grad()
def draw_all(
    study: Study, networks: Mapping[str, RefinedUNet], side: int, out: Path, seed: int
) -> dict[str, float]:
    """Four rows for each network, and the large hole; returns the PSNR over that, in dB."""

    def on_cpu(network: RefinedUNet) -> Impute:
        device = pick_device()
        return lambda y, mask: network(y.to(device), mask.to(device)).cpu()

    fillings = {name: on_cpu(network) for name, network in networks.items()}
    for name, fill in fillings.items():
        path = out / f"object_masks_{study.name}_{NETWORKS[name]}.png"
        draw_filled(path, name, fill, study.test, seed)
    fillings["biharmonic"] = by_channel(biharmonic)
    path = out / f"object_masks_{study.name}_large.png"
    rows, mask = draw_large(path, fillings, study.large, side, seed), large_mask(side, seed)
    found = {k: colour_hole_scores(rows[k], rows["original"], mask, [k]) for k in fillings}
    return {name: row["hole_psnr"] for name, row in found.items()}


def run_study(
    images: str | None = None,
    profile: str = "full",
    *,
    epochs: int | None = None,
    crops: int | None = None,
    seed: int = 0,
    data: Path = CIFAR,
    run: Path = RUN,
    out: Path = RESULTS,
) -> dict:
    """Train, score and draw; writes `out/object_masks_NAME.json` and PNGs, returns the former.

    images: a folder, "sample", or None for CIFAR-10; epochs, crops: instead of the profile's. What
    `run` holds of the same study is continued. Raises BadInput if data or weights cannot be had.
    """
    check_profile(profile)
    size, run = SIZES[profile], run / profile
    if images is None and profile == "full":
        size = replace(size, **CIFAR10)
    size = replace(size, epochs=epochs or size.epochs, train=crops or size.train)
    if images is None:
        study = of_cifar10(data, run / "masks", size, seed)
    else:
        study = of_photographs(images, size, seed)
    if profile != "full":  # its results stand beside the others, not in their place
        study = replace(study, name=f"{study.name}-{profile}")
    networks, training = train_networks(study, size, run, seed)
    scores = compare(study, networks)
    result = {
        "study": study.name,
        "settings": asdict(size) | {"train": len(study.train), "test": len(study.test)},
        "seed": seed,
        "test_pictures": sorted(set(study.test.groups)) if images else "the test part",
        "machine": {"torch": torch.__version__, "device": pick_device().type},
        "table": scores if images else scores | PUBLISHED,
        "training": training,
        "large_hole_psnr": draw_all(study, networks, size.large, out, seed),
    }
    save_json(out / f"object_masks_{study.name}.json", result)
    return result


def main(
    images: Annotated[
        str | None, typer.Option(help="Folder of PNG or JPG, or 'sample'. Else CIFAR-10.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of cifar-10-batches-py.")] = CIFAR,
    weights: Annotated[
        Path | None, typer.Option(help="Folder with checkpoints/*.pth. Else torch's hub cache.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Folder of masks and checkpoints.")] = RUN,
    out: Annotated[Path, typer.Option(help="Folder of the JSON and PNGs.")] = RESULTS,
    profile: Annotated[str, typer.Option(help="full, or smoke: small networks.")] = "full",
    epochs: Annotated[int | None, typer.Option(help="Else 15.", min=1)] = None,
    crops: Annotated[
        int | None, typer.Option(help="To train on; else 5000, or all of CIFAR-10.", min=16)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of split, crops, masks and training.", min=0)] = 0,
) -> None:
    """Fill objects in colour pictures by U-Nets with FRM and ASPP-FRM; print their scores.

    The same command continues an interrupted run.

    Example: python -m benchmarks.object_masks --images sample
    """
    if weights is not None:
        torch.hub.set_dir(str(weights))
    settings = {"epochs": epochs, "crops": crops, "seed": seed, "data": data, "run": run}
    found = run_study(images, profile, out=out, **settings)
    print(
        f"{found['study']}: {found['settings']['test']} test pictures\n{as_table(found['table'])}"
    )
    large = ", ".join(f"{name} {psnr:.2f} dB" for name, psnr in found["large_hole_psnr"].items())
    print(f"one large hole: {large}")


if __name__ == "__main__":
    run_command(main)
