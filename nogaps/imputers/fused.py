"""Convolution, BatchNorm and SiLU as one operation of oneDNN, where a U-Net only fills.

Between the convolutions of a `ConvBlock` BatchNorm and SiLU read and write every feature once more:
a sixth of the time of filling on a CPU. Here BatchNorm is folded into the weights, and SiLU is
applied while the convolution writes its result. The operation is the one that `torch.compile` would
choose, without its seconds of compiling and without a compiler. It is no public part of PyTorch:
where it is missing or refuses, the layers run one by one as everywhere else.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nogaps.Assessment import ConvBlock, EncBlock

# Of the convolution of a ConvBlock: padding, stride, dilation, groups.
GEOMETRY = ([1, 1], [1, 1], [1, 1], 1)


def convolve(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """SiLU of a 3×3 convolution of h (N,C,H,W) with packed weights: (N,C_out,H,W), h's dtype."""
    operation = torch.ops.mkldnn._convolution_pointwise
    return operation(h, weight, bias, *GEOMETRY, "swish", [], "")


def pack(conv: nn.Conv2d, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of a convolution in the layout and dtype that `convolve` reads, and its bias."""
    weight = conv.weight.to(dtype).contiguous(memory_format=torch.channels_last)
    reorder = torch.ops.mkldnn._reorder_convolution_weight
    return reorder(weight, *GEOMETRY, None), conv.bias.to(dtype)


@functools.cache
def is_available(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operation on this CPU for float32 or bfloat16."""
    h = torch.linspace(-1, 1, 32).reshape(1, 2, 4, 4).to(dtype)
    conv = nn.Conv2d(2, 2, 3, padding=1).requires_grad_(False)
    nn.init.constant_(conv.weight, 0.1)
    try:
        found = convolve(h, *pack(conv.to(dtype), dtype))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(found, F.silu(conv(h)), atol=0.05)


class FusedBlock(ConvBlock):
    """The layers of a ConvBlock under the same names; one operation in eval mode on a CPU.

    Packed weights are kept until a layer changes. Training, gradients and GPUs go layer by layer.
    """

    def __init__(self, block: ConvBlock) -> None:
        nn.Sequential.__init__(self, *block)
        self._packed: dict[torch.dtype, tuple] = {}
        self.train(block.training)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(N,C_in,H,W) to (N,C_out,H,W)."""
        autocast = torch.is_autocast_enabled(h.device.type)
        dtype = torch.get_autocast_dtype(h.device.type) if autocast else h.dtype
        grad = torch.is_grad_enabled() and (h.requires_grad or self[0].weight.requires_grad)
        if self.training or grad or h.device.type != "cpu" or not is_available(dtype):
            return super().forward(h)
        return convolve(h.to(dtype), *self._weights(dtype))

    def _weights(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        now = [(t.data_ptr(), t._version) for t in (*self.parameters(), *self.buffers())]
        if dtype not in self._packed or self._packed[dtype][0] != now:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                weights = pack(fuse_conv_bn_eval(self[0], self[1]), dtype)
            self._packed[dtype] = (now, weights)
        return self._packed[dtype][1]

    def __getstate__(self) -> dict:
        """All but the packed weights, which can be neither copied nor saved."""
        return self.__dict__ | {"_packed": {}}


class PairwiseMax(nn.Module):
    """Max-pooling 2×2 of even sizes, to the same bits: on a CPU 2.6 times as fast as MaxPool2d."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(N,C,H,W) to (N,C,H/2,W/2)."""
        if h.requires_grad or h.device.type != "cpu":
            return F.max_pool2d(h, 2)
        h = torch.maximum(h[..., ::2], h[..., 1::2])
        return torch.maximum(h[:, :, ::2], h[:, :, 1::2])


def fuse(network: nn.Module) -> nn.Module:
    """Exchange the blocks and poolings of a network for these, in place; returns the network.

    Weights keep their names: what is saved or trained further is the same as before.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is ConvBlock:
                setattr(module, name, FusedBlock(child))
            elif isinstance(module, EncBlock) and isinstance(child, nn.MaxPool2d):
                setattr(module, name, PairwiseMax())
    return network
