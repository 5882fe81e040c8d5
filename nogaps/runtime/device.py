"""Which device to compute on, and in which precision its convolutions are fast."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Mapping

import numpy as np
import torch

from nogaps.runtime import processes

# Limits of glibc's allocator: the variable that sets one when a process starts, its number in
# mallopt(3), which sets it later.
MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_MMAP_MAX_": -4}
KEEP_FREED = {
    "MALLOC_TRIM_THRESHOLD_": 2**31 - 1,  # free bytes before memory is given back
    "MALLOC_MMAP_MAX_": 0,  # how many large blocks are mapped one by one, and unmapped
}


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU; each of several processes has a GPU of its own."""
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    if processes.count() == 1:
        return torch.device("cuda")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """bf16 where the device has it fast, fp16 on older GPUs, None (fp32) elsewhere."""
    if device.type == "cuda":
        # is_bf16_supported() also counts slow emulation; Ampere (8.0) and later are fast
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if fast else torch.float16
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    capable = capable or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return torch.bfloat16 if device.type == "cpu" and capable else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Autocast to `dtype` on `device`; nothing for None."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees, for the next batch; other C libraries: nothing.

    Else a step of training gives features back to the system and gets them anew, page by page.
    """
    limit_allocator(KEEP_FREED)


def limit_allocator(limits: Mapping[str, int]) -> None:
    """Set limits of glibc's allocator by the names in MALLOPT."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
        for name, value in limits.items():
            ctypes.CDLL(None).mallopt(MALLOPT[name], value)


def name_of(device: torch.device) -> str:
    """A device in words: "cpu (2 threads)", or "cuda" and the name of the GPU."""
    cpu = f"{torch.get_num_threads()} threads"
    return f"{device.type} ({torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu})"


def versions() -> str:
    """Versions on which the bits of a run depend, in one line."""
    import diffusers

    found = {"torch": torch.__version__, "numpy": np.__version__}
    found |= {"diffusers": diffusers.__version__}
    return ", ".join([f"python {platform.python_version()}", *map(" ".join, found.items())])
