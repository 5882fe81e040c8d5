"""Scores beyond `nogaps.metrics`: colour pictures, and LPIPS and FID where they can be had.

LPIPS and FID need `pip install 'nogaps[study]'` and weights that lie in the folder `checkpoints` of
`torch.hub.get_dir()`; nothing is downloaded here. LPIPS: vgg16-397923af.pth, torchvision's, which
`torchvision.models.vgg16(weights="DEFAULT")` puts there. FID: torch-fidelity's, see
`nogaps.evaluation.realism`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nogaps.evaluation.realism import INCEPTION, frechet_distance, load_inception
from nogaps.metrics import bootstrap, hole_mse, ssim_map
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput

VGG = "vgg16-397923af.pth"
Score = float | str  # the number, or "not available (why)"


def whole_scores(x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> dict[str, Score]:
    """Return scores of whole images as studies of CIFAR-10 give them.

    PSNR is of the MSE over all images, in dB; SSIM over the windows that lie within an image; LPIPS
    with VGG-16; FID of the holes' bounding boxes.

    Args:
        x_hat: Filled images (N,3,H,W) in [0,1].
        x: Clean images of the same shape.
        mask: bool (N,1,H,W), True = observed.
    """
    psnr = float(-10 * torch.log10(((x_hat - x) ** 2).mean().clamp(min=1e-12)))
    ssim = float(_ssim(x_hat, x)[..., 5:-5, 5:-5].mean())
    boxes = (hole_patches(images, mask) for images in (x_hat, x))
    return {"psnr": psnr, "ssim": ssim, "lpips": lpips_vgg(x_hat, x), "fid": fid(*boxes)}


def holed(mask: torch.Tensor) -> torch.Tensor:
    """Return which masks (N,1,H,W) have missing pixels, and observed ones to fill them from."""
    observed = mask.flatten(1)
    return observed.any(1) & ~observed.all(1)


def colour_hole_scores(
    x_hat: torch.Tensor, x: torch.Tensor, mask: torch.Tensor
) -> dict[str, float | list[float]]:
    """Return PSNR (dB) and SSIM over the hole of each image, all channels: means, 95 % intervals.

    Arguments as `whole_scores`. Only images that are `holed` count.
    """
    kept = holed(mask)
    x_hat, x, mask = x_hat[kept], x[kept], mask[kept]
    psnr = -10 * torch.log10(hole_mse(x_hat, x, mask).clamp(min=1e-12))
    hole = (~mask).expand_as(x).float()
    ssim = (_ssim(x_hat, x) * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3))
    row: dict[str, float | list[float]] = {"holes": len(x)}
    for name, values in (("hole_psnr", psnr), ("hole_ssim", ssim)):
        mean, low, high = bootstrap(values.double().numpy())
        row |= {name: mean, f"{name}_95": [low, high]}
    return row


def _ssim(x_hat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`ssim_map` of each channel, (N,C,H,W)."""
    return ssim_map(x_hat.flatten(0, 1)[:, None], x.flatten(0, 1)[:, None]).reshape(x.shape)


def hole_patches(x: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """Return the bounding box of each hole, (C,h,w); x (N,C,H,W), mask (N,1,H,W)."""
    patches = []
    for image, observed in zip(x, mask[:, 0], strict=True):
        rows, columns = ((~observed).any(dim).nonzero().flatten().tolist() for dim in (1, 0))
        if rows:
            patches.append(image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return patches


def lpips_vgg(x_hat: torch.Tensor, x: torch.Tensor) -> Score:
    """Return the mean LPIPS (arXiv 1801.03924) of VGG-16, (N,3,H,W) in [0,1]; less is better."""
    if not (Path(torch.hub.get_dir()) / "checkpoints" / VGG).exists():
        return f"not available ({VGG}: not found, expected in checkpoints of torch's hub cache)"
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
            metric = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=True)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        return f"not available ({error}; expected the extra `study`)"
    device = pick_device()
    metric = metric.to(device)
    for a, b in zip(x_hat.clamp(0, 1).split(64), x.split(64), strict=True):
        metric.update(a.to(device), b.to(device))
    return float(metric.compute())


def fid(x_hat: Sequence[torch.Tensor], x: Sequence[torch.Tensor]) -> Score:
    """Return the Fréchet Inception distance (arXiv 1706.08500) of two sets; less is better.

    x_hat, x: images (3,h,w) in [0,1] of any sizes; each is scaled to Inception's 299×299.
    """
    if min(len(x_hat), len(x)) < 2:
        return "not available (two images or more are needed)"
    try:
        space = load_inception(Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION)
    except BadInput:  # whose line names a path of this machine
        return f"not available ({INCEPTION}: missing in torch's hub cache, or damaged)"
    features = []
    for images in (x_hat, x):
        large = (F.interpolate(one[None], (299, 299), mode="bilinear") for one in images)
        features.append(np.concatenate([space(one.clamp(0, 1)) for one in large]))
    return frechet_distance(*features)
