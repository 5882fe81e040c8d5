"""U-Nets whose decoder refines the features of the hole: FRM and ASPP-FRM.

After a public study of object removal in colour (U-Net with a feature refinement module, CIFAR-10,
object masks of DeepLabV3), which names the module after arXiv 2206.13644. Baselines: they see the
corrupted image alone, and the mask only where they refine; or, as the notebook's imputer does, an
interpolated image and its mask, of which they learn the residual.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from nogaps.Assessment import ConvBlock, DecBlock, EncBlock
from nogaps.interpolation import keep_observed
from nogaps.runtime.device import autocast, autocast_dtype

RATES = (1, 2, 4, 8)  # arXiv 1706.05587 has 6, 12, 18 on maps of 65×65; ours start at 8×8


class Refinement(nn.Module):
    """Correct the features of holes: h + (1 - share) * correction(h + embed(share)).

    `share` is the share of observed pixels under each feature, in [0,1]. The study instead replaces
    the hole's features by a sigmoid of the observed ones: the middle of a hole then knows nothing
    of the picture, which cost FRM 2.5 dB there in a short trial.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        correction = CORRECTIONS[kind](channels)
        self.embed = nn.Conv2d(1, channels, 1)
        self.correction = correction

    def forward(self, h: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """(N,C,H,W) and (1|N,1,H,W) to (N,C,H,W)."""
        share = share.to(h.dtype)
        return h + (1 - share) * self.correction(h + self.embed(share))


def frm(channels: int) -> nn.Module:
    """Return the correction of FRM: two 3×3 convolutions, a reach of two pixels."""
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling, (N,C,H,W) to (N,C,H,W): the correction of ASPP-FRM.

    It reaches eight pixels, and the whole map's mean. A 1×1 convolution, dilated 3×3 ones and
    global average pooling side by side, a quarter of the channels each, concatenated and projected.
    Source: DeepLab v2 (arXiv 1606.00915, section 3.2); 1×1 branch, pooling and BatchNorm from
    DeepLab v3 (arXiv 1706.05587, section 3.3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        convs = [
            nn.Conv2d(channels, width, 1, bias=False),
            *(nn.Conv2d(channels, width, 3, padding=r, dilation=r, bias=False) for r in RATES),
        ]
        self.branches = nn.ModuleList(
            nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()) for conv in convs
        )
        # no BatchNorm: one value per channel and image is too little for it
        pool = nn.Conv2d(channels, width, 1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), pool, nn.ReLU())
        self.project = nn.Conv2d((len(convs) + 1) * width, channels, 1)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Features of all branches, projected; same shape."""
        parts = [branch(h) for branch in self.branches]
        pooled = self.pool(h).expand(-1, -1, *h.shape[-2:])
        return self.project(torch.cat([*parts, pooled], dim=1))


CORRECTIONS: dict[str, Callable[[int], nn.Module]] = {"frm": frm, "aspp-frm": ASPP}
PLAIN = "plain"  # no refinement


class RefinedDecBlock(DecBlock):
    """Transposed convolution, concatenated skip, refinement if it is not plain, two ConvBlocks."""

    def __init__(self, channels_in: int, channels_out: int, kind: str) -> None:
        super().__init__(channels_in, channels_out)
        self.refine = None if kind == PLAIN else Refinement(kind, 2 * channels_out)

    def forward(self, h: torch.Tensor, skip: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """(N,C_in,H/2,W/2), (N,C_out,H,W) and (1|N,1,H,W) to (N,C_out,H,W)."""
        h = torch.cat([self.up(h), skip], dim=1)
        return self.convs(h if self.refine is None else self.refine(h, share))


class RefinedUNet(nn.Module):
    """`x_hat = imputer(y, mask)`: a U-Net (arXiv 1505.04597) with a refinement in every decoder.

    Colour leaves through a sigmoid, as in the study. One channel leaves as it is and is clipped:
    the heads' background lies at 0 and their brightest tissue at 1, where a sigmoid hardly learns.
    With `residual`, y is an interpolated image, to whose hole the network adds; until it is trained
    it adds nothing. Build it with `build_refined_unet`.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        widths: tuple[int, ...],
        bottleneck: int,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.config = dict(kind=kind, channels=channels, widths=list(widths), bottleneck=bottleneck)
        self.config |= {"residual": residual}
        inputs, outputs = [channels + residual, *widths[:-1]], widths[::-1]
        self.encoder = nn.ModuleList(EncBlock(a, b) for a, b in zip(inputs, widths, strict=True))
        self.bottleneck = nn.Sequential(
            ConvBlock(widths[-1], bottleneck), ConvBlock(bottleneck, bottleneck)
        )
        self.decoder = nn.ModuleList(
            RefinedDecBlock(a, b, kind)
            for a, b in zip([bottleneck, *outputs[:-1]], outputs, strict=True)
        )
        self.head = nn.Conv2d(widths[0], channels, 1)
        if residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill y (N,C,H,W) in [0,1]; mask: bool (1,1,H,W) or (N,1,H,W), True = observed.

        Observed pixels are those of y, bit for bit; the hole is clipped to [0,1] unless training.
        """
        x_hat = self.predict(y, mask)
        return torch.where(mask, y, x_hat) if self.training else keep_observed(x_hat, y, mask)

    def predict(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the network's own output at every pixel, (N,C,H,W) fp32; grey is not clipped.

        Arguments as `forward`. For a loss or a score over whole images. A residual is added in the
        hole only, and not clipped.
        """
        height, width = y.shape[-2:]
        h, share = y, mask.to(y.dtype)
        if self.config["residual"]:
            h = torch.cat([y, share.expand(len(y), -1, -1, -1)], dim=1)
        h, share = (pad_to_multiple(t, 2 ** len(self.encoder)) for t in (h, share))
        with autocast(h.device, autocast_dtype(h.device)):
            h = self._features(h.contiguous(memory_format=torch.channels_last), share)
        h = h.float()[..., :height, :width]
        if self.config["residual"]:
            return torch.where(mask, y, y + h)
        return h.sigmoid() if self.config["channels"] == 3 else h

    def _features(self, h: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        stages = []
        for block in self.encoder:
            skip, h = block(h)
            stages.append((skip, share))
            # the average, not the extreme: at a quarter of the size every cell of a striped mask
            # holds both kinds, and a maximum would call all of it missing, or all observed
            share = F.avg_pool2d(share, 2)
        h = self.bottleneck(h)
        for block in self.decoder:
            h = block(h, *stages.pop())
        return self.head(h)


def pad_to_multiple(t: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column of t (N,C,H,W) up to a multiple of `multiple`."""
    height, width = t.shape[-2:]
    pad = (0, -width % multiple, 0, -height % multiple)
    return F.pad(t, pad, mode="replicate") if any(pad) else t


def build_refined_unet(
    kind: str,
    channels: int = 1,
    widths: tuple[int, ...] = (64, 128, 256),
    bottleneck: int = 512,
    seed: int = 0,
    residual: bool = False,
) -> RefinedUNet:
    """Build an untrained U-Net; the defaults are the study's, 13.9 million weights with FRM.

    Args:
        kind: The refinement, "frm" or "aspp-frm", or "plain": a U-Net without.
        channels: 1 or 3.
        widths: Of the stages, multiples of 8.
        bottleneck: Its width.
        seed: The same seed gives the same weights.
        residual: What it is given is interpolated, and it learns what is missing from that.

    Raises:
        ValueError: An argument is anything else.
    """
    if kind not in (kinds := [PLAIN, *CORRECTIONS]):
        raise ValueError(f"refinement {kind!r}: expected {' or '.join(kinds)}")
    if channels not in (1, 3):
        raise ValueError(f"{channels} channels: expected 1 or 3")
    if any(width % 8 for width in widths):
        # PyTorch 2.13 on CPUs reads unwritten memory in the bf16 weight gradient of a dilated
        # convolution unless it has a multiple of 16 channels (two widths): NaN now and then
        raise ValueError(f"widths {tuple(widths)}: expected multiples of 8")
    with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
        torch.manual_seed(seed)
        return RefinedUNet(kind, channels, tuple(widths), bottleneck, residual)
