from __future__ import annotations

import torch

from nogaps.prior.training import step_generator
from nogaps.seeds import numbered_generator


def first(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64).item()


def test_streams_differ_by_seed_and_by_number() -> None:
    draws = [first(numbered_generator(seed, k)) for seed in range(40) for k in range(50)]
    assert len(set(draws)) == len(draws)
    assert first(numbered_generator(7, 3)) == first(numbered_generator(7, 3))


def test_processes_and_steps_draw_apart() -> None:
    draws = [first(step_generator(s, k, p)) for s in range(4) for k in range(20) for p in range(8)]
    assert len(set(draws)) == len(draws)


def test_seeds_lie_far_apart() -> None:
    """No item of one of a thousand seeds is an item of another, up to a million items each."""
    starts = sorted(numbered_generator(seed, 0).initial_seed() for seed in range(1000))
    gaps = [b - a for a, b in zip(starts, [*starts[1:], starts[0] + 2**32], strict=True)]
    assert min(gaps) > 1_000_000
