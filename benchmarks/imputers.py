"""Imputers on real heads: ours beside classical and published ones, on the same images and mask.

    python -m benchmarks.imputers runs/frames/heads.npz runs/frames/heads_t1.npz \\
        --published runs/published --draws 4

Scores the stand-in test set, and the `val` split of each frame file of `nogaps prior prepare`
under the course's mask; 95 % intervals by bootstrap over subjects or near-duplicates. Nothing here
trains anything: `nogaps run --profile full` trains ours, `benchmarks.published` the others. Without
--published or --draws the rows of these stay as the JSON has them, on heads that have not changed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy import ndimage
from torch import nn

from benchmarks import harness
from benchmarks.harness import Impute, course_mask, heads
from benchmarks.published import load_published
from nogaps import standin
from nogaps.Assessment import corrupt, fill
from nogaps.figures import show_rows
from nogaps.imputers.loading import load_imputer, weights_fingerprint
from nogaps.imputers.posterior import Posterior
from nogaps.interpolation import biharmonic, keep_observed, kriging, linear
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.prior.frames import load_frames, to_size
from nogaps.prior.loading import load_prior
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.files import atomic, load_json, save_json
from nogaps.tables import scores_table

RESULTS = harness.RESULTS / "imputers.json"
FIGURE = harness.ROOT / "docs" / "filled.png"
OURS = ("ours, fast", "ours, best")


def zero(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Leave the holes black."""
    return torch.where(mask, y, 0)


def batched(network: nn.Module) -> Impute:
    """Fill with a network in the notebook's way, batch by batch."""
    return lambda y, mask: fill(network, y, mask)


def keep_mask(network: nn.Module) -> Impute:
    """Fill with a network that changes observed pixels, and put these back."""
    return lambda y, mask: keep_observed(fill(network, y, mask), y, mask)


def gather(
    frames: list[Path], model: Path | None, published: Path | None, draws: int
) -> dict[str, Impute]:
    """Return every imputer that is measured, by name."""
    best = load_imputer(model)
    imputers: dict[str, Impute] = {
        "zero": zero,
        "linear": linear(),
        "biharmonic": biharmonic,
        "kriging (synthetic)": best.kriging,
    }
    if frames:
        x = torch.cat([to_size(load_frames(path, "train")[0]) for path in frames])
        imputers["kriging (real)"] = kriging(x)
    if published is not None:
        networks = load_published(published)
        imputers |= {name: keep_mask(network) for name, network in networks.items()}
    if draws:
        imputers["posterior"] = Posterior(batched(best), load_prior(), num_draws=draws)
    ours = dict(zip(OURS, (best.networks[0], best), strict=True))
    return imputers | {name: batched(network) for name, network in ours.items()}


def border_steps(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean step at the borders of holes over that between observed pixels nearby.

    Args:
        x: (N,1,H,W) in [0,1].
        mask: (H,W) bool, True = observed.

    Returns:
        (N,), about 1 for the truth, below 1 for smooth fillings.
    """
    near = ndimage.maximum_filter(~mask, 7, mode="constant")
    steps, usual = np.zeros((2, len(x)))
    for axis, first in ((0, np.s_[:-1]), (1, np.s_[:, :-1])):
        step, border = np.abs(np.diff(x[:, 0], axis=axis + 1)), np.diff(mask, axis=axis)
        inner = (mask & near)[first] & ~border
        steps += step[:, border].sum(1)
        usual += border.sum() * np.maximum(step[:, inner].mean(1), 0.01)  # of the full range
    return steps / usual


def measure(
    imputers: dict[str, Impute], sets: dict[str, tuple[torch.Tensor, list[str]]]
) -> dict[str, dict[str, dict]]:
    """Return scores of every imputer on every set of heads.

    "border_steps" is how large the steps at the borders of the holes are beside those between
    observed pixels (about 1: no seams), "true_steps" those of the truth.
    """
    mask, tables = course_mask(), {}

    def steps(images: torch.Tensor) -> float:
        return float(border_steps(images.numpy(), mask[0, 0].numpy()).mean())

    for name, (x, groups) in sets.items():
        y, tables[name] = corrupt(x, mask), {}
        for key, impute in imputers.items():
            impute(y[:1], mask)  # the weights of a mask are made once: not a part of the time
            start = time.perf_counter()
            x_hat = impute(y, mask)
            seconds = (time.perf_counter() - start) / len(x)
            row = summarize(x_hat, x, mask, groups) | {"seconds_per_image": seconds}
            row |= {"border_steps": steps(x_hat), "true_steps": steps(x)}
            psnr = hole_scores(x_hat, x, mask)["psnr"].astype(float)
            tables[name][key] = row | {"psnr_of_images": psnr.round(4).tolist()}
    return tables


def with_earlier(results: dict, earlier: dict) -> dict:
    """Return results, and the rows that they lack of an earlier run on the same heads."""
    before = earlier.get("heads", {})
    same = [name for name, heads in results["heads"].items() if before.get(name) == heads]
    if same:
        results["training"] = earlier["training"] | results["training"]
    for name in same:
        merged = earlier["tables"][name] | results["tables"][name]
        last = {key: merged.pop(key) for key in OURS}
        results["tables"][name] = merged | last
    return results


def compare(rows: dict[str, dict], groups: list[str]) -> None:
    """Add to every row of a set what `ours, best` has more, in dB, with its interval."""
    ours = rows["ours, best"]["psnr_of_images"]
    for row in rows.values():
        row["more_db"] = list(bootstrap(np.subtract(ours, row["psnr_of_images"]), groups))


def draw(impute: Impute, out: Path) -> None:
    """Draw the README's picture: ten images of the stand-in, corrupted, filled and true."""
    y, x = (torch.from_numpy(f()[:10]) for f in (standin.corrupted_images, standin.clean_images))
    rows = {"corrupted": y, "filled": impute(y, course_mask()), "truth": x}
    with atomic(out) as temporary:
        show_rows(rows, "Ten heads that no training has seen").savefig(temporary)


def main(
    frames: harness.AnyFrames = None,
    model: harness.Model = None,
    published: harness.Published = None,
    draws: Annotated[int, typer.Option(help="Draws of the posterior; 0: no such row.")] = 0,
    out: harness.Out = RESULTS,
    figure: harness.Figure = FIGURE,
) -> None:
    """Print one table per set of heads, write them as JSON, and draw ten images."""
    imputers, sets = gather(frames or [], model, published, draws), heads(frames or [])
    logs = load_json(published / "published.json") if published else {}
    training = {
        name: {key: value for key, value in row.items() if key != "log"}
        for name, row in logs.items()
    }
    results = {"machine": harness.machine(), "training": training}
    results |= {
        "tables": measure(imputers, sets),
        "imputer": weights_fingerprint(load_imputer(model)),
    }
    results["heads"] = {name: fingerprint(x) for name, (x, _) in sets.items()}
    if out.exists():
        results = with_earlier(results, load_json(out))
    for name, rows in results["tables"].items():
        compare(rows, sets[name][1])
        print(f"\n{name}\n{scores_table(rows)}")
    save_json(out, results)
    draw(imputers["ours, best"], figure)


if __name__ == "__main__":
    harness.run(main)
