"""Fill the missing lines of 64×64 head MRIs, learnt from synthetic heads.

>>> import numpy as np
>>> from nogaps import fill
>>> y = np.random.default_rng(0).integers(1, 4096, (5, 64, 64), dtype=np.uint16)
>>> y[:, 10:12] = 0  # two rows are missing
>>> x_hat = fill(y, quality="fast")
>>> x_hat.shape, x_hat.dtype, bool((x_hat == y)[y > 0].all())
((5, 64, 64), dtype('uint16'), True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nogaps.runtime.errors import BadInput
from nogaps.version import __version__

if TYPE_CHECKING:
    from nogaps.api import fill
    from nogaps.imputers.loading import load_imputer
    from nogaps.prior.sampling import generate

__all__ = ["BadInput", "__version__", "fill", "generate", "load_imputer"]


def __getattr__(name: str) -> object:
    """Import what needs torch, which takes seconds, only when it is asked for."""
    if name == "fill":
        from nogaps.api import fill as exported
    elif name == "generate":
        from nogaps.prior.sampling import generate as exported
    elif name == "load_imputer":
        from nogaps.imputers.loading import load_imputer as exported
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return exported


def __dir__() -> list[str]:
    """Return what the package offers, for completion."""
    return sorted({*globals(), *__all__})
