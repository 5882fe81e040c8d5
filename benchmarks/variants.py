"""Changes of the notebook's imputer, one at a time, for `benchmarks.ablations`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from nogaps import Assessment
from nogaps.Assessment import Imputer, UNet
from nogaps.augmentation import random_affine
from nogaps.interpolation import linear_operator

MASKS = 16  # different masks of the variant that moves them; kriging weights are kept for each


class NoMaskChannel(Imputer):
    """The network does not see which pixels were observed."""

    def _residual(self, h: torch.Tensor) -> torch.Tensor:
        return super()._residual(torch.cat([h[:, :1], torch.zeros_like(h[:, 1:])], 1))


class DropoutEverywhere(Imputer):
    """Dropout 0.1 after every activation, as the coursework's reference has it (0.2)."""

    def __init__(self, covariance: torch.Tensor, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__(covariance, widths, bottleneck)
        rebuild(self, UNet(2, tuple(widths), bottleneck, 0.1))


class NoDropout(Imputer):
    """No dropout at all."""

    def __init__(self, covariance: torch.Tensor, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__(covariance, widths, bottleneck, bottleneck_dropout=0.0)


class UnshuffledUNet(nn.Module):
    """The U-Net at half resolution: 2×2 pixels become channels (arXiv 1609.05158), two levels."""

    def __init__(self, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__()
        self.unet = UNet(8, widths, bottleneck, 0.0, 0.1)
        self.unet.head = nn.Conv2d(widths[0], 64, 3, padding=1)
        self.head = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(N,2,H,W) to (N,1,H,W)."""
        return self.head(F.pixel_shuffle(self.unet(F.pixel_unshuffle(h, 2)), 2))


class Unshuffled(Imputer):
    """`UnshuffledUNet` in place of the U-Net; widths 96, 192 and 384 at its bottom."""

    def __init__(self, covariance: torch.Tensor, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__(covariance, widths, bottleneck)
        rebuild(self, UnshuffledUNet((96, 192), 384))


def rebuild(imputer: Imputer, unet: nn.Module) -> None:
    """Give an imputer another network, which at first adds nothing to kriging."""
    nn.init.zeros_(unet.head.weight)
    nn.init.zeros_(unet.head.bias)
    imputer.unet = unet.to(memory_format=torch.channels_last)


def no_weights(mask: np.ndarray) -> sparse.csr_matrix:
    """Operator that fills with the mean of the observed pixels."""
    return sparse.csr_matrix((int((~mask).sum()), int(mask.sum())))


def same_for_all(y: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of a typical head instead of those of the image."""
    one = torch.ones(len(y), 1, 1, 1, device=y.device)
    return 0.28 * one, 0.22 * one


def geometry_only(x: torch.Tensor, generator: torch.Generator, _: float) -> torch.Tensor:
    """The notebook's augmentation without gamma and lighting."""
    x = random_affine(x, generator, degrees=10, scale=0.12, shift=6, mode="bicubic")
    return x.clamp(0, 1)


def sharpened(most: float) -> Callable:
    """The notebook's augmentation with unsharp masking by a random amount up to `most`."""
    return lambda x, generator, _: AUGMENT(x, generator, most)


def half_warped(
    x: torch.Tensor,
    generator: torch.Generator,
    others: torch.Tensor | None = None,
    **how: object,
) -> torch.Tensor:
    """Geometry for a random half of the images, which it softens; the others, x unless given."""
    warped = random_affine(x, generator, **how)
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, warped, x if others is None else others)


def half_moved(x: torch.Tensor, generator: torch.Generator, **how: object) -> torch.Tensor:
    """Geometry for a random half; the others move by whole pixels, which softens nothing."""
    moves = torch.randint(-6, 7, (len(x), 2), generator=generator).tolist()
    moved = torch.stack([_move(one, *move) for one, move in zip(x, moves, strict=True)])
    return half_warped(x, generator, moved, **how)


def _move(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """x (C,H,W) so many pixels on; 0 comes in."""
    padded = F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def warped_from_twice(x: torch.Tensor, generator: torch.Generator, **how: object) -> torch.Tensor:
    """Geometry that reads an image of twice the size, made without loss (sinc): softens less."""
    with mock.patch.object(F, "grid_sample", _from_twice):
        return random_affine(x, generator, **how)


def _from_twice(x: torch.Tensor, grid: torch.Tensor, **how: object) -> torch.Tensor:
    return GRID_SAMPLE(twice(x), grid, **how)


def twice(x: torch.Tensor, margin: int = 8) -> torch.Tensor:
    """(N,C,H,W) to (N,C,2H,2W) by zeros in the spectrum; pixel centres as torch puts them."""
    x = F.pad(x, (margin,) * 4, mode="reflect")
    height, width = x.shape[-2:]
    down, right = torch.fft.fftfreq(height, device=x.device), torch.fft.rfftfreq(width)
    phase = torch.exp(-0.5j * torch.pi * (down[:, None] + right.to(x.device)))
    spectrum = torch.fft.fftshift(torch.fft.rfft2(x) * phase, dim=-2)
    spectrum = F.pad(spectrum, (0, width // 2, height // 2, height // 2))
    spectrum = torch.fft.ifftshift(spectrum, dim=-2)
    up = 4 * torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))
    return up[..., 2 * margin : -2 * margin, 2 * margin : -2 * margin]


def equal_contrast(imputer: Imputer, ema: nn.Module, *parts: object) -> float:
    """The notebook's epoch with every image scaled to one deviation, so that all count alike."""
    *others, batches, mask = parts
    scaled = ((rate, 0.22 * x / x.std((1, 2, 3), keepdim=True)) for rate, x in batches)
    return TRAIN_EPOCH(imputer, ema, *others, scaled, mask)


class Residual(nn.Sequential):
    """The second of two blocks adds to what the first gives (arXiv 1512.03385)."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(N,C_in,H,W) to (N,C_out,H,W)."""
        h = self[0](h)
        return h + self[1](h)


class ResidualImputer(Imputer):
    """Every pair of blocks of the U-Net with a residual connection."""

    def __init__(self, covariance: torch.Tensor, widths: tuple[int, ...], bottleneck: int) -> None:
        super().__init__(covariance, widths, bottleneck)
        for block in (*self.unet.encoder, *self.unet.decoder):
            block.convs = Residual(*block.convs)


def moving_masks(imputer: Imputer, ema: nn.Module, *parts: object) -> float:
    """The notebook's epoch, half of its batches under shifted copies of the mask."""
    *others, batches, mask = parts
    shifts = torch.randint(-8, 9, (MASKS, 2), generator=torch.Generator().manual_seed(0)).tolist()
    masks = [mask] * MASKS + [mask.roll(shift, (2, 3)) for shift in shifts]
    generator = torch.Generator().manual_seed(1 + int(ema.n_averaged))  # another each epoch
    losses = []
    for batch in batches:
        which = int(torch.randint(len(masks), (), generator=generator))
        losses.append(TRAIN_EPOCH(imputer, ema, *others, iter([batch]), masks[which]))
    return float(np.mean(losses))


TRAIN_EPOCH, AUGMENT, GRID_SAMPLE = Assessment.train_epoch, Assessment.augment, F.grid_sample


@dataclass(frozen=True)
class Variant:
    """One change: names of the notebook that are replaced, or another size."""

    patches: dict[str, Callable] | None = None
    size: tuple[tuple[int, ...], int] | None = None


VARIANTS = {
    "default": Variant(),
    "sharpened up to 0.6": Variant({"augment": sharpened(0.6)}),
    "sharpened up to 1.2": Variant({"augment": sharpened(1.2)}),
    "no geometry": Variant({"random_affine": lambda x, *_, **__: x}),
    "no gamma or lighting": Variant({"augment": geometry_only}),
    "start from lines": Variant({"kriging_operator": lambda covariance: linear_operator}),
    "start from the mean": Variant({"kriging_operator": lambda covariance: no_weights}),
    "no mask channel": Variant({"Imputer": NoMaskChannel}),
    "not standardised": Variant({"observed_moments": same_for_all}),
    "no dropout": Variant({"Imputer": NoDropout}),
    "dropout everywhere": Variant({"Imputer": DropoutEverywhere}),
    "half of the images warped": Variant({"random_affine": half_warped}),
    "half moved instead of warped": Variant({"random_affine": half_moved}),
    "warped from twice the size": Variant({"random_affine": warped_from_twice}),
    "every image at one contrast": Variant({"train_epoch": equal_contrast}),
    "residual blocks": Variant({"Imputer": ResidualImputer}),
    "masks moved": Variant({"train_epoch": moving_masks}),
    "half as wide": Variant(size=((16, 32, 64), 128)),
    "1.5 times as wide": Variant(size=((48, 96, 192), 384)),
    "wide and half warped": Variant({"random_affine": half_warped}, ((48, 96, 192), 384)),
    "at half resolution": Variant({"Imputer": Unshuffled}),
}


@contextlib.contextmanager
def changed(variant: Variant) -> Iterator[None]:
    """The notebook's code with the variant's change."""
    with contextlib.ExitStack() as stack:
        for name, replacement in (variant.patches or {}).items():
            stack.enter_context(mock.patch.object(Assessment, name, replacement))
        yield
