"""Filling without a network: linear, biharmonic, kriging."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree
from skimage.restoration import inpaint_biharmonic

NEIGHBOURS = 48  # observed pixels that one hole pixel is kriged from: about a radius of 5
NUGGET = 1e-4  # relative white noise: keeps the linear systems well conditioned
FLOOR = 0.05  # the least deviation, so that a nearly constant image is not blown up

Operator = Callable[[np.ndarray], sparse.csr_matrix]


def observed_moments(y: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each image's observed pixels, (N,1,1,1) fp32 each.

    Args:
        y: Images, (N,1,H,W).
        mask: Bool (1,1,H,W) or (N,1,H,W), True = observed.
    """
    weight = mask.expand_as(y).to(y.dtype)
    n = weight.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = (y * weight).sum((1, 2, 3), keepdim=True) / n
    variance = ((y - mean) ** 2 * weight).sum((1, 2, 3), keepdim=True) / n
    return mean, variance.sqrt().clamp(min=FLOOR)


def keep_observed(x_hat: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return x_hat with observed pixels copied bit for bit from y, hole pixels clipped to [0,1]."""
    return torch.where(mask, y, x_hat.clamp(0, 1))


def _by_mask(mask: torch.Tensor, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Which of `count` images have one mask, bool (count,), and the mask (1,1,H,W); of each."""
    unique, which = torch.unique(mask.flatten(1), dim=0, return_inverse=True)
    for k, flat in enumerate(unique):
        yield (which == k).expand(count), flat.view(1, *mask.shape[1:])


class LinearImputer:
    """Fills holes with one sparse matrix per mask: `x_hat = imputer(y, mask)`.

    It is applied to images standardised by their observed pixels, so that
    f(a*y + b) = a*f(y) + b before clipping.

    Args:
        operator: Gives the (holes, observed) weights of a mask (H,W), bool.
    """

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self._weights: dict[tuple, torch.Tensor] = {}

    def __getstate__(self) -> dict:
        """Leave the weights out of copies: torch cannot copy sparse matrices."""
        return {**self.__dict__, "_weights": {}}

    def weights(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a sparse CSR (H*W, H*W) fp32 on the device of mask (H,W); identity if observed."""
        on_cpu = mask.cpu().numpy()
        key = (on_cpu.shape, on_cpu.tobytes(), str(mask.device))
        if key not in self._weights:
            if len(self._weights) >= 64:  # a stream of ever new masks must not fill the memory
                self._weights.clear()
            self._weights[key] = self._square(on_cpu).to(mask.device)
        return self._weights[key]

    def _square(self, mask: np.ndarray) -> torch.Tensor:
        observed = np.flatnonzero(mask)
        holes = np.flatnonzero(~mask)
        rows = self.operator(mask).tocoo()
        i = np.concatenate([holes[rows.row], observed])
        j = np.concatenate([observed[rows.col], observed])
        v = np.concatenate([rows.data, np.ones(len(observed))]).astype(np.float32)
        matrix = sparse.csr_matrix((v, (i, j)), shape=(mask.size, mask.size))
        with warnings.catch_warnings():
            # torch calls its own format beta, and its checks, which are asked for here, optional
            warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
            return torch.sparse_csr_tensor(
                torch.from_numpy(matrix.indptr.astype(np.int64)),
                torch.from_numpy(matrix.indices.astype(np.int64)),
                torch.from_numpy(matrix.data),
                size=matrix.shape,
                check_invariants=True,
            )

    def fill(self, z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Apply the weights to images z (N,1,H,W) as they are; mask (1,1,H,W) or (N,1,H,W)."""
        if len(mask) == 1:
            flat = z.float().reshape(len(z), -1)
            weights = self.weights(mask[0, 0].to(z.device))
            return (weights @ flat.T.contiguous()).T.reshape(z.shape)
        out = torch.empty_like(z, dtype=torch.float32)
        for rows, one in _by_mask(mask, len(z)):
            out[rows] = self.fill(z[rows], one)
        return out

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill y (N,1,H,W) in [0,1]; mask bool (1,1,H,W) or (N,1,H,W), True = observed."""
        mean, std = observed_moments(y, mask)
        return keep_observed(mean + std * self.fill((y - mean) / std, mask), y, mask)


def autocovariance(x: torch.Tensor, lag: int = 24) -> torch.Tensor:
    """Estimate the stationary covariance of images that are centred one by one.

    Each offset is averaged over the pixel pairs it has: the zero-padded estimate, which divides by
    all pixels, costs kriging 0.1 dB.

    Args:
        x: Images, (N,1,H,W).
        lag: The largest offset, in pixels.

    Returns:
        (2*lag+1, 2*lag+1), 1 at its centre; entry [lag+dy, lag+dx] belongs to the offset (dy,dx).
    """
    _, _, height, width = x.shape
    z = (x - x.mean((1, 2, 3), keepdim=True)).double()

    def correlate(images: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(images, s=(2 * height, 2 * width)).abs().square()
        return torch.fft.irfft2(spectrum.mean((0, 1)), s=(2 * height, 2 * width))

    cov = correlate(z) / correlate(torch.ones_like(z[:1])).clamp(min=1)
    lag = min(lag, height - 1, width - 1)
    cov = torch.roll(cov, (lag, lag), (0, 1))[: 2 * lag + 1, : 2 * lag + 1]
    return (cov / cov[lag, lag]).float()


def kriging_operator(covariance: torch.Tensor) -> Operator:
    """Return the operator of simple kriging, of each hole pixel from its nearest observed pixels.

    Source: Matheron's simple kriging, weights = C_oo^-1 c_oh (Cressie, Statistics for Spatial Data,
    section 3.2); any mask, also with wide holes.

    Args:
        covariance: From `autocovariance`.
    """
    cov = covariance.double().numpy()
    lag = cov.shape[0] // 2

    def covariance_at(offset: np.ndarray) -> np.ndarray:
        beyond = (np.abs(offset) > lag).any(-1)
        clipped = np.clip(offset, -lag, lag) + lag
        return np.where(beyond, 0.0, cov[clipped[..., 0], clipped[..., 1]])

    def operator(mask: np.ndarray) -> sparse.csr_matrix:
        observed, holes = np.argwhere(mask), np.argwhere(~mask)
        k = min(NEIGHBOURS, len(observed))
        if not len(holes):
            return sparse.csr_matrix((0, len(observed)))
        _, near = cKDTree(observed).query(holes, k=k)
        near = near.reshape(len(holes), k)
        data = np.empty((len(holes), k))
        for first in range(0, len(holes), 4096):  # bounded memory for large images
            block = slice(first, first + 4096)
            points = observed[near[block]]
            system = covariance_at(points[:, :, None] - points[:, None])
            system = system + NUGGET * np.eye(k)
            target = covariance_at(holes[block][:, None] - points)
            data[block] = np.linalg.solve(system, target[..., None])[..., 0]
        rows = np.repeat(np.arange(len(holes)), k)
        shape = (len(holes), len(observed))
        return sparse.csr_matrix((data.ravel(), (rows, near.ravel())), shape=shape)

    return operator


def linear_operator(mask: np.ndarray) -> sparse.csr_matrix:
    """Return weights (holes, observed) of linear interpolation along the rows of a mask (H,W).

    Beyond the ends of a row they take its nearest observed pixel; in a row without observed
    pixels, the nearest of the image.
    """
    holes, columns = np.argwhere(~mask), np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
    absent = mask.shape[1]
    left = np.maximum.accumulate(np.where(mask, columns, -1), 1)[~mask]
    right = np.minimum.accumulate(np.where(mask, columns, absent)[:, ::-1], 1)[:, ::-1][~mask]
    left, right = np.where(left < 0, right, left), np.where(right == absent, left, right)
    share = (holes[:, 1] - left) / np.maximum(right - left, 1) * (left < right)
    ends = [(holes[:, 0], np.minimum(end, absent - 1)) for end in (left, right)]
    number = np.cumsum(mask).reshape(mask.shape) - 1  # of the observed pixels
    first, last = (np.where(left == absent, 0, number[end]) for end in ends)
    if (empty := left == absent).any():
        first[empty] = last[empty] = cKDTree(np.argwhere(mask)).query(holes[empty])[1]
    rows = np.tile(np.arange(len(holes)), 2)
    entries = np.concatenate([1 - share, share]), (rows, np.concatenate([first, last]))
    return sparse.csr_matrix(entries, shape=(len(holes), np.count_nonzero(mask)))


def linear() -> LinearImputer:
    """Return linear interpolation along the rows."""
    return LinearImputer(linear_operator)


def kriging(training_images: torch.Tensor) -> LinearImputer:
    """Return kriging with the covariance of training_images (N,1,H,W)."""
    return LinearImputer(kriging_operator(autocovariance(training_images)))


def biharmonic(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Fill by scikit-image's biharmonic inpainting (Damelin and Hoang 2018).

    Args:
        y: Images, (N,1,H,W) in [0,1].
        mask: Bool (1,1,H,W) or (N,1,H,W), True = observed; images of one mask go together.

    Returns:
        x_hat, (N,1,H,W), on y's device.
    """
    x_hat = y.detach().cpu().numpy().astype(np.float64)
    for rows, one in _by_mask(mask.cpu(), len(y)):
        rows, holes = rows.numpy(), ~one[0, 0].numpy()
        if holes.any():
            stack = np.moveaxis(x_hat[rows, 0], 0, -1)
            x_hat[rows, 0] = np.moveaxis(inpaint_biharmonic(stack, holes, channel_axis=-1), -1, 0)
    return keep_observed(torch.from_numpy(x_hat).to(y), y, mask)
