"""How well the score without labels ranks imputers: beside their true error on real heads.

    python -m benchmarks.hidden RUN RUN RUN --frames runs/frames/heads_t1.npz
    python -m benchmarks.hidden RUN --frames runs/frames/heads_t1.npz --adapt runs/samples

RUN: run folders or .safetensors, eight at least for a rank correlation that says something; every
network of an ensemble, and its mean, counts as an imputer. The `val` split of each frame file is
corrupted and taken for a test set without labels. --adapt: the first RUN is adapted to it first
(`nogaps adapt`, on these synthetic images) and stands in the table as "adapted"; only this trains.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from scipy.stats import spearmanr

from benchmarks import run
from benchmarks.imputers import heads
from nogaps import standin
from nogaps.Assessment import corrupt
from nogaps.files import load_images, save_json
from nogaps.imputers.adaptation import Settings, adapt
from nogaps.imputers.classical import biharmonic, linear
from nogaps.imputers.hidden import hidden_score, rank_agreement
from nogaps.imputers.loading import load_imputer

RESULTS = Path(__file__).parent / "results" / "hidden.json"
CLASSICAL = ("linear", "biharmonic", "kriging")


def imputers(models: list[Path]) -> dict[str, object]:
    """Every network and every ensemble of the runs, by name, beside three that need no network."""
    found: dict[str, object] = {"linear": linear(), "biharmonic": biharmonic}
    found["kriging"] = load_imputer(quality="fast").interpolation
    for path in models:
        ensemble = load_imputer(path)
        found |= {f"{path}#{k}": one for k, one in enumerate(ensemble.networks)}
        if len(ensemble.networks) > 1:
            found[str(path)] = ensemble
    return found


def networks_only(result: dict) -> float:
    """Rank correlation without the classical rows, which are easily told from networks."""
    rows = [row for name, row in result["models"].items() if name not in CLASSICAL]
    if len(rows) < 3:
        return float("nan")
    columns = [[row[key] for row in rows] for key in ("hidden_psnr", "hole_psnr")]
    return float(spearmanr(*columns).statistic)


def as_table(name: str, result: dict) -> str:
    """One line per imputer, the best by its true error first."""
    lines = [f"\n{name}\n{'imputer':50} hidden PSNR / dB   hole PSNR / dB"]
    rows = sorted(result["models"].items(), key=lambda item: -item[1]["hole_psnr"])
    for key, row in rows:
        lines.append(f"{key[-50:]:50} {row['hidden_psnr']:16.3f} {row['hole_psnr']:16.3f}")
    networks = result["spearman_networks"]
    said = "too few networks" if networks is None else f"{networks:.3f} among networks"
    lines.append(f"rank correlation: {result['spearman']:.3f} among all, {said}")
    return "\n".join(lines)


def main(
    models: Annotated[list[Path], typer.Argument(help="Run folders or .safetensors.")],
    frames: Annotated[list[Path], typer.Option(help="Frame file; repeat it for several.")],
    adapt_on: Annotated[
        Path | None,
        typer.Option("--adapt", help="Folder of `sample`: adapt the first RUN."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the adaptation.")] = 500,
    folds: Annotated[int, typer.Option(help="Folds of hidden pixels, an even number.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the folds and the adaptation.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print and write both scores of every imputer, and how well one ranks the other."""
    mask = torch.from_numpy(standin.course_mask())[None, None]
    everyone, tables = imputers(models), {}
    for name, (x, groups) in heads(frames).items():
        if name == "stand-in":  # nothing is chosen on it
            continue
        y, report, compared = corrupt(x, mask), None, dict(everyone)
        if adapt_on is not None:
            clean = torch.from_numpy(load_images(adapt_on / "images.npy"))
            settings = Settings(steps=steps, seed=seed)
            compared["adapted"], report = adapt(load_imputer(models[0]), y, mask, clean, settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # correlation of equal ranks
            result = rank_agreement(compared, x, mask, folds, seed)
            among = networks_only(result)
        result["spearman_networks"] = None if among != among else among
        first = load_imputer(models[0])
        result["beside kriging"] = hidden_score(first, y, mask, folds, seed, groups)
        gain = result["beside kriging"]["gain"]
        print(as_table(name, result))
        print(f"{models[0]} over kriging on hidden pixels: {gain['psnr']:+.2f} dB")
        if report:
            print("adapted:", report["gain_db"], report["disclosure"])
        tables[name] = result | {"adaptation": report}
    save_json(out, tables)


if __name__ == "__main__":
    run(main)
