"""Random numbers: streams of their own, and no use of the generators that a process shares."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import torch
from conftest import ROOT

from nogaps.prior.training import step_generator
from nogaps.runtime.seeds import numbered_generator


def test_streams_never_meet() -> None:
    """Of numbered items and of steps; no item of a thousand seeds is another's up to a million."""
    items = [numbered_generator(seed, k) for seed in range(40) for k in range(50)]
    steps = [step_generator(s, k, p) for s in range(4) for k in range(20) for p in range(8)]
    for streams in (items, steps):
        draws = {torch.rand((), generator=g, dtype=torch.float64).item() for g in streams}
        assert len(draws) == len(streams)
    starts = sorted(numbered_generator(seed, 0).initial_seed() for seed in range(1000))
    gaps = [b - a for a, b in zip(starts, [*starts[1:], starts[0] + 2**32], strict=True)]
    assert min(gaps) > 1_000_000


DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"}
DRAWS |= {"multinomial", "bernoulli", "normal", "poisson", "normal_", "uniform_", "random_"}
DRAWS |= {"DataLoader", "random_split", "WeightedRandomSampler", "RandomSampler"}
DRAWN_UNDER_A_FORK = {"nogaps/prior/vqvae.py": 1}  # a codebook begins as layers do


def unseeded(path: Path) -> Iterator[str]:
    """Calls in a module that draw from a shared generator, or seed it outside of `fork_rng`."""
    tree = ast.parse(path.read_text())
    forks = [n for n in ast.walk(tree) if isinstance(n, ast.With) and "fork_rng" in ast.unparse(n)]
    forked = {id(inner) for fork in forks for inner in ast.walk(fork)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
            if "random" in names:
                yield f"{node.lineno}: import random"
        if not isinstance(node, ast.Call):
            continue
        name, text = ast.unparse(node.func), ast.unparse(node)
        last, where = name.rpartition(".")[2], f"{node.lineno}: {text[:60]}"
        if "np.random." in name and (last != "default_rng" or not node.args) and "rng(" not in name:
            yield where
        owner = name.split(".")[0]
        if last in DRAWS and "generator" not in text and owner not in ("rng", "np"):
            yield where
        if name in ("torch.manual_seed", "torch.seed") and id(node) not in forked:
            yield where


def test_every_draw_names_its_generator() -> None:
    files = [*(ROOT / "nogaps").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert len(files) > 40
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        found = list(unseeded(path))
        assert len(found) <= DRAWN_UNDER_A_FORK.get(name, 0), f"{name}: {found}"
