"""Imputers on real heads: ours beside classical and published ones, on the same images and mask.

    python -m benchmarks.imputers runs/frames/heads.npz runs/frames/heads_t1.npz \\
        --published runs/published --draws 4

Scores the stand-in test set, and the `val` split of each frame file of `nogaps prior prepare`
under the course's mask; 95 % intervals by bootstrap over subjects or near-duplicates. Nothing here
trains anything: `nogaps run --profile full` trains ours, `benchmarks.published` the others. Without
--published or --draws the rows of these stay as the JSON has them, if it scored the same heads.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from benchmarks import harness
from benchmarks.harness import Impute, course_mask, run
from benchmarks.published import load_published
from nogaps import standin
from nogaps.Assessment import corrupt, fill
from nogaps.evaluation.scoring import as_table
from nogaps.figures import show_rows
from nogaps.imputers.loading import load_imputer, weights_fingerprint
from nogaps.imputers.posterior import Posterior
from nogaps.interpolation import biharmonic, keep_observed, kriging, linear
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.prior.frames.files import load_frames, to_size
from nogaps.prior.loading import load_prior
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.files import atomic, load_json, save_json
from nogaps.submission.holes import border_steps

RESULTS = harness.RESULTS / "imputers.json"
FIGURE = harness.ROOT / "docs" / "filled.png"
ERRORS = harness.ROOT / "docs" / "errors.png"
OURS = ("ours, fast", "ours, best")
Sets = dict[str, tuple[torch.Tensor, list[str]]]


def heads(frames: list[Path]) -> Sets:
    """Return images (N,1,64,64) and groups of each set that is scored, by name."""
    sets = {}
    for path in frames:
        x, groups = load_frames(path, "val")
        sets[f"val of {path.name}"] = to_size(x), groups
    clean = torch.from_numpy(standin.clean_images())
    return sets | {"stand-in": (clean, standin.subjects().tolist())}


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
) -> tuple[dict[str, Impute], dict[str, int]]:
    """Return every imputer that is measured, and how many weights the networks have."""
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
    networks = {} if published is None else load_published(published)
    imputers |= {name: keep_mask(network) for name, network in networks.items()}
    if draws:
        imputers["posterior"] = Posterior(batched(best), load_prior(), num_draws=draws)
    ours = dict(zip(OURS, (best.networks[0], best), strict=True))
    imputers |= {name: batched(network) for name, network in ours.items()}
    weights = {k: sum(p.numel() for p in net.parameters()) for k, net in (networks | ours).items()}
    return imputers, weights


def measure(imputers: dict[str, Impute], sets: Sets) -> dict[str, dict[str, dict]]:
    """Return scores of every imputer on every set of heads.

    "more_db" is what `ours, best` has more; "border_steps" how large the steps at the borders of
    the holes are beside those between observed pixels (about 1: no seams), "true_steps" those of
    the truth.
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
        for row in tables[name].values():
            row["more_db"] = more_db(tables[name]["ours, best"], row, groups)
    return tables


def more_db(ours: dict, row: dict, groups: list[str]) -> list[float]:
    """Return what ours has more than another row of the same heads, in dB, with its interval."""
    more = np.subtract(ours["psnr_of_images"], row["psnr_of_images"])
    return list(bootstrap(more, groups))


def keep_earlier(results: dict, earlier: dict, groups: dict[str, list[str]]) -> None:
    """Add the rows that were not measured now, from an earlier result on the same heads."""
    for name, rows in results["tables"].items():
        if earlier.get("heads", {}).get(name) != results["heads"][name]:
            continue
        for key, row in earlier["tables"][name].items():
            if key not in rows:
                more = more_db(rows["ours, best"], row, groups[name])
                rows[key] = row | {"more_db": more}
        for key in OURS:
            rows[key] = rows.pop(key)  # last
    names = set().union(*results["tables"].values())
    for part in ("weights", "training"):
        kept = {name: of for name, of in earlier.get(part, {}).items() if name in names}
        results[part] = kept | results[part]


def standin_images(which: slice | list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some corrupted and clean images of the stand-in."""
    y, x = standin.corrupted_images(), standin.clean_images()
    return torch.from_numpy(y[which]), torch.from_numpy(x[which])


def draw(impute: Impute, out: Path) -> None:
    """Draw the README's picture: ten images of the stand-in, corrupted, filled and true."""
    y, x = standin_images(slice(10))
    rows = {"corrupted": y, "filled": impute(y, course_mask()), "truth": x}
    with atomic(out) as temporary:
        show_rows(rows, "Ten heads that no training has seen").savefig(temporary)


def draw_errors(imputers: dict[str, Impute], out: Path) -> None:
    """Draw crops of three heads of the stand-in under several imputers, and their errors."""
    y, x = standin_images([5, 45, 85])
    names = {"kriging (synthetic)": "kriging", "coursework": "coursework", "ours, best": "ours"}
    rows, errors = {"truth": x}, []
    for key, name in names.items():
        if key in imputers:
            rows[name] = imputers[key](y, course_mask())
            errors.append(f"{name}: error")
            rows[errors[-1]] = rows[name] - x
    crops = {name: images[..., 12:44, 12:44] for name, images in rows.items()}
    figure = show_rows(crops, "Crops of 32×32 pixels", 3, tuple(errors), zoom=6)
    with atomic(out) as temporary:
        figure.savefig(temporary)


def main(
    frames: Annotated[list[Path] | None, typer.Argument(help="Frame files.")] = None,
    model: Annotated[Path | None, typer.Option(help="Run folder; else the shipped one.")] = None,
    published: Annotated[
        Path | None, typer.Option(help="Folder of `benchmarks.published`, for its rows.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of the posterior; 0: no such row.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
    figure: Annotated[Path, typer.Option(help="Picture to write.")] = FIGURE,
    errors: Annotated[Path, typer.Option(help="Picture of errors to write.")] = ERRORS,
) -> None:
    """Print one table per set of heads, write them as JSON, and draw them."""
    imputers, weights = gather(frames or [], model, published, draws)
    sets, training = heads(frames or []), {}
    tables = measure(imputers, sets)
    for name, row in (load_json(published / "published.json") if published else {}).items():
        training[name] = {key: value for key, value in row.items() if key != "log"}
    results = {"machine": harness.machine(), "weights": weights, "training": training}
    results |= {"tables": tables, "imputer": weights_fingerprint(load_imputer(model))}
    results["heads"] = {name: fingerprint(x) for name, (x, _) in sets.items()}
    if out.exists():
        keep_earlier(results, load_json(out), {name: groups for name, (_, groups) in sets.items()})
    for name, rows in tables.items():
        print(f"\n{name}\n{as_table(rows)}")
    save_json(out, results)
    draw(imputers["ours, best"], figure)
    if "coursework" in imputers or not errors.exists():
        draw_errors(imputers, errors)


if __name__ == "__main__":
    run(main)
