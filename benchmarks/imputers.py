"""Imputers on real heads: ours beside classical and published ones, on the same images and mask.

    python -m benchmarks.imputers runs/frames/heads.npz runs/frames/heads_t1.npz \\
        --published runs/published --draws 4

Scores the stand-in test set, and the `val` split of each frame file of `nogaps prior prepare`
under the course's mask; 95 % intervals by bootstrap over subjects or near-duplicates. Nothing here
trains anything: `nogaps run --profile full` trains ours, `benchmarks.published` the others. Without
--published or --draws the rows of these stay as the JSON has them, if it scored the same heads.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from benchmarks import run
from benchmarks.published import load_published
from benchmarks.scores import fid, lpips_vgg
from nogaps import standin
from nogaps.Assessment import corrupt, fill
from nogaps.evaluation.scoring import as_table
from nogaps.figures import show_rows
from nogaps.imputers.loading import load_imputer, weights_fingerprint
from nogaps.imputers.posterior import Posterior
from nogaps.interpolation import biharmonic, keep_observed, kriging, linear
from nogaps.metrics import bootstrap, hole_scores, summarize
from nogaps.prior.frames.heads import load_frames, to_size
from nogaps.prior.loading import load_prior
from nogaps.runtime.checkpoint import fingerprint
from nogaps.runtime.files import atomic, load_json, save_json
from nogaps.submission.holes import border_steps

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "imputers.json"
FIGURE = ROOT / "docs" / "filled.png"
ERRORS = ROOT / "docs" / "errors.png"
Impute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def heads(frames: list[Path]) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """Images (N,1,64,64) and groups of each set that is scored."""
    sets = {}
    for path in frames:
        x, groups = load_frames(path, "val")
        sets[f"val of {path.name}"] = to_size(x), groups
    clean = torch.from_numpy(standin.clean_images())
    return sets | {"stand-in": (clean, standin.subjects().tolist())}


def zero(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Leave the holes black."""
    return torch.where(mask, y, torch.zeros(()))


def batched(imputer: nn.Module) -> Impute:
    """The notebook's way of filling with a network."""
    return lambda y, mask: fill(imputer, y, mask)


def kept(imputer: nn.Module) -> Impute:
    """A network that changes observed pixels, with these put back."""
    return lambda y, mask: keep_observed(fill(imputer, y, mask), y, mask)


