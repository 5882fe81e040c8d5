"""Impute objects in CIFAR-10 by U-Nets: plain, with FRM, and with ASPP-FRM.

    python -m benchmarks.object_masks cifar10.zip --model deeplabv3.tflite
    python -m benchmarks.object_masks FOLDER      (masks by torchvision's DeepLabV3, downloaded)

Repeats a public study: object masks made once, 15 epochs of Adam and MSE over whole pictures,
scores on the 10,000 test pictures. Beside it the same networks learn the residual to biharmonic
interpolation, and observed pixels are copied. An interrupted run continues.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset

from benchmarks import harness, object_data
from benchmarks.filling import opencv
from benchmarks.harness import RESULTS, ROOT, Impute
from benchmarks.object_data import Pictures, colour, large_picture
from benchmarks.object_scores import colour_hole_scores, holed, whole_scores
from benchmarks.recipes import train_plain
from nogaps import tables
from nogaps.imputers.refinement import PLAIN, RefinedUNet, build_refined_unet
from nogaps.interpolation import biharmonic, keep_observed, linear
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import atomic, save_json

RUN = ROOT / "runs/object_masks"
MASKS = RUN / "masks.npz"
NETWORKS = {"U-Net": PLAIN, "FRM": "frm", "ASPP-FRM": "aspp-frm"}
PUBLISHED = {  # trained on 50,000 pictures
    "FRM, published": {"psnr": 31.78, "ssim": 0.8667, "lpips": 0.1195, "fid": 20.22},
    "ASPP-FRM, published": {"psnr": 32.17, "ssim": 0.8714, "lpips": 0.1142, "fid": 21.86},
}
COLUMNS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f", "fid": ".2f"}
COLUMNS |= {"hole_psnr": ".2f", "hole_ssim": ".4f"}
BATCH = 250  # pictures filled at a time
SIZES = {  # train, test: pictures; large: side of the one large picture
    "smoke": {"widths": (8, 16), "bottleneck": 32, "epochs": 1, "batch_size": 16}
    | {"train": 48, "test": 12, "large": 64},
    "full": {"widths": (64, 128, 256), "bottleneck": 512, "epochs": 15, "batch_size": 64}
    | {"train": 10_000, "test": 10_000, "large": 256},
}


# fillings ------------------------------------------------------------------------------------


def by_channel(impute: Impute, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Fill each channel of y (N,3,H,W); a picture of which nothing is observed becomes grey."""
    x_hat, seen = torch.full_like(y, 0.5), mask.flatten(1).any(1).nonzero().flatten()
    for first in range(0, len(seen), BATCH):
        rows = seen[first : first + BATCH]
        channels = y[rows].flatten(0, 1)[:, None]
        x_hat[rows] = impute(channels, mask[rows].repeat_interleave(3, 0)).view_as(y[rows])
    return x_hat


