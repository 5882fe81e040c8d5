"""The loss of the denoiser against the definition of what it predicts."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

from nogaps.prior.autoencoder import build_autoencoder, reconstruct, train_autoencoder
from nogaps.prior.diffusion import (
    FORWARD,
    build_denoiser,
    diffusion_loss,
    save_prior,
    train_diffusion,
)
from nogaps.prior.loading import load_prior
from nogaps.prior.sampling import generate
from nogaps.prior.training import Schedule
from nogaps.runtime.errors import BadInput


def test_a_denoiser_that_knows_the_answer_has_no_loss() -> None:
    """z = α x0 + σ ε, v = α ε - σ x0."""
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(8, 2, 4, 4, generator=generator)

    def oracle(z: torch.Tensor, t: torch.Tensor) -> SimpleNamespace:
        level = FORWARD.alphas_cumprod[t].view(-1, 1, 1, 1)
        alpha, sigma = level.sqrt(), (1 - level).sqrt()
        return SimpleNamespace(sample=alpha * (z - alpha * x0) / sigma - sigma * x0)

    assert float(diffusion_loss(oracle, x0, generator)["loss"]) < 1e-4


@pytest.mark.parametrize("size", [(48, 80), (256, 128)])
def test_priors_of_images_that_are_not_square_load_in_diffusers(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Every part alone; the lines of docs/prior.md sample from them."""
    stage, unet = (
        build_autoencoder((8, 8, 8), 4),
        build_denoiser(4, (size[0] // 4, size[1] // 4), (16, 32)),
    )
    save_prior(tmp_path / "prior", stage, unet, FORWARD.config)
    boxes = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "prior.md").read_text(), re.S)
    (code,) = (box for box in boxes if "subfolder" in box)
    names: dict = {}
    exec(code.replace("runs/mine/refined", f"{tmp_path}/prior").replace("(40)", "(2)"), names)
    assert names["images"].shape == (4, 1, *size) and names["images"].isfinite().all()
    (x,) = generate(2, 2, 2, prior=load_prior(tmp_path / "prior", torch.device("cpu")))
    assert x.shape == (2, 1, *size)


@pytest.mark.parametrize("size", [(64, 50), (20, 28)])
def test_sizes_that_cannot_be_halved_are_one_line(tmp_path: Path, size: tuple[int, int]) -> None:
    images = np.ones((2, 2 * size[0], 2 * size[1]), np.uint8)
    split, path = np.array(["train", "val"]), tmp_path / "f.npz"
    np.savez(path, images=images, split=split, group=split)
    for stage in (train_autoencoder, train_diffusion):
        with pytest.raises(BadInput, match=rf"f.npz: holds images of {size[0]}×{size[1]} to train"):
            stage([path], tmp_path / "out", Schedule(1))
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="images of 30×32: the first stage turns them into 28×32"):
        reconstruct(build_autoencoder((8, 8, 8), 4), torch.rand(1, 1, 30, 32))
