"""U-Nets with FRM and ASPP-FRM, the coursework's network, and the plain trainer of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks.recipes import COURSEWORK, CourseworkNet, train_plain, whole_image_mse
from nogaps.Assessment import corrupt
from nogaps.imputers.refinement import (
    REFINEMENTS,
    RefinedUNet,
    build_refined_unet,
    pad_to_multiple,
)
from nogaps.runtime.files import BadInput

KINDS = pytest.mark.parametrize("kind", list(REFINEMENTS))
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


# the networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "millions"), [("frm", 13.9), ("aspp-frm", 11.5)])
def test_size_is_the_studys(kind: str, millions: float) -> None:
    network = build_refined_unet(kind, 3)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert [block.convs[1][0].out_channels for block in network.encoder] == [64, 128, 256]
    assert network.bottleneck[1][0].out_channels == 512
    assert network.head.kernel_size == (1, 1)


def test_coursework_has_the_published_number_of_weights() -> None:
    weights = sum(p.numel() for p in CourseworkNet().parameters())
    assert weights / 1e6 == pytest.approx(21.6, abs=0.05)


@KINDS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own_masks", [False, True])
def test_observed_pixels_are_bit_exact(kind: str, channels: int, own_masks: bool) -> None:
    x, mask = pictures(3, channels, (13, 18), own_masks)  # no multiple of 4
    y = corrupt(x, mask)
    network = build_refined_unet(kind, channels, **SMALL).eval()
    with torch.no_grad():
        network.head.bias.fill_(0.4)
        x_hat = network(y, mask)
    seen = mask.expand_as(x)
    assert x_hat.shape == x.shape and x_hat.dtype == torch.float32
    assert torch.equal(x_hat[seen], y[seen])
    assert x_hat.min() >= 0 and x_hat.max() <= 1
    assert (x_hat[~seen] > 0).any()


@KINDS
def test_training_keeps_observed_pixels_and_gradients(kind: str) -> None:
    x, mask = pictures(2, 1, (16, 16))
    network = build_refined_unet(kind, **SMALL).train()
    x_hat = network(corrupt(x, mask), mask)
    assert torch.equal(x_hat[mask.expand_as(x)], x[mask.expand_as(x)])
    ((x_hat - x) ** 2).mean().backward()
    silent = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    # a convolution's bias before BatchNorm is subtracted again
    assert not [name for name in silent if not name.endswith("0.bias")]


@KINDS
def test_refinement_passes_observed_features_and_corrects_the_others(kind: str) -> None:
    refine = REFINEMENTS[kind](8).eval()
    h = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    share = torch.ones(1, 1, 6, 6)
    share[..., 2:4, 2:4] = 0
    hole = (share == 0).expand_as(h)
    with torch.no_grad():
        out, none_seen = refine(h, share), refine(h, torch.zeros_like(share))
    assert torch.equal(out[~hole], h[~hole])
    assert (out[hole] != h[hole]).all()
    assert (out[hole] != none_seen[hole]).any(), "the mask around the hole was not looked at"


def test_reach_of_the_estimates() -> None:
    """FRM sees two pixels far, ASPP-FRM the whole map."""
    h = torch.zeros(1, 32, 24, 24)
    far = h.clone()
    far[..., 0, 0] = 100.0
    share = torch.zeros(1, 1, 24, 24)
    share[..., 0, 0] = 1

    def changed(kind: str) -> torch.Tensor:
        torch.manual_seed(0)
        refine = REFINEMENTS[kind](32).eval()
        with torch.no_grad():
            return ((refine(h, share) - refine(far, share)).abs().amax((0, 1)) > 0).nonzero()

    with torch.random.fork_rng():
        assert changed("frm").max() == 2
        assert changed("aspp-frm").max() == 23


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


def test_colour_stays_in_range_and_grey_is_not_squeezed() -> None:
    for channels, bounded in ((3, True), (1, False)):
        network = build_refined_unet("frm", channels, **SMALL).eval()
        with torch.no_grad():
            network.head.weight.mul_(100)
            x, mask = pictures(2, channels, (16, 16))
            out = network.predict(corrupt(x, mask), mask)
        assert (out.min() >= 0 and out.max() <= 1) == bounded


def test_seed_gives_the_weights_and_leaves_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (build_refined_unet("frm", **SMALL, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.head.weight, b.head.weight)
    assert not torch.equal(a.head.weight, c.head.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_config_rebuilds_the_network() -> None:
    a = build_refined_unet("aspp-frm", 3, **SMALL)
    b = RefinedUNet(**a.config)
    assert b.load_state_dict(a.state_dict()).missing_keys == []


def test_what_cannot_be_built_is_named() -> None:
    with pytest.raises(ValueError, match="'fnm': expected frm or aspp-frm"):
        build_refined_unet("fnm")
    with pytest.raises(ValueError, match="2 channels: expected 1 or 3"):
        build_refined_unet("frm", 2)
    with pytest.raises(ValueError, match="expected multiples of 8"):
        build_refined_unet("aspp-frm", widths=(8, 12))


@KINDS
def test_gradients_are_finite_in_dirty_memory(kind: str) -> None:
    """Dilated convolutions in bf16 with other than 16, 32, ... channels give NaN here."""
    x, mask = pictures(4, 3, (32, 32))
    network = build_refined_unet(kind, 3, **SMALL).train()
    dirt = [torch.full((1 << 18,), float("nan")) for _ in range(8)]
    del dirt
    network.predict(corrupt(x, mask), mask).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_padding_repeats_the_border() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[..., :2, :3], x) and padded[0, 0, 3, 3] == 5
    assert pad_to_multiple(padded, 4) is padded


# the trainer -----------------------------------------------------------------------------------


def test_stop_and_resume_gives_the_same_bits(tmp_path: Path) -> None:
    straight, resumed = (CourseworkNet((4, 8), 8, seed=3) for _ in range(2))  # has dropout
    log = train(tmp_path / "a.safetensors", straight, 3)
    train(tmp_path / "b.safetensors", CourseworkNet((4, 8), 8, seed=3), 1)
    again = train(tmp_path / "b.safetensors", resumed, 3)
    assert [row["loss"] for row in again] == [row["loss"] for row in log]
    assert [row["epoch"] for row in again] == [1, 2, 3]
    assert again[0]["seconds"] < again[1]["seconds"] < again[2]["seconds"]
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_other_settings_start_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    train(path, CourseworkNet((4,), 8), 2)
    for options in ({"seed": 1}, {"learning_rate": 1e-4}, {"whole_image_loss": False}):
        assert len(train(path, CourseworkNet((4,), 8), 1, **options)) == 1
    with pytest.raises(BadInput, match="holds 1 epochs, expected at most 0"):
        train(path, CourseworkNet((4,), 8), 0, **options)


def test_training_learns(tmp_path: Path) -> None:
    network = build_refined_unet("aspp-frm", **SMALL)
    log = train(tmp_path / "s.safetensors", network, 15)
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    assert not network.training


def test_whole_image_loss_is_of_the_networks_own_output(tmp_path: Path) -> None:
    """With the observed pixels copied into it the error could not fall below the hole's."""
    x, mask = pictures(12, 1, (16, 16))
    pairs = TensorDataset(corrupt(x, mask), x)
    whole, hole = (build_refined_unet("frm", **SMALL) for _ in range(2))
    train_plain(whole, pairs, mask, 15, checkpoint=tmp_path / "w", batch_size=4)
    settings = {"batch_size": 4, "whole_image_loss": False}
    train_plain(hole, pairs, mask, 15, checkpoint=tmp_path / "h", **settings)
    assert whole_image_mse(whole, pairs, mask) < whole_image_mse(hole, pairs, mask)


