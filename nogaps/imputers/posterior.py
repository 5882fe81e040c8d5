"""Fill holes with draws from the diffusion prior: `Posterior`, a companion of the imputers.

It never stands in the coursework path, because the prior is a pre-trained network. It shows what
else could lie in the holes, not what is most likely there: even an exact draw from the posterior
has twice the squared error of its mean (3 dB), and the mean of K draws (1 + 1/K) times that error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers.utils.torch_utils import randn_tensor

from nogaps.filling import Filling
from nogaps.interpolation import keep_observed
from nogaps.prior.autoencoder import decode
from nogaps.prior.loading import Prior, make_scheduler
from nogaps.prior.sampling import PRECISIONS, latent_shape, resolve_precision
from nogaps.runtime.device import autocast
from nogaps.runtime.errors import BadInput
from nogaps.runtime.progress import progress
from nogaps.runtime.seeds import numbered_generator

BATCH_SIZE = 64  # draws at a time
MAX_DRAWS = 1024  # per image: the numbers of one image's draws lie side by side
TOP = 0.997  # the prior's training images were divided by this quantile of theirs


@dataclass(frozen=True, eq=False)
class Posterior:
    """`x_hat = posterior(y, mask)`: the mean of draws from the diffusion prior that agree with y.

    Each draw starts from what `imputer` fills in, noised to the share `strength` of the noise
    schedule (SDEdit, arXiv 2108.01073, section 3), and takes `num_inference_steps` steps down. In
    each the denoiser predicts the image, whose observed pixels are replaced by those of y: the
    range-null space decomposition of DDNM (arXiv 2212.00490, section 3.1), with the first stage's
    decoder and encoder around it, exact in pixel spaces and as good as the autoencoder in latents.

    The prior knows images divided by their 99.7th percentile; y is divided by that of its observed
    pixels. Limit: nothing filled in is brighter than that percentile, and where it misses the
    image's own (bright parts all in holes) the prior sees a wrong contrast.

    Draw d of image k depends on `seed`, d and k only, not on the batch, up to rounding.

    Args:
        imputer: Fills where y lies.
        prior: On its own device, where the draws are made.
        num_draws: Per image, at most 1024.
        strength: Share of the noise schedule; the larger, the less a draw owes to the imputer.
        num_inference_steps: Steps of each draw.
        seed: Of all draws.
        precision: "auto", "fp32", "bf16" or "fp16".

    Raises:
        BadInput: A setting is out of range, or there are more steps than noise levels.
    """

    imputer: Filling
    prior: Prior
    num_draws: int = 4
    strength: float = 0.3
    num_inference_steps: int = 10
    seed: int = 42
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Check the settings."""
        self._require("num_inference_steps", self.num_inference_steps >= 1, "at least 1")
        self._require("num_draws", 1 <= self.num_draws <= MAX_DRAWS, f"1 to {MAX_DRAWS}")
        self._require("strength", 0 < self.strength <= 1, "above 0, at most 1")
        precisions = ("auto", *PRECISIONS)
        self._require("precision", self.precision in precisions, " or ".join(precisions))
        self._levels()

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean of the draws, (N,1,H,W) in [0,1]; arguments and errors of `draws`."""
        return keep_observed(self.draws(y, mask).mean(0), y, mask)

    @torch.no_grad()
    def draws(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill images num_draws times.

        Args:
            y: Corrupted images, (N,1,H,W) in [0,1].
            mask: Bool, (1,1,H,W) or (N,1,H,W), True = observed.

        Returns:
            (num_draws,N,1,H,W) on y's device; observed pixels are those of y, bit for bit. Their
            standard deviation is not calibrated: it tells what the prior leaves open.

        Raises:
            BadInput: Images of another size than the prior's, or without an observed pixel.
        """
        self._check(y, mask)
        start, seen = self.imputer(y, mask), mask.expand_as(y)
        out = torch.empty(self.num_draws, *y.shape, dtype=y.dtype, device=y.device)
        flat, n = out.flatten(0, 1), len(y)
        firsts = range(0, len(flat), BATCH_SIZE)
        for first in progress(firsts, "posterior", disable=len(firsts) < 2):
            jobs = range(first, min(first + BATCH_SIZE, len(flat)))
            image = torch.tensor([job % n for job in jobs], device=y.device)
            numbers = [MAX_DRAWS * (job % n) + job // n for job in jobs]
            generators = [numbered_generator(self.seed, number) for number in numbers]
            batch = [part[image] for part in (start, y, seen)]
            x = self._draw(*(part.to(self.prior.device) for part in batch), generators)
            flat[first : jobs.stop] = keep_observed(x.to(y), batch[1], batch[2])
        return out

    def _check(self, y: torch.Tensor, mask: torch.Tensor) -> None:
        z = torch.zeros(1, *latent_shape(self.prior), device=self.prior.device)
        size = decode(self.prior.vqvae, z, None).shape[1:]
        if y.shape[1:] != size:
            held, trained = ("×".join(map(str, shape)) for shape in (y.shape[1:], size))
            raise BadInput(f"images of {held}: the prior was trained on {trained}")
        if not mask.flatten(1).any(1).all():
            raise BadInput("an image has no observed pixel", "at least one in each", path="mask")

    def _levels(self) -> tuple[list[int], list[float], str]:
        """Falling times, their alpha-bar (1 after the last, the image), what is predicted."""
        scheduler = make_scheduler("ddim", self.prior.scheduler, self.num_inference_steps)
        times = [round(self.strength * (t + 1)) - 1 for t in scheduler.timesteps.tolist()]
        distinct = times[-1] >= 0 and len(set(times)) == len(times)
        most = f"at most {times[0] + 1}, the noise levels of strength {self.strength}"
        self._require("num_inference_steps", distinct, most)
        alpha_bar = scheduler.alphas_cumprod.double()[times].tolist()
        return times, [*alpha_bar, 1.0], scheduler.config.prediction_type

    def _draw(
        self,
        start: torch.Tensor,
        y: torch.Tensor,
        seen: torch.Tensor,
        generators: list[torch.Generator],
    ) -> torch.Tensor:
        """One draw per image, (B,1,H,W) in y's range; all on the prior's device."""
        top = torch.where(seen, y, torch.nan).flatten(1).float().nanquantile(TOP, dim=1)
        top = top.clamp(min=1e-6).view(-1, 1, 1, 1)
        target = (y / top).clamp(0, 1)
        z0 = self._encode((start / top).clamp(0, 1))
        times, alpha_bar, prediction = self._levels()
        z = forward(z0, alpha_bar[0], generators)
        for t, (a, b) in zip(times, pairwise(alpha_bar), strict=True):
            z0 = self._predict(z, t, a, prediction)
            x = self._decode(z0)
            # the difference of two encodings, so that the first stage's own loss is not added in
            # every step
            z0 = z0 + self._encode(torch.where(seen, target, x)) - self._encode(x)
            z = ancestral_step(z, z0, a, b, generators)
        return top * self._decode(z)

    def _predict(self, z: torch.Tensor, t: int, alpha_bar: float, prediction: str) -> torch.Tensor:
        """Noiseless latents that the denoiser sees in z."""
        with autocast(self.prior.device, self._dtype):
            output = self.prior.unet(z, t).sample.float()
        alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        if prediction == "epsilon":
            return (z - sigma * output) / alpha
        return alpha * z - sigma * output if prediction == "v_prediction" else output

    def _require(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            raise BadInput(f"{name} {getattr(self, name)!r} is not possible", expected)

    @property
    def _dtype(self) -> torch.dtype | None:
        return PRECISIONS[resolve_precision(self.precision, self.prior.device)]

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled latents of x; `autoencoder.encode` picks its own precision, and the CPU."""
        with autocast(self.prior.device, self._dtype):
            z = self.prior.vqvae.encode(2 * x - 1).latent_dist.mean.float()
        return z * self.prior.vqvae.config.scaling_factor

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        return decode(self.prior.vqvae, z / self.prior.vqvae.config.scaling_factor, self._dtype)


def forward(z0: torch.Tensor, alpha_bar: float, generators: list[torch.Generator]) -> torch.Tensor:
    """Bring noiseless z0 (N,C,h,w) to `alpha_bar`. Source: DDPM (arXiv 2006.11239), equation 4."""
    noise = randn_tensor(z0.shape, generators, z0.device)
    return alpha_bar**0.5 * z0 + (1 - alpha_bar) ** 0.5 * noise


def ancestral_step(
    z: torch.Tensor, z0: torch.Tensor, noisy: float, clean: float, generators: list[torch.Generator]
) -> torch.Tensor:
    """Step from z at alpha-bar `noisy`, given its noiseless z0, to the larger alpha-bar `clean`.

    All latents are (N,C,h,w). Source: DDIM (arXiv 2010.02502), equations 12 and 16 with eta 1,
    which is DDPM's posterior. The noise is what z0 leaves of z, as in DDNM.
    """
    epsilon = (z - noisy**0.5 * z0) / (1 - noisy) ** 0.5
    fresh = (1 - clean) / (1 - noisy) * (1 - noisy / clean)
    z = clean**0.5 * z0 + max(1 - clean - fresh, 0) ** 0.5 * epsilon
    return z + fresh**0.5 * randn_tensor(z.shape, generators, z.device) if fresh > 0 else z
