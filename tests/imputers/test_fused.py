"""Layers run as one operation give what they give one by one, and change nothing else."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import harness
from nogaps.Assessment import Imputer, UNet, fill
from nogaps.imputers import fused
from nogaps.imputers.fused import FusedBlock, PairwiseMax, fuse
from nogaps.imputers.loading import load_imputer

PRECISIONS = list(dict.fromkeys([harness.native_precision(), "fp32"]))
ROUNDING = {"fp32": 1e-5, "bf16": 2e-2}  # of features of about 1
needs_it = pytest.mark.skipif(
    not fused.is_available(torch.float32), reason="this PyTorch cannot fuse them"
)


class Operations(TorchDispatchMode):
    """Counts what is computed, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def unet() -> UNet:
    """A small U-Net in eval mode whose BatchNorm is not the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = UNet(2, (8, 16), 32, bottleneck_dropout=0.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.2, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.uniform_(module.bias, -1, 1, generator=generator)
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def features(*shape: int) -> torch.Tensor:
    """Input of a U-Net, as an imputer gives it."""
    h = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return h.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def run(net: nn.Module, h: torch.Tensor, precision: str) -> torch.Tensor:
    """What the network makes of h in a precision."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return net(h).float()


@needs_it
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 2, 64, 64), (3, 2, 8, 40), (5, 2, 100, 12)])
def test_same_as_layer_by_layer(unet: UNet, shape: tuple[int, ...], precision: str) -> None:
    h, other = features(*shape), fuse(copy.deepcopy(unet))
    plain, found = run(unet, h, precision), run(other, h, precision)
    assert found.shape == plain.shape
    assert float((found - plain).abs().max()) < ROUNDING[precision]
    assert float(plain.std()) > 0.05, "nothing to compare"


@needs_it
def test_no_pass_for_batchnorm_activation_or_dropout_remains(unet: UNet) -> None:
    counts = []
    for net in (unet, fuse(copy.deepcopy(unet))):
        with torch.no_grad(), Operations() as found:
            net(features(1, 2, 8, 8))
        counts.append(found.counts)
    plain, fast = counts
    blocks = 9  # two at each of two levels, down and up, and one at the bottom
    assert plain["silu"] == fast["_convolution_pointwise"] == blocks
    assert any("norm" in name for name in plain)
    assert not any(part in name for name in fast for part in ("norm", "silu", "dropout"))


def test_weights_keep_their_names_and_copies_their_results(unet: UNet) -> None:
    other, h = fuse(copy.deepcopy(unet)), features(2, 2, 16, 16)
    once = run(other, h, "fp32")
    assert {k: v.shape for k, v in other.state_dict().items()} == {
        k: v.shape for k, v in unet.state_dict().items()
    }
    assert torch.equal(run(copy.deepcopy(other), h, "fp32"), once)


def test_changed_weights_count_at_once(unet: UNet) -> None:
    other, h = fuse(copy.deepcopy(unet)), features(2, 2, 16, 16)
    run(other, h, "fp32")
    for net in (unet, other):
        net.encoder[0].convs[0][0].weight.mul_(1.5)
        net.bottleneck[1].running_mean.add_(0.5)
    torch.testing.assert_close(run(other, h, "fp32"), run(unet, h, "fp32"), atol=1e-5, rtol=0)
    doubled = {name: 1.1 * value for name, value in unet.state_dict().items()}
    for net in (unet, other):
        net.load_state_dict(doubled)
    torch.testing.assert_close(run(other, h, "fp32"), run(unet, h, "fp32"), atol=1e-4, rtol=0)


def test_training_goes_layer_by_layer_to_the_same_bits(unet: UNet) -> None:
    losses = []
    for net in (unet, fuse(copy.deepcopy(unet))):
        net.train().requires_grad_(True)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # of dropout
            loss = net(features(4, 2, 16, 16)).square().mean()
        loss.backward()
        losses.append((loss.detach(), *(p.grad for p in net.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_gradients_reach_the_input_in_eval_mode(unet: UNet) -> None:
    h = features(2, 2, 16, 16).requires_grad_()
    fuse(unet)(h).sum().backward()
    assert h.grad is not None and float(h.grad.abs().max()) > 0


def test_without_the_operation_the_layers_run_one_by_one(
    unet: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("no such operation")

    h, plain = features(2, 2, 16, 16), run(unet, features(2, 2, 16, 16), "fp32")
    monkeypatch.setattr(fused, "convolve", refuse)
    fused.is_available.cache_clear()
    try:
        assert not fused.is_available(torch.float32)
        assert torch.equal(run(fuse(unet), h, "fp32"), plain)
    finally:
        fused.is_available.cache_clear()


def test_wrong_results_count_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "convolve", lambda h, *_: h)
    fused.is_available.cache_clear()
    try:
        assert not fused.is_available(torch.float32)
    finally:
        fused.is_available.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_to_the_same_bits(dtype: torch.dtype) -> None:
    h = features(2, 3, 6, 10).to(dtype)
    h[0, 0, 0, 0] = torch.nan
    pairs = PairwiseMax()(h), nn.MaxPool2d(2)(h)
    assert torch.equal(*(part.nan_to_num(9) for part in pairs))


def test_loaded_imputers_are_fused_and_trained_ones_are_not(
    corrupted: torch.Tensor, mask: torch.Tensor
) -> None:
    loaded = load_imputer().networks[0]
    blocks = [m for m in loaded.modules() if isinstance(m, FusedBlock)]
    assert len(blocks) == 13
    size = {key: loaded.config[key] for key in ("widths", "bottleneck", "bottleneck_dropout")}
    plain = Imputer(loaded.covariance, **size).eval()
    plain.load_state_dict(loaded.state_dict())
    assert not any(isinstance(m, FusedBlock) for m in plain.modules())
    difference = fill(loaded, corrupted[:8], mask) - fill(plain, corrupted[:8], mask)
    assert float(difference.square().mean().sqrt()) < 1e-3