def test_whole_image_mse_is_the_mean_over_all_pixels() -> None:
    class Black(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(()))

        def predict(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(y)

    x, mask = pictures(5, 1, (4, 4))
    found = whole_image_mse(Black(), TensorDataset(corrupt(x, mask), x), mask)
    assert found == pytest.approx(float((x**2).mean()))


def test_time_limit_and_score(tmp_path: Path) -> None:
    path, scored = tmp_path / "s.safetensors", []

    def score(network: nn.Module) -> float:
        assert not network.training
        scored.append(1)
        return 7.0

    log = train(path, CourseworkNet((4,), 8), 9, seconds_limit=0.0, score=score)
    assert len(log) == len(scored) == 1 and log[0]["score"] == 7.0
    assert len(train(path, CourseworkNet((4,), 8), 9, seconds_limit=0.0)) == 1, "limit forgotten"


def test_pairs_with_masks_of_their_own(tmp_path: Path) -> None:
    x, mask = pictures(8, 3, (16, 16), own_masks=True)
    pairs = TensorDataset(corrupt(x, mask), x, mask)
    path = tmp_path / "s.safetensors"
    network = build_refined_unet("frm", 3, **SMALL)
    log = train_plain(network, pairs, None, 1, checkpoint=path, whole_image_loss=False)
    assert 0 < log[0]["loss"] < 1


def test_coursework_keeps_no_observed_pixel_and_runs_at_any_size(tmp_path: Path) -> None:
    network = CourseworkNet((4, 8), 8)
    train(tmp_path / "s.safetensors", network, 1, **COURSEWORK | {"batch_size": 4})
    x, mask = pictures(2, 1, (10, 7))
    with torch.no_grad():
        x_hat = network(corrupt(x, mask), mask)
    seen = mask.expand_as(x)
    assert x_hat.shape == x.shape and not torch.equal(x_hat[seen], x[seen])
    assert x_hat.min() >= 0 and x_hat.max() <= 1


def test_global_generator_is_untouched(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train(tmp_path / "s.safetensors", CourseworkNet((4,), 8), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
