"""The tables and the page of figures of `nogaps prior evaluate`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from nogaps.evaluation.realism import Heads, neighbours
from nogaps.figures import DPI, show_rows
from nogaps.runtime.files import atomic
from nogaps.tables import as_markdown

COLUMNS, WIDTH = 10, 1400  # images of a row; screen pixels of curves and text
COLOURS = {"train": "black", "val": "tab:gray", "reconstructions": "tab:blue", "samples": "tab:red"}
# The columns of each table: a header, and the format of its cells.
STAGES = {
    "images": "{r[images]}",
    "PSNR / dB": "{r[psnr]:.2f}",
    "SSIM": "{r[ssim]:.4f}",
    "gradient energy": "{r[gradient_energy]:.3f}",
}
SETS = {
    "images": "{r[images]}",
    "gradient energy": "{r[gradient_energy]:.3f}",
    "ratio": "{r[gradient_energy_ratio]:.3f}",
    "mean": "{r[mean]:.3f}",
    "std": "{r[std]:.3f}",
    **{f"quantile {q}": f"{{r[quantiles][{q}]:.3f}}" for q in (0.5, 0.9, 0.99, 0.999)},
}
DISTANCES = {
    "KID ± std": "{r[kid]:.4f} ± {r[kid_std]:.4f}",
    "images": "{r[images]}",
    "Fréchet": "{r[frechet]:.3f}",
    "precision": "{r[precision][0]:.2f} [{r[precision][1]:.2f}, {r[precision][2]:.2f}]",
    "recall": "{r[recall][0]:.2f} [{r[recall][1]:.2f}, {r[recall][2]:.2f}]",
}
PAIRS = {"AUC": "{r[auc]:.3f}", **DISTANCES}
NEAREST = {
    "1 - correlation": "{r[distance][0]:.3f} {r[distance][1]:.3f} {r[distance][2]:.3f}",
    "ratio to second": "{r[ratio][0]:.3f} {r[ratio][1]:.3f} {r[ratio][2]:.3f}",
    "SSIM": "{r[ssim]:.3f}",
    "copies": "{r[memorised]}",
    "near-duplicates": "{r[near_duplicates]}",
}
SCORES = {
    "hole RMSE": "{r[rmse]:.4f}",
    "PSNR / dB": "{r[psnr]:.2f} [{r[psnr_95][0]:.2f}, {r[psnr_95][1]:.2f}]",
}
LOST = {"lost PSNR / dB": "{r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]"}


def as_text(result: Mapping) -> str:
    """Return the result of `evaluate` as aligned tables."""
    parts = [_table("first stage", result["first_stage"], STAGES)]
    if "sets" in result:
        space = result["inception"]
        parts += [_table("set", result["sets"], SETS), f"features: {result['features']}"]
        parts += [_table("pair", result["pairs"], PAIRS)]
        if space["pairs"] is None:
            parts += [f"Inception distances: not available ({space['reason']})"]
        else:
            parts += [f"features: {space['features']}", _table("pair", space["pairs"], DISTANCES)]
        parts += [_table("nearest: 5 %, median, least", result["nearest"], NEAREST)]
    if "usefulness" in result:
        useful = result["usefulness"]
        parts += ["imputers, {steps} steps on {images} images".format(**useful)]
        for rows, columns in ((useful["scores"], SCORES), (useful["lost_db"], LOST)):
            flat = {f"{k}, {name}": row[name] for k, row in rows.items() for name in row}
            parts += [_table("trained on, scored on", flat, columns)]
    return "\n\n".join(parts)


def _table(title: str, rows: Mapping[str, object], columns: Mapping[str, str]) -> str:
    cells = [[name, *(c.format(r=row) for c in columns.values())] for name, row in rows.items()]
    return as_markdown([title, *columns], cells)


def save_page(
    path: str | Path,
    result: Mapping,
    tests: Mapping[str, torch.Tensor],
    reconstructed: Mapping[str, torch.Tensor],
    sets: Mapping[str, Heads],
) -> None:
    """Draw figures and tables below each other in one PNG; images at whole multiples of their size.

    Args:
        path: The PNG to write.
        result: What `evaluate` or `evaluate_first_stage` measured.
        tests: Images (N,1,H,W) by name.
        reconstructed: Their reconstructions.
        sets: As `compare_sets` takes them; empty for a first stage alone.
    """
    figures = [_stage_rows(tests, reconstructed)]
    if sets:
        figures += [_random_rows(sets), _nearest_rows(sets), _curves(sets, result)]
    parts = [_pixels(figure) for figure in (*figures, _text(as_text(result)))]
    height = sum(part.height for part in parts)
    page = Image.new("RGB", (max(part.width for part in parts), height), "white")
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


def _text(text: str) -> Figure:
    """Lines of text on a page of their own."""
    width, height = WIDTH / DPI, 0.17 * (text.count("\n") + 3)
    figure = plt.figure(figsize=(width, height), dpi=DPI)
    at = (0.3 / width, 1 - 0.17 / height)
    figure.text(*at, text, fontsize=8, family="monospace", va="top", linespacing=1.4)
    return figure


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


def _curves(sets: Mapping[str, Heads], result: Mapping) -> Figure:
    """Intensities, power spectra and nearest distances."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH / DPI, 3.8), dpi=DPI, layout="constrained")
    for name, part in sets.items():
        values, edges = np.histogram(part.x, bins=64, range=(0, 1), density=True)
        axes[0].stairs(values, edges, label=name, color=COLOURS[name])
        power = result["sets"][name]["power_spectrum"]
        axes[1].plot(np.arange(len(power)) + 1, power, label=name, color=COLOURS[name])
    for name in ("val", "samples"):
        distance = neighbours(sets[name], sets["train"]).distance
        values, edges = np.histogram(distance.clip(0, 1), np.linspace(0, 1, 51), density=True)
        axes[2].stairs(values, edges, label=f"{name} to train", color=COLOURS[name])
    axes[0].set(title="Intensities", xlabel="grey value", ylabel="density", yscale="log")
    axes[1].set(title="Power spectra", xlabel="cycles per image", ylabel="power")
    axes[1].set(xscale="log", yscale="log")
    axes[2].set(title="Nearest training image", xlabel="1 - correlation", ylabel="density")
    for axis in axes:
        axis.grid(True, alpha=0.3)
        axis.legend(fontsize=9)
    return figure