def gather(
    frames: list[Path], model: Path | None, published: Path | None, draws: int
) -> tuple[dict[str, Impute], dict[str, int]]:
    """Every imputer that is measured, and how many weights the networks have."""
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
    imputers |= {name: kept(network) for name, network in networks.items()}
    if draws:
        imputers["posterior"] = Posterior(batched(best), load_prior(), num_draws=draws)
    networks |= {"ours, fast": best.networks[0], "ours, best": best}
    imputers |= {name: batched(networks[name]) for name in ("ours, fast", "ours, best")}
    weights = {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    return imputers, weights


def measure(
    imputers: dict[str, Impute], sets: dict[str, tuple[torch.Tensor, list[str]]]
) -> dict[str, dict[str, dict]]:
    """Scores of every imputer on every set of heads.

    "more_db" is what `ours, best` has more; "border_steps" how large the steps at the borders of
    the holes are beside those between observed pixels (about 1: no seams), "true_steps" those of
    the truth.
    """
    mask = torch.from_numpy(standin.course_mask())[None, None]
    tables: dict[str, dict[str, dict]] = {}
    for name, (x, groups) in sets.items():
        y = corrupt(x, mask)
        tables[name] = {}
        for key, impute in imputers.items():
            impute(y[:1], mask)  # the weights of a mask are found once: no part of the time
            start = time.perf_counter()
            x_hat = impute(y, mask)
            seconds = (time.perf_counter() - start) / len(x)
            row = summarize(x_hat, x, mask, groups) | {"seconds_per_image": seconds}
            row |= {"lpips": lpips_vgg(x_hat, x), "fid": fid(list(x_hat), list(x))}
            steps = [border_steps(each.numpy(), mask[0, 0].numpy()).mean() for each in (x_hat, x)]
            row |= {"border_steps": float(steps[0]), "true_steps": float(steps[1])}
            psnr = hole_scores(x_hat, x, mask)["psnr"].astype(float)
            tables[name][key] = row | {"psnr_of_images": psnr.round(4).tolist()}
        for row in tables[name].values():
            row["more_db"] = more_db(tables[name]["ours, best"], row, groups)
    return tables


def more_db(ours: dict, row: dict, groups: list[str]) -> list[float]:
    """What ours has more than another row of the same heads, in dB, and its 95 % interval."""
    more = np.subtract(ours["psnr_of_images"], row["psnr_of_images"])
    return list(bootstrap(more, groups))


def keep_earlier(found: dict, earlier: dict, groups: dict[str, list[str]]) -> None:
    """Add the rows that were not measured now, from an earlier result on the same heads."""
    for name, rows in found["tables"].items():
        if earlier.get("heads", {}).get(name) != found["heads"][name]:
            continue
        for key, row in earlier["tables"][name].items():
            if key not in rows:
                rows[key] = dict(row)
                if "psnr_of_images" in row:
                    rows[key]["more_db"] = more_db(rows["ours, best"], row, groups[name])
                elif earlier.get("imputer") != found["imputer"]:
                    rows[key].pop("more_db", None)  # was of other weights of ours
        for key in ("ours, fast", "ours, best"):
            rows[key] = rows.pop(key)  # last
    names = set().union(*found["tables"].values())
    for part in ("weights", "training"):
        kept = {name: of for name, of in earlier.get(part, {}).items() if name in names}
        found[part] = kept | found[part]


def draw(model: Path | None, out: Path) -> None:
    """The README's picture: ten images of the stand-in, corrupted, filled and true."""
    y = torch.from_numpy(standin.corrupted_images()[:10])
    mask = torch.from_numpy(standin.course_mask())[None, None]
    x_hat = fill(load_imputer(model), y, mask)
    rows = {"corrupted": y, "filled": x_hat, "truth": torch.from_numpy(standin.clean_images()[:10])}
    figure = show_rows(rows, "Ten heads that no training has seen")
    with atomic(out) as temporary:
        figure.savefig(temporary)


def draw_errors(imputers: dict[str, Impute], out: Path) -> None:
    """Crops of three heads of the stand-in under several imputers, and their errors."""
    x = torch.from_numpy(standin.clean_images()[[5, 45, 85]])
    y = torch.from_numpy(standin.corrupted_images()[[5, 45, 85]])
    mask = torch.from_numpy(standin.course_mask())[None, None]
    names = {"kriging (synthetic)": "kriging", "coursework": "coursework", "ours, best": "ours"}
    rows, errors = {"truth": x[..., 12:44, 12:44]}, []
    for key, name in names.items():
        if key in imputers:
            x_hat = imputers[key](y, mask)
            errors.append(f"{name}: error")
            rows |= {
                name: x_hat[..., 12:44, 12:44],
                errors[-1]: (x_hat - x)[..., 12:44, 12:44],
            }
    figure = show_rows(rows, "Crops of 32×32 pixels", 3, tuple(errors), zoom=6)
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
    sets = heads(frames or [])
    tables = measure(imputers, sets)
    training = load_json(published / "published.json") if published else {}
    training = {
        name: {k: v for k, v in row.items() if k != "log"} for name, row in training.items()
    }
    machine = {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}
    found = {"machine": machine, "weights": weights, "training": training, "tables": tables}
    found["heads"] = {name: fingerprint(x) for name, (x, _) in sets.items()}
    found["imputer"] = weights_fingerprint(load_imputer(model))
    if out.exists():
        keep_earlier(found, load_json(out), {name: groups for name, (_, groups) in sets.items()})
    report(tables)
    save_json(out, found)
    draw(model, figure)
    if "coursework" in imputers or not errors.exists():
        draw_errors(imputers, errors)
    print(json.dumps(machine))


def report(tables: dict[str, dict[str, dict]]) -> None:
    """Print the tables, the steps at borders, and what ours gains."""
    for name, rows in tables.items():
        print(f"\n{name}\n{as_table(rows)}")
        best = rows["ours, best"]
        steps = f"{best['border_steps']:.3f} (truth {best['true_steps']:.3f})"
        print(f"steps at the borders of holes over those between observed pixels: {steps}")
        for key in ("kriging (real)", "kriging (synthetic)", "coursework"):
            if "more_db" in rows.get(key, {}):
                mean, low, high = rows[key]["more_db"]
                print(f"ours, best - {key}: {mean:+.2f} dB [{low:+.2f}, {high:+.2f}]")


if __name__ == "__main__":
    run(main)
