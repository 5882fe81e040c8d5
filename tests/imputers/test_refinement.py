"""U-Nets with FRM and ASPP-FRM, the coursework's network, and the plain trainer of both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.recipes import COURSEWORK, CourseworkNet, train_plain
from nogaps.Assessment import corrupt
from nogaps.imputers.refinement import (
    CORRECTIONS,
    PLAIN,
    RefinedUNet,
    Refinement,
    build_refined_unet,
    pad_to_multiple,
)

KINDS = pytest.mark.parametrize("kind", list(CORRECTIONS))
SMALL = {"widths": (8, 16), "bottleneck": 16}


def pictures(
    n: int, channels: int, size: tuple[int, int], own_masks: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, channels, *size, generator=generator)
    mask = torch.rand(n if own_masks else 1, 1, *size, generator=generator) > 0.4
    return x, mask


def train(path: Path, network: nn.Module, epochs: int, **options: object) -> list[dict]:
    x, mask = pictures(12, 1, (16, 16))
    settings = {"checkpoint": path, "batch_size": 4, **options}
    return train_plain(network, TensorDataset(corrupt(x, mask), x), mask, epochs, **settings)


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (lambda: build_refined_unet("frm", 3), 13.9),
        (lambda: build_refined_unet("aspp-frm", 3), 11.5),
        (lambda: build_refined_unet(PLAIN, 3, (80, 160, 320), 640), 12.0),
        (CourseworkNet, 21.6),
    ],
)
def test_sizes_are_the_published_ones(build: Callable[[], nn.Module], millions: float) -> None:
    weights = sum(p.numel() for p in build().parameters())
    assert weights / 1e6 == pytest.approx(millions, abs=0.05)


@KINDS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own_masks", [False, True])
def test_observed_pixels_are_bit_exact(kind: str, channels: int, own_masks: bool) -> None:
    x, mask = pictures(3, channels, (13, 18), own_masks)  # no multiple of 4: the border is repeated
    y, first = corrupt(x, mask), build_refined_unet(kind, channels, **SMALL)
    network = RefinedUNet(**first.config).eval()
    network.load_state_dict(first.state_dict())
    with torch.no_grad():
        network.head.weight.mul_(100)
        x_hat, whole = network(y, mask), network.predict(y, mask)
    seen, padded = mask.expand_as(x), pad_to_multiple(y, 4)
    assert x_hat.shape == x.shape and x_hat.dtype == torch.float32
    assert torch.equal(x_hat[seen], y[seen])
    assert x_hat.min() >= 0 and x_hat.max() <= 1 and (x_hat[~seen] > 0).any()
    bounded = bool(whole.min() >= 0 and whole.max() <= 1)
    assert bounded == (channels == 3), "colour leaves through a sigmoid, grey as it is"
    assert torch.equal(padded[..., 12:, 17:], y[..., 12:, 17:].expand(-1, -1, 4, 3))


@KINDS
@pytest.mark.parametrize("channels", [1, 3])
def test_training_keeps_observed_pixels_and_gradients(kind: str, channels: int) -> None:
    x, mask = pictures(4, channels, (32, 32))
    network = build_refined_unet(kind, channels, **SMALL).train()
    # PyTorch's dilated convolutions in bf16 give NaN in memory that is not clean, save of widths
    # that are multiples of 8
    dirt = [torch.full((1 << 18,), float("nan")) for _ in range(8)]
    del dirt
    x_hat = network(corrupt(x, mask), mask)
    assert torch.equal(x_hat[mask.expand_as(x)], x[mask.expand_as(x)])
    ((x_hat - x) ** 2).mean().backward()
    for name, parameter in network.named_parameters():
        gradient = parameter.grad.abs().sum()
        # a convolution's bias before BatchNorm is subtracted again
        assert gradient.isfinite() and (gradient > 0 or name.endswith("0.bias")), name


@pytest.mark.parametrize(("kind", "reach"), [("frm", 2), ("aspp-frm", 23)])
def test_refinement_corrects_what_is_not_observed(kind: str, reach: int) -> None:
    """FRM sees two pixels far, ASPP-FRM the whole map."""
    generator = torch.Generator().manual_seed(0)
    h, share = torch.randn(2, 32, 24, 24, generator=generator), torch.ones(1, 1, 24, 24)
    share[..., :20, :20] = 0
    far = h.clone()
    far[..., 0, 0] = 100.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        refine = Refinement(kind, 32).eval()
    with torch.no_grad():
        out, unseen = refine(h, share), refine(h, 0 * share)
        moved = (refine(far, 0 * share) - unseen).abs().amax((0, 1)) > 0
    hole = (share == 0).expand_as(h)
    assert torch.equal(out[~hole], h[~hole]) and (out[hole] != h[hole]).all()
    assert (out[hole] != unseen[hole]).any(), "the mask around the hole was not looked at"
    assert moved.nonzero().max() == reach


def test_mask_reaches_the_decoder_as_an_average() -> None:
    network = build_refined_unet("frm", **SMALL).eval()
    shares = []
    for block in network.decoder:
        block.refine.register_forward_hook(lambda _, inputs, __: shares.append(inputs[1]))
    x, _ = pictures(1, 1, (8, 8))
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    mask[..., ::2] = False
    with torch.no_grad():
        network(x, mask)
    coarse, fine = shares
    assert torch.equal(fine, mask.float())
    assert coarse.shape == (1, 1, 4, 4) and torch.equal(coarse, torch.full_like(coarse, 0.5))


@pytest.mark.parametrize("kind", [PLAIN, *CORRECTIONS])
def test_a_residual_is_added_in_the_hole_to_what_is_interpolated(kind: str) -> None:
    x, mask = pictures(3, 3, (13, 18))
    network = build_refined_unet(kind, 3, **SMALL, residual=True).eval()
    with torch.no_grad():
        assert torch.equal(network(x, mask), x), "untrained, it adds nothing"
        network.head.bias.fill_(3.0)
        whole, hole = network.predict(x, mask), ~mask.expand_as(x)
        assert torch.equal(whole[~hole], x[~hole]) and (whole[hole] == x[hole] + 3).all()
        assert network(x, mask).max() == 1, "the hole is clipped"
        network.head.weight.fill_(1.0)
        assert not torch.equal(network.predict(x, mask)[hole], whole[hole])
        other = network.predict(x, mask & (torch.arange(18) > 3))[..., 6:]
        assert not torch.equal(other, network.predict(x, mask)[..., 6:]), "it sees the mask"


def test_what_cannot_be_built_is_named() -> None:
    for words, arguments in {
        "'fnm': expected plain or frm or aspp-frm": ("fnm",),
        "2 channels: expected 1 or 3": ("frm", 2),
        "expected multiples of 8": ("aspp-frm", 1, (8, 12)),
    }.items():
        with pytest.raises(ValueError, match=words):
            build_refined_unet(*arguments)


def test_stop_and_resume_gives_the_same_bits(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    straight, stopped, resumed = (CourseworkNet((4, 8), 8, seed=3) for _ in range(3))  # has dropout
    log = train(tmp_path / "a.safetensors", straight, 3)
    train(tmp_path / "b.safetensors", stopped, 1)
    again = train(tmp_path / "b.safetensors", resumed, 3)
    assert [row["loss"] for row in again] == [row["loss"] for row in log]
    assert [row["epoch"] for row in again] == [1, 2, 3]
    assert again[0]["seconds"] < again[1]["seconds"] < again[2]["seconds"]
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    for options in ({"seed": 1}, {"learning_rate": 1e-4}, {"batch_size": 3}):
        shutil.copyfile(tmp_path / "a.safetensors", tmp_path / "c.safetensors")
        fresh = train(tmp_path / "c.safetensors", CourseworkNet((4, 8), 8), 1, **options)
        assert len(fresh) == 1, "work with other settings was continued"


def test_training_lowers_the_loss_also_with_a_mask_for_each_image(tmp_path: Path) -> None:
    network, (x, mask) = build_refined_unet("frm", **SMALL), pictures(12, 1, (16, 16), True)
    pairs, options = TensorDataset(corrupt(x, mask), x, mask), {"learning_rate": 1e-2}
    log = train_plain(network, pairs, None, 6, checkpoint=tmp_path / "w", batch_size=4, **options)
    assert 0 < log[-1]["loss"] < 0.6 * log[0]["loss"] and not network.training


def test_coursework_fills_whole_images_of_any_size(tmp_path: Path) -> None:
    network, (x, mask) = CourseworkNet((4, 8), 8), pictures(2, 1, (10, 7))
    train(tmp_path / "s.safetensors", network, 1, **COURSEWORK | {"batch_size": 4})
    y, seen = corrupt(x, mask), mask.expand_as(x)
    with torch.no_grad():
        x_hat = network(y, mask)
    assert x_hat.shape == x.shape and not torch.equal(x_hat[seen], x[seen])
    assert x_hat.min() >= 0 and x_hat.max() <= 1


def test_time_limit_and_score(tmp_path: Path) -> None:
    path, scored = tmp_path / "s.safetensors", []

    def score(network: nn.Module) -> float:
        scored.append(network.training)
        return 7.0

    log = train(path, CourseworkNet((4,), 8), 9, seconds_limit=0.0, score=score)
    assert len(log) == 1 and scored == [False] and log[0]["score"] == 7.0
    assert len(train(path, CourseworkNet((4,), 8), 9, seconds_limit=0.0)) == 1, "limit forgotten"
