"""How well the score without labels ranks imputers: beside their true error on real heads.

    python -m benchmarks.label_free RUN RUN --published DIR --frames runs/frames/heads_t1.npz
    python -m benchmarks.label_free RUN --test-set test_set.npy

RUN: run folders or .safetensors, eight at least for a rank correlation that says something; every
network of an ensemble, and its mean, counts as an imputer. The `val` split of each frame file is
corrupted and taken for a test set without labels. --test-set: a real one, whose truth nobody has:
the score without labels of each imputer. Tables of other images stay as the JSON has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import harness
from benchmarks.harness import Impute, course_mask, heads
from benchmarks.imputers import keep_mask
from benchmarks.published import load_published
from nogaps.evaluation.scoring import hidden_score, rank_agreement
from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, linear
from nogaps.masks import shared_mask
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_json, save_json
from nogaps.tables import with_interval

RESULTS = harness.RESULTS / "label_free.json"


def imputers(models: list[Path]) -> dict[str, Impute]:
    """Return every network and every ensemble of the runs, beside three that need no network."""
    methods: dict[str, Impute] = {"linear": linear(), "biharmonic": biharmonic}
    methods["kriging"] = load_imputer().kriging
    for path in models:
        ensemble = load_imputer(path)
        methods |= {f"{path}#{k}": network for k, network in enumerate(ensemble.networks)}
        if len(ensemble.networks) > 1:
            methods[str(path)] = ensemble
    return methods


def score_without_labels(methods: dict[str, Impute], test_set: Path) -> dict[str, dict]:
    """Return `hidden_score` of every imputer on a real test set, over its images."""
    y = torch.from_numpy(load_images(test_set))
    mask = torch.from_numpy(shared_mask(y.numpy(), str(test_set)))[None, None]
    rows, kriging = {}, methods["kriging"]  # one: it keeps its weights for every fold's mask
    for name, imputer in methods.items():
        rows[name] = hidden_score(imputer, y, mask, kriging=kriging)
        own, gain = (
            with_interval(rows[name][part]["psnr"], rows[name][part]["psnr_95"], sign=sign)
            for part, sign in (("imputer", ""), ("gain", "+"))
        )
        print(f"{name[-50:]:50} {own} dB, {gain} over kriging")
    return rows


def main(
    models: Annotated[list[Path], typer.Argument(help="Run folders or .safetensors.")],
    frames: Annotated[
        list[Path] | None, typer.Option(help="Frame file; repeat it for several.")
    ] = None,
    published: harness.Published = None,
    test_set: Annotated[
        Path | None, typer.Option(help="Corrupted images without truth (.npy).")
    ] = None,
    out: harness.Out = RESULTS,
) -> None:
    """Print and write both scores of every imputer, and how well one ranks the other."""
    if not frames and test_set is None:
        raise BadInput("no heads to score on", "--frames or --test-set")
    methods, tables = imputers(models), load_json(out) if out.exists() else {}
    if published is not None:
        networks = load_published(published)
        methods |= {name: keep_mask(network) for name, network in networks.items()}
    sets = heads(frames or [])
    del sets["stand-in"]  # nothing is chosen on it
    for name, (x, _) in sets.items():
        tables[name] = rank_agreement(methods, x, course_mask())
        print(f"{name}: rank correlation {tables[name]['spearman']:.3f}")
    if test_set is not None:
        tables[test_set.name] = score_without_labels(methods, test_set)
    save_json(out, tables)


if __name__ == "__main__":
    harness.run(main)
