"""The tables and the page of figures of `nogaps prior evaluate`."""

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
from nogaps.tables import as_markdown

COLUMNS = 10
COLOURS = {"train": "black", "val": "tab:gray", "reconstructions": "tab:blue", "samples": "tab:red"}
# The columns of each table: a header, and the format of its cells.
STAGES = {
    "images": "{images}",
    "PSNR / dB": "{psnr:.2f}",
    "SSIM": "{ssim:.4f}",
    "gradient energy": "{gradient_energy:.3f}",
}
SETS = {
    "images": "{images}",
    "gradient energy": "{gradient_energy:.3f}",
    "ratio": "{gradient_energy_ratio:.3f}",
    "mean": "{mean:.3f}",
    "std": "{std:.3f}",
    **{f"quantile {share}": f"{{quantiles[{share}]:.3f}}" for share in (0.5, 0.9, 0.99, 0.999)},
}
DISTANCES = {
    "KID ± std": "{kid:.4f} ± {kid_std:.4f}",
    "images": "{images}",
    "Fréchet": "{frechet:.3f}",
}
PAIRS = {
    "AUC": "{auc:.3f}",
    **DISTANCES,
    "precision": "{precision[0]:.2f} [{precision[1]:.2f}, {precision[2]:.2f}]",
    "recall": "{recall[0]:.2f} [{recall[1]:.2f}, {recall[2]:.2f}]",
}
NEAREST = {
    "1 - correlation": "{distance[0]:.3f} {distance[1]:.3f} {distance[2]:.3f}",
    "ratio to second": "{ratio[0]:.3f} {ratio[1]:.3f} {ratio[2]:.3f}",
    "SSIM": "{ssim:.3f}",
    "copies": "{memorised}",
    "near-duplicates": "{near_duplicates}",
}
SCORES = {
    "hole RMSE": "{rmse:.4f}",
    "PSNR / dB": "{psnr:.2f} [{psnr_95[0]:.2f}, {psnr_95[1]:.2f}]",
}
LOST = {"lost PSNR / dB": "{lost[0]:.2f} [{lost[1]:.2f}, {lost[2]:.2f}]"}


def as_text(result: Mapping) -> str:
    """Return the result of `evaluate` as aligned tables."""
    parts = [_table("first stage", result["first_stage"], STAGES)]
    if "sets" in result:
        parts += [_table("set", result["sets"], SETS), f"features: {result['features']}"]
        parts += [_table("pair", result["pairs"], PAIRS), _inception_text(result["inception"])]
        parts += [_table("nearest: 5 %, median, least", result["nearest"], NEAREST)]
    if "usefulness" in result:
        useful = result["usefulness"]
        parts += ["imputers, {steps} steps on {images} images".format(**useful)]
        rows = {f"{k}, {v}": row for k, part in useful["scores"].items() for v, row in part.items()}
        lost = {
            f"{name}, {scored}": {"lost": values}
            for name, part in useful["lost_db"].items()
            for scored, values in part.items()
        }
        parts += [_table("trained on, scored on", rows, SCORES)]
        parts += [_table("trained on, scored on", lost, LOST)]
    return "\n\n".join(parts)


def _table(title: str, rows: Mapping[str, Mapping], columns: Mapping[str, str]) -> str:
    cells = [[name, *(c.format(**row) for c in columns.values())] for name, row in rows.items()]
    return as_markdown([title, *columns], cells)


def _inception_text(result: Mapping) -> str:
    if result["pairs"] is None:
        return f"Inception distances: not available ({result['reason']})"
    return f"features: {result['features']}\n\n{_table('pair', result['pairs'], DISTANCES)}"


def save_page(
    path: str | Path,
    result: Mapping,
    tests: Mapping[str, torch.Tensor],
    reconstructed: Mapping[str, torch.Tensor],
    sets: Mapping[str, Heads],
) -> None:
    """Draw all figures below each other in one PNG; images at whole multiples of their size.

    Args:
        path: The PNG to write.
        result: What `evaluate` or `evaluate_first_stage` measured.
        tests: Images (N,1,H,W) by name.
        reconstructed: Their reconstructions.
        sets: As `compare_sets` takes them; empty for a first stage alone.
    """
    figures = [_stage_rows(tests, reconstructed)]
    figures += [_random_rows(sets), _nearest_rows(sets)] if sets else []
    parts = [_pixels(figure) for figure in figures]
    width = max(1200, *(part.width for part in parts))
    parts.insert(0, _pixels(_header(result, width)))
    parts += [_pixels(_curves(sets, result, width))] if sets else []
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


def _header(result: Mapping, width: int) -> Figure:
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
    """KID and Fréchet distance of the samples, and those of real heads."""
    if pairs is None:
        return "KID and Fréchet distance not available"
    rows = {name: pairs[name] for name in ("samples vs train", "val vs train")}
    values = (f"{k} {row['kid']:.4f} and {row['frechet']:.3f}" for k, row in rows.items())
    return "KID and Fréchet distance of " + "; ".join(values)


def _stage_rows(
    tests: Mapping[str, torch.Tensor], reconstructed: Mapping[str, torch.Tensor]
) -> Figure:
    """Originals, reconstructions and errors: as many of each set, evenly spaced in it."""
    size = next(iter(tests.values())).shape[2:]
    names = [name for name, x in tests.items() if x.shape[2:] == size]
    share = max(1, COLUMNS // len(names))
    index = {n: torch.linspace(0, len(tests[n]) - 1, share).long().unique() for n in names}
    x, x_hat = (
        torch.cat([images[name][index[name]] for name in names])[:COLUMNS]
        for images in (tests, reconstructed)
    )
    rows = {"original": x, "reconstruction": x_hat, "error": x_hat - x}
    return show_rows(
        rows, f"First stage on unseen images: {', '.join(names)}", error_rows=["error"]
    )


def _random_rows(sets: Mapping[str, Heads]) -> Figure:
    """Two rows each of training images and of samples, at random."""
    rng = np.random.default_rng(0)
    columns = min(COLUMNS, len(np.unique(sets["train"].ids)) // 2, len(sets["samples"]) // 2)
    real, drawn = (
        sets[name].x[sets[name].distinct(2 * columns, rng)] for name in ("train", "samples")
    )
    rows = {"real": real, "samples": drawn}
    rows |= {"more real": real[columns:], "more samples": drawn[columns:]}
    return show_rows(rows, "Training images and samples, drawn at random", columns)


def _nearest_rows(sets: Mapping[str, Heads]) -> Figure:
    """The samples that are nearest to a training image, above that image."""
    samples, real = sets["samples"], sets["train"]
    near = neighbours(samples, real)
    order = near.distance.argsort()[:COLUMNS]
    rows = {"sample": samples.x[order], "nearest real": real.x[near.index[order]]}
    low, high = near.distance[order[[0, -1]]]
    title = f"Samples nearest to a training image: 1 - correlation {low:.3f} to {high:.3f}"
    return show_rows(rows, title)


def _curves(sets: Mapping[str, Heads], result: Mapping, width: int) -> Figure:
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
    distances = {
        name: neighbours(sets[name], sets["train"]).distance for name in ("val", "samples")
    }
    for name, distance in distances.items():
        values, edges = np.histogram(distance.clip(0, 1), np.linspace(0, 1, 51), density=True)
        axis.stairs(values, edges, label=f"{name} to train", color=COLOURS[name])
    axis.set(title="Nearest training image", xlabel="1 - correlation", ylabel="density")
    axis.set_xlim(0, min(1, max(distance.max() for distance in distances.values()) + 0.04))


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
