"""Fill files and arrays of any kind by any method: trained networks and plain functions alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from nogaps.runtime.errors import BadInput

Filling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x_hat = imputer(y, mask)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainedOn:
    """What networks were trained for: image size (H,W), and `fingerprint` of the mask (H,W)."""

    size: tuple[int, int]
    mask: str


@runtime_checkable
class FillingMethod(Protocol):
    """`x_hat = method(y, mask)`, and what filling has to know of the method.

    Attributes:
        device: Where it computes, and where y and mask must be.
        identity: 16 hex digits that change with its weights and settings; None where nothing tells
            that a result is the same as before.
        trained_on: Size and mask that its networks were trained for, if it has and knows them.
    """

    # properties, as methods may be frozen: plain attributes would have to be writable
    @property
    def device(self) -> torch.device: ...  # noqa: D102 (see the class)
    @property
    def identity(self) -> str | None: ...  # noqa: D102
    @property
    def trained_on(self) -> TrainedOn | None: ...  # noqa: D102

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill y (N,1,H,W) in [0,1]; mask: bool (1,1,H,W) or (N,1,H,W), True = observed."""

    def with_half_width(
        self, y: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_hat and half-widths of its intervals, (N,1,H,W) each; BadInput where it has none."""


@dataclass(frozen=True)
class PlainMethod:
    """Any function `x_hat = function(y, mask)` as a `FillingMethod` without intervals."""

    function: Filling
    device: torch.device = CPU
    identity: str | None = None
    trained_on: TrainedOn | None = None

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Call the function."""
        return self.function(y, mask)

    def with_half_width(
        self, y: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raise BadInput: a plain function has no intervals."""
        raise BadInput("this method has no calibration", "a trained imputer for half-widths")


def as_method(imputer: FillingMethod | Filling) -> FillingMethod:
    """Return a method as it is, and wrap a function; a network's device is that of its weights."""
    if isinstance(imputer, FillingMethod):
        return imputer
    weights = imputer.parameters() if isinstance(imputer, nn.Module) else iter(())
    return PlainMethod(imputer, next((weight.device for weight in weights), CPU))
