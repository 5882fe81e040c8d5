"""Scores beyond `nogaps.metrics`: colour pictures, and LPIPS and FID where they can be had.

LPIPS and FID need `pip install 'nogaps[study]'` and weights that lie in the folder `checkpoints` of
`torch.hub.get_dir()`; nothing is downloaded here. LPIPS: vgg16-397923af.pth, torchvision's, which
`torchvision.models.vgg16(weights="DEFAULT")` puts there. FID: torch-fidelity's, see
`nogaps.evaluation.realism`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nogaps.evaluation.realism import INCEPTION, Features, frechet_distance, load_inception
from nogaps.metrics import bootstrap, hole_mse, ssim_map
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256

VGG = "vgg16-397923af.pth"  # named after the start of its sha256
Score = float | str  # the number, or "not available (why)"


def whole_scores(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> dict[str, Score]:
    """PSNR, SSIM, LPIPS and FID of whole images as studies of CIFAR-10 give them.

    x_hat, x: (N,3,H,W) in [0,1]; mask bool (N,1,H,W), True = observed. PSNR: of the MSE over all
    images, in dB; SSIM: over the windows that lie within an image; LPIPS: VGG-16; FID: of the
    holes' bounding boxes.
    """
    psnr = float(-10 * torch.log10(((x_hat - x) ** 2).mean().clamp(min=1e-12)))
    ssim = float(_ssim(x_hat, x)[..., 5:-5, 5:-5].mean())
    boxes = (hole_patches(images, mask) for images in (x_hat, x))
    return {"psnr": psnr, "ssim": ssim, "lpips": lpips_vgg(x_hat, x), "fid": fid(*boxes)}


def colour_hole_scores(
    x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, groups: Sequence[str]
) -> dict[str, float | list[float]]:
    """PSNR (dB) and SSIM over the hole of each image, all channels: means, 95 % intervals.

    Arguments as `whole_scores`. Images without a hole do not count; intervals resample groups (N).
    """
    holed = (~mask).flatten(1).any(1)
    kept = [group for group, has in zip(groups, holed.tolist(), strict=True) if has]
    x_hat, x, mask = x_hat[holed], x[holed], mask[holed]
    psnr = -10 * torch.log10(hole_mse(x_hat, x, mask).clamp(min=1e-12))
    hole = (~mask).expand_as(x).float()
    ssim = (_ssim(x_hat, x) * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3))
    row: dict[str, float | list[float]] = {"holes": len(x)}
    for name, values in (("hole_psnr", psnr), ("hole_ssim", ssim)):
        mean, low, high = bootstrap(values.double().numpy(), kept)
        row |= {name: mean, f"{name}_95": [low, high]}
    return row


def _ssim(x_hat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`ssim_map` of each channel, (N,C,H,W)."""
    return ssim_map(x_hat.flatten(0, 1)[:, None], x.flatten(0, 1)[:, None]).reshape(x.shape)


def hole_patches(x: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """The bounding box of each hole, (C,h,w); x (N,C,H,W), mask (N,1,H,W). No hole: left out."""
    patches = []
    for image, observed in zip(x, mask[:, 0], strict=True):
        rows, columns = ((~observed).any(dim).nonzero().flatten().tolist() for dim in (1, 0))
        if rows:
            patches.append(image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return patches


def lpips_vgg(x_hat: torch.Tensor, x: torch.Tensor, batch_size: int = 64) -> Score:
    """Mean LPIPS (arXiv 1801.03924) with VGG-16; x_hat, x (N,1|3,H,W) in [0,1]. Lower is better."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / VGG
    if not weights.exists():
        return _not_available(f"{VGG}: not found, expected in checkpoints of torch's hub cache")
    if not sha256(weights).startswith(weights.stem.split("-")[1]):
        return _not_available(f"{VGG}: damaged, expected torchvision's")
    try:
        import torchvision  # noqa: F401 (torchmetrics has no VGG without it)
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        return _not_available(f"{error}; expected the extra `study`")
    device = pick_device()
    with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
        metric = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=True).to(device)
    for a, b in zip(x_hat.split(batch_size), x.split(batch_size), strict=True):
        metric.update(_colour(a).to(device), _colour(b).to(device))
    return float(metric.compute())


def fid(x_hat: Sequence[torch.Tensor], x: Sequence[torch.Tensor], batch_size: int = 32) -> Score:
    """Fréchet Inception distance (arXiv 1706.08500) between two sets. Lower is better.

    x_hat, x: images (C,h,w) in [0,1] of any sizes, C 1 or 3; each is scaled to Inception's 299×299.
    """
    if min(len(x_hat), len(x)) < 2:
        return _not_available(f"{min(len(x_hat), len(x))} images, two or more needed")
    try:
        space = load_inception(Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION)
    except BadInput as error:
        return _not_available(str(error))
    features = (_features(space, images, batch_size) for images in (x_hat, x))
    return frechet_distance(*features)


def _features(space: Features, images: Sequence[torch.Tensor], batch_size: int) -> np.ndarray:
    rows = []
    for start in range(0, len(images), batch_size):
        batch = [
            F.interpolate(_colour(image[None]), (299, 299), mode="bilinear")
            for image in images[start : start + batch_size]
        ]
        rows.append(space(torch.cat(batch)))
    return np.concatenate(rows)


def _colour(x: torch.Tensor) -> torch.Tensor:
    """(N,1|3,H,W) to (N,3,H,W) in [0,1]."""
    return x.float().clamp(0, 1).expand(-1, 3, -1, -1)


def _not_available(reason: str) -> str:
    """One line; without the place of torch's cache, as results are passed on."""
    text = " ".join(reason.replace(f"{torch.hub.get_dir()}{os.sep}", "").split())
    return f"not available ({text[:200]})"
