"""Generators for numbered things: image k, training step k, each with a stream of its own."""

from __future__ import annotations

import torch

GOLDEN = 0x9E3779B1  # 2**32 divided by the golden ratio, odd


def numbered_generator(seed: int, k: int) -> torch.Generator:
    """CPU generator of item `k` under `seed`.

    torch's CPU generator looks at the low 32 bits of a seed only, so `seed` cannot go into the high
    ones. Multiples of GOLDEN lie far apart modulo 2**32: among n seeds no two come nearer than
    about 2**32 / (2.2 n), so their items do not meet, and within one seed none repeats (Knuth, The
    Art of Computer Programming 3, section 6.4, theorem S).
    """
    return torch.Generator().manual_seed((seed * GOLDEN + k) % 2**32)
