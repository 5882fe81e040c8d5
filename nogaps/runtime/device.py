"""Which device to compute on, and in which precision its convolutions are fast."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import version

import torch


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU; each of several processes has its own GPU."""
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def precision(device: torch.device) -> tuple[torch.dtype | None, str]:
    """Choose the precision of convolutions: the fastest that the device computes in hardware.

    Returns:
        bf16 or fp16 for autocast, or None for fp32; and the reason in a few words.
    """
    if device.type == "cuda":
        # is_bf16_supported() also counts slow emulation; Ampere (8.0) and later are fast
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "this GPU has it"
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return torch.float16, "this GPU has no bfloat16"
    # private functions: where a version of torch lacks them, fp32 is right as well
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = any(getattr(torch.cpu, name, lambda: False)() for name in names)
    if device.type == "cpu" and known:
        return torch.bfloat16, "this processor has it"
    return None, "no lower precision is fast here"


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the first part of `precision`."""
    return precision(device)[0]


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Return a context that autocasts to `dtype` on `device`; None changes nothing."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def name_of(device: torch.device) -> str:
    """Return a device in words: "cpu (2 threads)", or "cuda" and the name of the GPU."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({torch.get_num_threads()} threads)"


def versions() -> str:
    """Return the versions on which the bits of a run depend, in one line."""
    names = ("torch", "numpy", "diffusers")
    parts = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
    return ", ".join(parts)