@torch.no_grad()
def by_network(network: RefinedUNet, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the network's own output, also where pixels are observed."""
    parts = zip(y.to(pick_device()).split(BATCH), mask.to(pick_device()).split(BATCH), strict=True)
    return torch.cat([network.predict(*part).cpu() for part in parts])


def interpolated(pictures: Pictures) -> TensorDataset:
    """Return (y, x, mask), y filled by biharmonic interpolation."""
    y, x, mask = pictures.triples().tensors
    return TensorDataset(by_channel(biharmonic, y, mask), x, mask)


def fillings(
    pictures: Pictures, networks: Mapping[str, RefinedUNet]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the pictures as each method fills them, (N,3,H,W), by its name."""
    y, _, mask = pictures.triples().tensors
    start = interpolated(pictures).tensors[0]
    yield "linear", by_channel(linear(), y, mask)
    yield "biharmonic", start
    if find_spec("cv2"):
        yield "Telea", by_channel(opencv("telea"), y, mask)
    for name, network in networks.items():
        yield name, by_network(network, start if network.config["residual"] else y, mask)


# training and scores -------------------------------------------------------------------------


def build(kind: str, size: Mapping, seed: int, residual: bool) -> RefinedUNet:
    """Build an untrained network; a plain one is wider, and so has about as many weights."""
    wider = 1.25 if kind == PLAIN else 1
    channels = [8 * round(wider * c / 8) for c in (*size["widths"], size["bottleneck"])]
    network = build_refined_unet(kind, 3, tuple(channels[:-1]), channels[-1], seed, residual)
    return network.to(pick_device())


def train_networks(
    train: Pictures, size: Mapping, run: Path, seed: int
) -> tuple[dict[str, RefinedUNet], dict[str, dict]]:
    """Train or continue each network as published, and on a residual; return them, and logs."""
    networks, training = {}, {}
    settings = {key: size[key] for key in ("epochs", "batch_size")} | {"seed": seed}
    for end, given in (("", train.triples()), (", residual", interpolated(train))):
        for label, kind in NETWORKS.items():
            name = label + end
            networks[name] = build(kind, size, seed, residual=bool(end))
            path = run / f"{file_name(name)}.training"
            log = train_plain(networks[name], given, None, checkpoint=path, **settings)
            weights = sum(p.numel() for p in networks[name].parameters())
            training[name] = {"weights": weights, "seconds": log[-1]["seconds"], "log": log}
    return networks, training


def file_name(name: str) -> str:
    """Return "frm-residual" for "FRM, residual"."""
    return name.lower().replace(", ", "-")


def as_table(scores: Mapping[str, Mapping]) -> str:
    """Return a Markdown table; "n/a": could not be had, and why below; "-": not published."""

    def cell(value: object, form: str) -> str:
        if value is None:
            return "-"
        return format(value, form) if isinstance(value, float) else "n/a"

    rows = [[k, *(cell(row.get(c), f) for c, f in COLUMNS.items())] for k, row in scores.items()]
    first = next(iter(scores.values()))
    missing = [f"{name}: {first[name]}" for name in COLUMNS if isinstance(first[name], str)]
    return "\n\n".join([tables.as_markdown(["", *COLUMNS], rows), *missing])


# figures -------------------------------------------------------------------------------------


def draw(path: Path, rows: Mapping[str, torch.Tensor], title: str, zoom: int = 3) -> None:
    """Draw a row of pictures (N,3,H,W) in [0,1] for each entry; zoom: screen pixels of a pixel."""
    count, _, height, width = next(iter(rows.values())).shape
    size = (count * width * zoom / 100 + 1, len(rows) * (height * zoom / 100 + 0.3) + 0.5)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), squeeze=False)[:, 0]
    for axis, (label, pictures) in zip(axes, rows.items(), strict=True):
        framed = F.pad(pictures.clamp(0, 1), (1, 1, 1, 1), value=1.0).permute(0, 2, 3, 1)
        axis.imshow(np.concatenate(list(framed), 1), interpolation="nearest")
        axis.set(xticks=[], yticks=[], frame_on=False)
        axis.set_title(label, loc="left", fontsize=9)
    figure.suptitle(title)
    with atomic(path) as temporary:
        figure.savefig(temporary)


def before(pictures: Pictures) -> dict[str, torch.Tensor]:
    """Return what is known before filling, as rows of a figure."""
    y, x, mask = pictures.triples().tensors
    return {"original": x, "mask": mask.float().expand_as(x), "masked": y}


def some(pictures: Pictures, eligible: torch.Tensor, count: int, seed: int) -> Pictures:
    """Return random ones of the pictures for which `eligible` (N,) is true."""
    rows = eligible.nonzero().flatten()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return Pictures(*(part[rows[order[:count]]] for part in pictures))


def draw_sheet(path: Path, test: Pictures, seed: int) -> None:
    """Draw forty random test pictures with their objects in red."""
    x, mask = some(test, torch.ones(len(test.x)), 40, seed)
    marked = torch.where(mask, x, 0.5 * x + 0.5 * torch.tensor([1.0, 0, 0]).reshape(3, 1, 1))
    rows = {f"from {10 * k + 1}": ten for k, ten in enumerate(marked.split(10))}
    draw(path, rows, "Random test pictures; what is cut out is red")


def draw_filled(
    stem: str, test: Pictures, networks: Mapping[str, RefinedUNet], side: int, seed: int
) -> dict[str, float]:
    """Draw ten pictures by each network and a large hole by every method; return its PSNR in dB."""
    ten, large = some(test, holed(test.mask), 10, seed), large_picture(side)
    for name, x_hat in fillings(ten, networks):
        if name in networks:
            rows = before(ten)
            rows["filled"] = keep_observed(x_hat, rows["masked"], ten.mask)
            draw(Path(f"{stem}_{file_name(name)}.png"), rows, f"{name} (mask: black is missing)")
    shown, psnr = before(large), {}
    for name, x_hat in fillings(large, networks):
        shown[name] = keep_observed(x_hat, shown["masked"], large.mask)
        psnr[name] = colour_hole_scores(shown[name], large.x, large.mask)["hole_psnr"]
    threes = [list(shown)[k : k + 3] for k in range(0, len(shown), 3)]
    rows = {" | ".join(three): torch.cat([shown[name] for name in three]) for three in threes}
    draw(Path(f"{stem}_large.png"), rows, f"One large hole, {side}×{side} pixels", zoom=1)
    return psnr


# the study -----------------------------------------------------------------------------------


def run_study(
    images: Path,
    model: Path | None = None,
    train: int | None = None,
    smoke: bool = False,
    masks_only: bool = False,
    *,
    seed: int = 0,
    masks: Path = MASKS,
    run: Path = RUN,
    out: Path = RESULTS,
) -> dict:
    """Make masks, train, score and draw; write `out/object_masks_cifar10*`, a JSON and PNGs.

    Args:
        images, train, smoke, seed, masks, run, out: As the options of the command.
        model: See `object_masks`.
        masks_only: Make and draw the masks, and return their "masks" alone.

    Returns:
        What the JSON holds.

    Raises:
        BadInput: Pictures, model or packages cannot be had.
    """
    size = SIZES["smoke" if smoke else "full"] | ({} if train is None else {"train": train})
    stem = str(out / f"object_masks_cifar10{'-smoke' * smoke}")
    parts, facts = {}, {}
    for part in ("test", "train") if size["train"] else ("test",):
        pixels = object_data.read_pictures(images, part, size[part])
        mask = object_data.object_masks(pixels, part, masks, model, seed)
        parts[part], facts[part] = Pictures(colour(pixels), mask), object_data.mask_facts(mask)
    facts["made_of"] = str(object_data.load_masks(masks)["made_of"])
    test = parts["test"]
    draw_sheet(Path(f"{stem}_masks.png"), test, seed)
    if masks_only:
        return {"masks": facts}
    networks, training = {}, {}
    if size["train"]:
        folder = run / ("smoke" if smoke else "full")
        networks, training = train_networks(parts["train"], size, folder, seed)
    scores = {
        name: whole_scores(x_hat, test.x, test.mask) | colour_hole_scores(x_hat, test.x, test.mask)
        for name, x_hat in fillings(test, networks)
    }
    result = {
        "settings": size | {"seed": seed},
        "machine": {"torch": torch.__version__, "device": pick_device().type},
        "masks": facts,
        "table": scores | PUBLISHED,
        "training": training,
        "large_hole_psnr": draw_filled(stem, test, networks, size["large"], seed),
    }
    save_json(f"{stem}.json", result)
    return result


def main(
    images: Annotated[Path, typer.Argument(help="Zip or folder of PART/CLASS/NUMBER.jpg.")],
    model: Annotated[
        Path | None, typer.Option(help="DeepLabV3 .tflite, else torchvision's")
    ] = None,
    train: Annotated[int | None, typer.Option(help="Training pictures, 0: none.", min=0)] = None,
    smoke: harness.Smoke = False,
    masks_only: Annotated[bool, typer.Option("--masks-only", help="Stop at the masks.")] = False,
    tiles: Annotated[bool, typer.Option("--tiles", help="Only compare masks of tiles.")] = False,
    seed: Annotated[int, typer.Option(help="Of masks, training and figures.", min=0)] = 0,
    masks: Annotated[Path, typer.Option(help="File of masks; what it lacks is added.")] = MASKS,
    run: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = RUN,
    out: Annotated[Path, typer.Option(help="Folder of the JSON and PNGs.")] = RESULTS,
) -> None:
    """Fill objects in colour pictures by U-Nets with FRM and ASPP-FRM; print their scores."""
    if tiles:
        result = object_data.compare_tiles(images, model)
        save_json(out / "object_masks_tiles.json", result)
    else:
        places = {"masks": masks, "run": run, "out": out}
        result = run_study(images, model, train, smoke, masks_only, seed=seed, **places)
    print(as_table(result["table"]) if "table" in result else json.dumps(result, indent=2))


if __name__ == "__main__":
    harness.run(main)
