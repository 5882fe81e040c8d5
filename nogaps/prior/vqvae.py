"""First stage of the prior: VQ-VAE-2, two levels of quantised latents, with EMA codebooks.

Sources: Razavi et al. 2019 (arXiv 1906.00446), section 3.1 and algorithm 1; codebooks by
exponential moving averages: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import nn

from nogaps.runtime.errors import BadInput

CHUNK = 4096  # vectors whose distances are taken at once: they stay in the processor's cache
EPSILON = 1e-5  # of the Laplace smoothing


class Quantized(NamedTuple):
    """The result of a quantiser."""

    vectors: torch.Tensor  # (N,C,h,w) fp32, codes; gradients pass straight through to the input
    distance: torch.Tensor  # mean squared distance to the input, with gradients to the input only
    perplexity: torch.Tensor  # of the codes used, mean over the heads, 1 to num_codes


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized()


class VectorQuantizer(nn.Module):
    """Replaces each head's part of a vector by the nearest of that head's codes.

    The channels fall into `heads` equal parts with a codebook each (product quantisation: Jégou
    et al. 2011, doi 10.1109/TPAMI.2010.57). A code is the mean of the vectors assigned to it: a sum
    over a size, both moving averages, so that averages of a model's buffers make a codebook too.
    Dead codes, unused for `restart_after` updates or early for fewer, restart at vectors of the
    batch, drawn in proportion to their squared error (as k-means++).
    """

    cluster_size: torch.Tensor  # (heads,K): moving average of the vectors per code
    code_sum: torch.Tensor  # (heads,K,D): moving average of their sum
    idle: torch.Tensor  # (heads,K): updates since a code was last used
    updates: torch.Tensor  # number of updates so far

    def __init__(
        self, channels: int, heads: int, num_codes: int, decay: float, restart_after: int
    ) -> None:
        super().__init__()
        if heads < 1 or channels < 1 or channels % heads:
            expected = f"a multiple of {heads} heads"
            raise BadInput(f"a level has {channels} channels", expected)
        self.heads, self.decay, self.restart_after = heads, decay, restart_after
        self.register_buffer("cluster_size", torch.ones(heads, num_codes))
        self.register_buffer("code_sum", torch.randn(heads, num_codes, channels // heads))
        self.register_buffer("idle", torch.zeros(heads, num_codes, dtype=torch.int64))
        self.register_buffer("updates", torch.tensor(0))

    @property
    def codes(self) -> torch.Tensor:
        """Return the codes (heads,K,D) fp32: sums over the Laplace-smoothed sizes."""
        n = self.cluster_size.sum(1, keepdim=True)
        size = (self.cluster_size + EPSILON) / (n + self.cluster_size.shape[1] * EPSILON) * n
        return self.code_sum / size[..., None]

    def forward(self, z: torch.Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantise z (N,C,h,w); in training mode and with a CPU generator, update the codebooks.

        Several processes sum their statistics and restart codes at vectors of process 0.
        """
        vectors, learn = self._split(z.float()), self.training and generator is not None
        data = vectors.detach()
        if learn and not self.updates:
            self._restart(self.idle == 0, data, data.mean(1, keepdim=True), generator)
        index = self._nearest(data)
        nearest = torch.take_along_dim(self.codes, index[..., None], 1)
        counts = torch.zeros_like(self.cluster_size)
        counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))
        if learn:
            self._update(data, index, counts)
            # a young encoder leaves codes behind, and the decoder learns to ignore what is unused
            patience = min(self.restart_after, max(2, int(self.updates) // 50))
            self._restart(self.idle >= patience, data, nearest, generator)
        perplexity = torch.special.entr(counts / counts.sum(1, keepdim=True)).sum(1).exp().mean()
        straight = nearest + (vectors - data)  # exactly a code, unlike z + (code - z)
        return Quantized(self._join(straight, z.shape), F.mse_loss(vectors, nearest), perplexity)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean (1,C,1,1) and deviation (scalar) of the codes, weighted by their use."""
        share = (self.cluster_size / self.cluster_size.sum(1, keepdim=True))[..., None]
        mean = (share * self.codes).sum(1, keepdim=True)
        variance = (share * (self.codes - mean).square()).sum(1).mean()
        return mean.view(1, -1, 1, 1), variance.clamp(min=1e-12).sqrt()

    def standardize(self, codes: torch.Tensor) -> torch.Tensor:
        """Scale codes (N,C,h,w) to mean 0 per channel and mean variance 1 over training data."""
        mean, std = self.moments()
        return (codes - mean) / std

    def snap(self, z: torch.Tensor) -> torch.Tensor:
        """Return the codes (N,C,h,w) fp32 nearest to standardised z of the same shape."""
        mean, std = self.moments()
        index = self._nearest(self._split(z.float() * std + mean))[..., None]
        return self._join(torch.take_along_dim(self.codes, index, 1), z.shape)

    def _split(self, z: torch.Tensor) -> torch.Tensor:
        return z.movedim(1, -1).flatten(0, -2).unflatten(1, (self.heads, -1)).swapaxes(0, 1)

    def _join(self, vectors: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return vectors.swapaxes(0, 1).reshape(shape[0], *shape[2:], -1).movedim(-1, 1)

    @torch.no_grad()
    def _nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """Index (heads,M) of the nearest code: the largest v.e - |e|^2 / 2."""
        codes = self.codes
        heads = zip(vectors, codes, -0.5 * codes.square().sum(-1), strict=True)
        with torch.autocast(vectors.device.type, enabled=False):
            rows = [[torch.addmm(b, p, e.T).argmax(1) for p in v.split(CHUNK)] for v, e, b in heads]
        return torch.stack([torch.cat(row) for row in rows])

    @torch.no_grad()
    def _update(self, data: torch.Tensor, index: torch.Tensor, counts: torch.Tensor) -> None:
        """Moving averages; `counts` is summed over the processes in place."""
        sums = torch.zeros_like(self.code_sum)
        sums.scatter_add_(1, index[..., None].expand_as(data), data)
        if _several_processes():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.code_sum.lerp_(sums, 1 - self.decay)
        self.idle.add_(1).masked_fill_(counts > 0, 0)
        self.updates.add_(1)

    @torch.no_grad()
    def _restart(
        self, dead: torch.Tensor, data: torch.Tensor, nearest: torch.Tensor, draws: torch.Generator
    ) -> None:
        """Move dead codes to vectors of the batch."""
        weight = (data - nearest).square().sum(-1).cpu().double() + 1e-12  # never all zero
        index = weight.multinomial(dead.shape[1], replacement=True, generator=draws)[..., None]
        fresh = torch.take_along_dim(data, index.to(data.device), 1)
        if _several_processes():
            dist.broadcast(fresh, 0)
        self.code_sum.copy_(torch.where(dead[..., None], fresh, self.code_sum))
        self.cluster_size.masked_fill_(dead, 1.0)
        self.idle.masked_fill_(dead, 0)

    def _apply(self, fn: Callable, recurse: bool = True) -> VectorQuantizer:
        """Move, but stay in fp32: sums over many vectors do not fit into fp16."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)


class ResidualBlock(nn.Sequential):
    """ReLU, 3×3 convolution, ReLU, 1×1 convolution, added to the input (N,width,h,w)."""

    def __init__(self, width: int, inner: int) -> None:
        narrow, widen = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 1)
        super().__init__(nn.ReLU(), narrow, nn.ReLU(), widen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of x."""
        return x + super().forward(x)


def residual_stack(channels: int, width: int, inner: int, blocks: int) -> nn.Sequential:
    """Build layers from (N,channels,h,w) to (N,width,h,w)."""
    residual = (ResidualBlock(width, inner) for _ in range(blocks))
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), *residual, nn.ReLU())


def halve(channels: int, width: int, inner: int, blocks: int) -> nn.Sequential:
    """Build an encoder from (N,channels,h,w) to (N,width,h/2,w/2)."""
    strided = nn.Conv2d(channels, width // 2, 4, stride=2, padding=1)
    return nn.Sequential(strided, nn.ReLU(), residual_stack(width // 2, width, inner, blocks))


def double(channels: int, out: int, width: int, inner: int, blocks: int) -> nn.Sequential:
    """Build a decoder from (N,channels,h,w) to (N,out,2h,2w)."""
    transposed = nn.ConvTranspose2d(width, out, 4, stride=2, padding=1)
    return nn.Sequential(residual_stack(channels, width, inner, blocks), transposed)


def join_levels(bottom: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Join (N,B,h,w) and (N,T,h/2,w/2), whose vectors are repeated 2×2, to (N,B+T,h,w)."""
    return torch.cat([bottom, F.interpolate(top, scale_factor=2.0, mode="nearest")], 1)


class VQVAE2(ModelMixin, ConfigMixin):
    """Two-level VQ-VAE that is used like diffusers' `AutoencoderKL`.

    Images (N,in_channels,H,W) in [-1,1], H and W multiples of 4, become codes at half the size
    (bottom) and at a quarter (top; the bottom sees it). Both lie in one tensor of latents,
    (N,latent_channels,H/2,W/2), each level standardised: first the bottom, then the top, each
    vector repeated 2×2. Few channels suit a diffusion model; more heads on them add detail. Every
    call raises BadInput for other sizes.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 1,
        latent_channels: int = 12,
        top_channels: int = 4,
        bottom_heads: int = 4,
        top_heads: int = 1,
        num_codes: int = 512,
        width: int = 128,
        inner_width: int = 32,
        blocks: int = 2,
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        restart_after: int = 20,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        bottom_channels, shape = latent_channels - top_channels, (width, inner_width, blocks)
        self.encoder_bottom = halve(in_channels, *shape)
        self.encoder_top = halve(width, *shape)
        # unnormalised, the top shrinks to one code: the bottom alone nearly suffices
        normalize = nn.BatchNorm2d(top_channels, affine=False)
        self.to_top = nn.Sequential(nn.Conv2d(width, top_channels, 1, bias=False), normalize)
        self.top_to_bottom = double(top_channels, width // 2, *shape)
        self.to_bottom = nn.Conv2d(width + width // 2, bottom_channels, 1, bias=False)
        codebook = (num_codes, decay, restart_after)
        self.quantizer_top = VectorQuantizer(top_channels, top_heads, *codebook)
        self.quantizer_bottom = VectorQuantizer(bottom_channels, bottom_heads, *codebook)
        self.decoder = double(latent_channels, in_channels, *shape)

    def forward(
        self, x: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, Quantized, Quantized]:
        """Return the reconstruction of x (N,in_channels,H,W) in [-1,1], bottom and top.

        In training mode, and with a generator, the codebooks are updated.
        """
        bottom, top = self._quantize(x, generator)
        z = join_levels(bottom.vectors, top.vectors)
        return self.decoder(z.to(self.dtype)), bottom, top

    def encode(self, x: torch.Tensor) -> AutoencoderKLOutput:
        """Return latents (N,latent_channels,H/2,W/2) fp32 of x (N,in_channels,H,W) in [-1,1]."""
        bottom, top = self._quantize(x)
        z = self.quantizer_bottom.standardize(bottom.vectors)
        z = join_levels(z, self.quantizer_top.standardize(top.vectors))
        moments = torch.cat([z, torch.zeros_like(z)], 1)  # without spread
        return AutoencoderKLOutput(DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, z: torch.Tensor) -> DecoderOutput:
        """Return images (N,in_channels,2h,2w) of the codes nearest to latents z."""
        channels, split = self.config.latent_channels, -self.config.top_channels
        if z.shape[1] != channels or z.shape[2] % 2 or z.shape[3] % 2:
            expected = f"(N,{channels},h,w), h and w even"
            raise BadInput(f"latents have shape {tuple(z.shape)}", expected)
        top = self.quantizer_top.snap(F.avg_pool2d(z[:, split:].float(), 2))
        z = join_levels(self.quantizer_bottom.snap(z[:, :split]), top)
        return DecoderOutput(sample=self.decoder(z.to(self.dtype)))

    def _quantize(
        self, x: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Quantized, Quantized]:
        if x.shape[-2] % 4 or x.shape[-1] % 4:
            raise BadInput(f"images have {tuple(x.shape[-2:])} pixels", "multiples of 4")
        fine = self.encoder_bottom(x)
        top = self.quantizer_top(self.to_top(self.encoder_top(fine)), generator)
        coarse = self.top_to_bottom(top.vectors.to(self.dtype))
        return self.quantizer_bottom(self.to_bottom(torch.cat([fine, coarse], 1)), generator), top
