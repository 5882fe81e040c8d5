"""How well the score without labels ranks imputers: beside their true error on real heads.

    python -m benchmarks.hidden RUN RUN --published DIR --frames runs/frames/heads_t1.npz
    python -m benchmarks.hidden RUN --frames runs/frames/heads_t1.npz --adapt runs/samples
    python -m benchmarks.hidden RUN --test-set test_set.npy

RUN: run folders or .safetensors, eight at least for a rank correlation that says something; every
network of an ensemble, and its mean, counts as an imputer. The `val` split of each frame file is
corrupted and taken for a test set without labels. --adapt: the first RUN is adapted to it first
(`nogaps adapt`, on these synthetic images) and stands in the table as "adapted"; only this trains.
--test-set: a real one, whose truth nobody has: the score without labels of each imputer.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from scipy.stats import spearmanr

from benchmarks import run
from benchmarks.imputers import heads, kept
from benchmarks.published import load_published
from nogaps import standin
from nogaps.Assessment import corrupt
from nogaps.evaluation.label_free import hidden_score, rank_agreement
from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, linear
from nogaps.masks import shared_mask
from nogaps.runtime.files import BadInput, load_images, save_json

RESULTS = Path(__file__).parent / "results" / "hidden.json"
CLASSICAL = ("linear", "biharmonic", "kriging")


def imputers(models: list[Path]) -> dict[str, object]:
    """Every network and every ensemble of the runs, by name, beside three that need no network."""
    found: dict[str, object] = {"linear": linear(), "biharmonic": biharmonic}
    found["kriging"] = load_imputer(quality="fast").kriging
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


def rank(
    everyone: dict[str, object],
    original: Path,
    heads_of: tuple[torch.Tensor, list[str]],
    folds: int,
    seed: int,
) -> dict:
    """Both scores of every imputer on heads (N,1,64,64) and their groups."""
    x, groups = heads_of
    mask = torch.from_numpy(standin.course_mask())[None, None]
    y = corrupt(x, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # correlation of equal ranks
        result = rank_agreement(everyone, x, mask, folds, seed)
        among = networks_only(result)
    result["spearman_networks"] = None if among != among else among
    first = load_imputer(original)
    result["beside kriging"] = hidden_score(first, y, mask, folds, seed, groups)
    return result


def score_without_labels(
    everyone: dict[str, object], test_set: Path, folds: int, seed: int
) -> dict[str, dict]:
    """`hidden_score` of every imputer on a real test set, over its images."""
    y = torch.from_numpy(load_images(test_set))
    mask = torch.from_numpy(shared_mask(y.numpy(), str(test_set)))[None, None]
    rows, kriging = {}, everyone["kriging"]  # one: it keeps its weights for every fold's mask
    for name, imputer in everyone.items():
        rows[name] = hidden_score(imputer, y, mask, folds, seed, kriging=kriging)
        (mean, (low, high)), gain = (
            (rows[name][part]["psnr"], rows[name][part]["psnr_95"]) for part in ("imputer", "gain")
        )
        above = f"{gain[0]:+6.2f} [{gain[1][0]:+.2f}, {gain[1][1]:+.2f}] over kriging"
        print(f"{name[-50:]:50} {mean:6.2f} [{low:.2f}, {high:.2f}] dB {above}")
    return rows


def main(
    models: Annotated[list[Path], typer.Argument(help="Run folders or .safetensors.")],
    frames: Annotated[
        list[Path] | None, typer.Option(help="Frame file; repeat it for several.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="Folder of `benchmarks.published`: its networks too.")
    ] = None,
    test_set: Annotated[
        Path | None, typer.Option(help="Corrupted images without truth (.npy).")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of hidden pixels, an even number.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
) -> None:
    """Print and write both scores of every imputer, and how well one ranks the other."""
    everyone, tables = imputers(models), {}
    if published is not None:
        everyone |= {name: kept(network) for name, network in load_published(published).items()}
    if not frames and test_set is None:
        raise BadInput("benchmarks.hidden: expected --frames or --test-set")
    sets = heads(frames) if frames else {}
    sets.pop("stand-in", None)  # nothing is chosen on it
    for name, found in sets.items():
        tables[name] = rank(everyone, models[0], found, folds, seed)
        gain = tables[name]["beside kriging"]["gain"]
        print(as_table(name, tables[name]))
        print(f"{models[0]} over kriging on hidden pixels: {gain['psnr']:+.2f} dB")
    if test_set is not None:
        tables[test_set.name] = score_without_labels(everyone, test_set, folds, seed)
    save_json(out, tables)


if __name__ == "__main__":
    run(main)
