"""The table and the page of figures of `nogaps prior evaluate`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from nogaps.evaluation.realism import Heads, neighbours
from nogaps.figures import DPI, show_rows
from nogaps.runtime.files import atomic

COLUMNS = 10
COLOURS = {"train": "black", "val": "tab:gray", "reconstructions": "tab:blue", "samples": "tab:red"}


def as_text(result: Mapping) -> str:
    """The result of `evaluate` as aligned tables."""
    lines = [f"{'first stage':24} images   PSNR/dB    SSIM  gradient energy"]
    for name, row in result["first_stage"].items():
        scores = f"{row['psnr']:9.2f} {row['ssim']:7.4f} {row['gradient_energy']:16.3f}"
        lines.append(f"{name:24} {row['images']:6} {scores}")
    lines += _realism_lines(result) if "sets" in result else []
    lines += _usefulness_lines(result["usefulness"]) if "usefulness" in result else []
    return "\n".join(lines)


def _realism_lines(result: Mapping) -> list[str]:
    quantiles = list(result["sets"]["train"]["quantiles"])
    title = "images  gradient energy  ratio   mean    std  quantiles"
    lines = ["", f"{'set':16} {title} {', '.join(quantiles)}"]
    for name, row in result["sets"].items():
        values = " ".join(f"{value:.3f}" for value in row["quantiles"].values())
        energy = f"{row['gradient_energy']:16.3f} {row['gradient_energy_ratio']:6.3f}"
        moments = f"{row['mean']:6.3f} {row['std']:6.3f}"
        lines.append(f"{name:16} {row['images']:6} {energy} {moments}  {values}")
    lines += ["", f"features: {result['features']}"]
    title = f"{'pair':24}   AUC     KID ± std       images Fréchet"
    lines.append(title + "     precision           recall")
    for name, row in result["pairs"].items():
        kid = f"{row['auc']:.3f} {row['kid']:7.4f} ± {row['kid_std']:.4f}"
        line = f"{name:24} {kid} {row['images']:8} {row['frechet']:7.3f}"
        for key in ("precision", "recall"):
            line += "  {:.2f} [{:.2f}, {:.2f}]".format(*row[key])
        lines.append(line)
    lines += ["", *_inception_lines(result["inception"])]
    lines += ["", f"{'nearest: 5 %, median, least':28} 1 - correlation     ratio to second"]
    lines[-1] += "       SSIM  copies  near-duplicates"
    for name, row in result["nearest"].items():
        numbers = ["  ".join(f"{v:.3f}" for v in row[key]) for key in ("distance", "ratio")]
        counts = f"{row['ssim']:.3f} {row['memorised']:7} {row['near_duplicates']:16}"
        lines.append(f"{name:28} {numbers[0]}   {numbers[1]}  {counts}")
    return lines


def _inception_lines(found: Mapping) -> list[str]:
    if found["pairs"] is None:
        return [f"Inception distances: not available ({found['reason']})"]
    lines = [f"features: {found['features']}", f"{'pair':24}     KID ± std       images  Fréchet"]
    for name, row in found["pairs"].items():
        kid = f"{row['kid']:7.4f} ± {row['kid_std']:.4f}"
        lines.append(f"{name:24} {kid} {row['images']:8} {row['frechet']:8.3f}")
    return lines


def _usefulness_lines(found: Mapping) -> list[str]:
    steps = f"{found['steps']} steps on {found['images']} images"
    lines = ["", f"imputers, {steps}; hole RMSE, PSNR/dB on val frames"]
    for name, row in found["scores"].items():
        for scored, scores in row.items():
            interval = "[{:.2f}, {:.2f}]".format(*scores["psnr_95"])
            numbers = f"{scores['rmse']:.4f} {scores['psnr']:6.2f} {interval}"
            lines.append(f"{name:24} {scored:12} {numbers}")
    for name, row in found["lost_db"].items():
        for scored, values in row.items():
            loss = "{:.2f} dB [{:.2f}, {:.2f}]".format(*values)
            lines.append(f"lost with {name:16} {scored:10} {loss}")
    return lines


def stage_rows(
    tests: Mapping[str, torch.Tensor], reconstructed: Mapping[str, torch.Tensor]
) -> Figure:
    """Originals, reconstructions and errors: as many of each set, evenly spaced in it."""
    size = next(iter(tests.values())).shape[2:]
    names = [name for name, x in tests.items() if x.shape[2:] == size]
    share = max(1, COLUMNS // len(names))
    index = {n: torch.linspace(0, len(tests[n]) - 1, share).long().unique() for n in names}
    x = torch.cat([tests[name][index[name]] for name in names])[:COLUMNS]
    x_hat = torch.cat([reconstructed[name][index[name]] for name in names])[:COLUMNS]
    rows = {"original": x, "reconstruction": x_hat, "error": x_hat - x}
    return show_rows(
        rows, f"First stage on unseen images: {', '.join(names)}", error_rows=["error"]
    )


def random_rows(sets: Mapping[str, Heads]) -> Figure:
    """Training images, their reconstructions, and samples, at random."""
    rng = np.random.default_rng(0)
    columns = min(COLUMNS, len(np.unique(sets["train"].ids)) // 2, len(sets["samples"]) // 2)
    real, drawn = (sets[name].distinct(2 * columns, rng) for name in ("train", "samples"))
    rows = {}
    for k, line in enumerate((slice(0, columns), slice(columns, 2 * columns))):
        more = "more " * k
        rows[f"{more}real"] = sets["train"].x[real[line]]
        rows[f"{more}samples"] = sets["samples"].x[drawn[line]]
    return show_rows(rows, "Training images and samples, drawn at random", columns)


def nearest_rows(sets: Mapping[str, Heads]) -> Figure:
    """The samples that are nearest to a training image, above that image."""
    samples, real = sets["samples"], sets["train"]
    found = neighbours(samples, real)
    order = found.distance.argsort()[:COLUMNS]
    rows = {"sample": samples.x[order], "nearest real": real.x[found.index[order]]}
    low, high = found.distance[order[[0, -1]]]
    return show_rows(
        rows, f"Samples nearest to a training image: 1 - correlation {low:.3f} to {high:.3f}"
    )


def curves(sets: Mapping[str, Heads], result: Mapping, width: int) -> Figure:
    """Intensities, power spectra, nearest distances and, if measured, usefulness; width: pixels."""
    panels = [_intensities, _spectra, _distances]
    panels += [_usefulness] if "usefulness" in result else []
    figure, axes = plt.subplots(
        1, len(panels), figsize=(width / DPI, 3.8), dpi=DPI, layout="constrained"
    )
    for axis, panel in zip(axes, panels, strict=True):
        panel(axis, sets, result)
        axis.grid(True, alpha=0.3)
        axis.legend(fontsize=9)
    return figure


def _intensities(axis: Axes, sets: Mapping[str, Heads], result: Mapping) -> None:
    for name, part in sets.items():
        values, edges = np.histogram(part.x, bins=64, range=(0, 1), density=True)
        axis.stairs(values, edges, label=name, color=COLOURS[name])
    axis.set(title="Intensities", xlabel="grey value", ylabel="density", yscale="log")


def _spectra(axis: Axes, sets: Mapping[str, Heads], result: Mapping) -> None:
    for name in sets:
        power = result["sets"][name]["power_spectrum"]
        axis.plot(np.arange(len(power)) + 1, power, label=name, color=COLOURS[name])
    axis.set(title="Power spectra", xlabel="cycles per image", ylabel="power")
    axis.set(xscale="log", yscale="log")


def _distances(axis: Axes, sets: Mapping[str, Heads], result: Mapping) -> None:
    furthest = 0.0
    for name in ("val", "samples"):
        distance = neighbours(sets[name], sets["train"]).distance
        furthest = max(furthest, distance.max())
        values, edges = np.histogram(distance.clip(0, 1), np.linspace(0, 1, 51), density=True)
        axis.stairs(values, edges, label=f"{name} to train", color=COLOURS[name])
    axis.set(title="Nearest training image", xlabel="1 - correlation", ylabel="density")
    axis.set_xlim(0, min(1, furthest + 0.04))


def _usefulness(axis: Axes, sets: Mapping[str, Heads], result: Mapping) -> None:
    rows = result["usefulness"]["scores"]
    scored = list(next(iter(rows.values())))
    for k, name in enumerate(scored):
        psnr = [row[name]["psnr"] for row in rows.values()]
        spread = np.abs(np.array([row[name]["psnr_95"] for row in rows.values()]).T - psnr)
        at = np.arange(len(rows)) + 0.2 * (k - (len(scored) - 1) / 2)
        axis.errorbar(psnr, at, xerr=spread, fmt="o", label=name)
    axis.set(title="Imputers by training set", xlabel="hole PSNR / dB", yticks=range(len(rows)))
    axis.set_yticklabels(list(rows))
    axis.set_ylim(1.3 * len(rows), -0.5)  # room for the legend


def header(result: Mapping, width: int) -> Figure:
    """Title and the main numbers; width: pixels."""
    stages = [
        f"{name}: PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}"
        for name, row in result["first_stage"].items()
    ]
    lines = ["First stage on " + "; ".join(stages)]
    if "pairs" in result:
        aucs = [f"{name} {row['auc']:.2f}" for name, row in result["pairs"].items()]
        lines.append("Classifier AUC of " + "; ".join(aucs))
        lines.append(f"Random convolutions: {_distance_text(result['pairs'])}")
        lines.append(f"Inception: {_distance_text(result['inception']['pairs'])}")
        near = result["nearest"]["samples to train"]
        ratio = result["sets"]["samples"]["gradient_energy_ratio"]
        copies = f"{near['memorised']} samples copied, {near['near_duplicates']} near-duplicates"
        lines.append(f"Gradient energy of samples {ratio:.2f} of that of training images; {copies}")
    height = (44 + 20 * len(lines)) / DPI
    figure = plt.figure(figsize=(width / DPI, height), dpi=DPI)
    top = 1 - 10 / (DPI * height)
    figure.text(0.5, top, "Evaluation of the generative prior", fontsize=15, ha="center", va="top")
    text = "\n".join(lines)
    figure.text(0.5, top - 28 / (DPI * height), text, fontsize=10, ha="center", va="top")
    return figure


def _distance_text(pairs: Mapping | None) -> str:
    """KID and Fréchet distance of the samples, and what real heads have."""
    if pairs is None:
        return "KID and Fréchet distance not available"
    rows = {name: pairs[name] for name in ("samples vs train", "val vs train")}
    values = (f"{k} {row['kid']:.4f} and {row['frechet']:.3f}" for k, row in rows.items())
    return "KID and Fréchet distance of " + "; ".join(values)


def save_page(
    path: str | Path,
    result: Mapping,
    tests: Mapping[str, torch.Tensor],
    reconstructed: Mapping[str, torch.Tensor],
    sets: Mapping[str, Heads],
) -> None:
    """All figures below each other in one PNG; images at whole multiples of their size."""
    figures = [stage_rows(tests, reconstructed)]
    figures += [random_rows(sets), nearest_rows(sets)] if sets else []
    parts = [_pixels(figure) for figure in figures]
    width = max(1200, *(part.width for part in parts))
    parts.insert(0, _pixels(header(result, width)))
    if sets:
        parts.append(_pixels(curves(sets, result, width)))
    page = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    with atomic(path) as temporary:
        page.save(temporary)


def _pixels(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")
