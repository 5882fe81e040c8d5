"""A first stage that needs no training and loses nothing: orthonormal coefficients of blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin

TRANSFORMS = ("haar", "unshuffle")


def without_spread(z: torch.Tensor) -> AutoencoderKLOutput:
    """Return latents z (N,C,h,w) as a distribution of diffusers', which has no spread."""
    moments = torch.cat([z, torch.zeros_like(z)], 1)
    posterior = DiagonalGaussianDistribution(moments, deterministic=True)
    return AutoencoderKLOutput(latent_dist=posterior)


def block_basis(transform: str, factor: int) -> torch.Tensor:
    """Return an orthonormal basis of factor×factor blocks, (factor**2,1,factor,factor).

    Args:
        transform: "haar", products of Haar wavelets, packet form, all levels split alike; or
            "unshuffle", single pixels, that is pixel-unshuffle.
        factor: A power of 2.

    Raises:
        ValueError: An argument is another.
    """
    if transform not in TRANSFORMS or factor < 1 or factor & (factor - 1):
        raise ValueError(f"{transform!r}, factor {factor}: expected {TRANSFORMS}, a power of 2")
    rows = torch.eye(factor)
    if transform == "haar":
        rows, pair = torch.ones(1, 1), torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
        while len(rows) < factor:
            rows = torch.kron(rows, pair)
    basis = rows[:, None, :, None] * rows[None, :, None, :]
    return basis.reshape(factor**2, 1, factor, factor)


class PixelSpace(ModelMixin, ConfigMixin):
    """Images (N,1,H,W) as standardised coefficients (N,factor**2,H/factor,W/factor).

    It has the calls of diffusers' `AutoencoderKL`. Decoding inverts encoding up to rounding.
    Source of the idea: wavelet diffusion (arXiv 2402.19043).
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, transform: str = "haar", factor: int = 4, scaling_factor: float = 1.0
    ) -> None:
        super().__init__()
        self.register_buffer("basis", block_basis(transform, factor), persistent=False)
        shape = (1, factor**2, 1, 1)
        self.mean = torch.nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.deviation = torch.nn.Parameter(torch.ones(shape), requires_grad=False)

    @torch.no_grad()
    def measure(self, x: torch.Tensor) -> None:
        """Set mean and deviation of each channel to those of images x (N,1,H,W) in [-1,1]."""
        z = F.conv2d(x, self.basis, stride=self.config.factor)
        self.mean.copy_(z.mean((0, 2, 3)).view_as(self.mean))
        self.deviation.copy_(z.std((0, 2, 3)).clamp(min=1e-6).view_as(self.deviation))

    def encode(self, x: torch.Tensor) -> AutoencoderKLOutput:
        """Return the coefficients of images x (N,1,H,W) in [-1,1], in fp32 also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            z = F.conv2d(x.float(), self.basis.float(), stride=self.config.factor)
            return without_spread((z - self.mean.float()) / self.deviation.float())

    def decode(self, z: torch.Tensor) -> DecoderOutput:
        """Return the images of coefficients z, the inverse of `encode`."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float() * self.deviation.float() + self.mean.float()
            basis = self.basis.float()
            return DecoderOutput(F.conv_transpose2d(z, basis, stride=self.config.factor))
