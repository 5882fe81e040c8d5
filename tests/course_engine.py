"""A substitute for the course's files, in all that is known to matter: see `ENGINE`."""

from __future__ import annotations

import zipfile
from pathlib import Path

# one global seed for all batches of a call; a line and a bar per batch; with ddim an inert
# temperature; pale heads, some values a little outside [0, 1]; tensors with gradients
ENGINE = """
import sys
import torch

CALLS = []

def generate(num_samples, num_inference_steps=20, batch_size=8, scheduler="ddim", temperature=1.0,
             seed=42):
    CALLS.append(num_samples)
    torch.manual_seed(seed)
    batches = []
    for start in range(0, num_samples, batch_size):
        print("Generating batch", start)
        sys.stderr.write("100%|####| 20/20\\r")
        z = torch.randn(min(batch_size, num_samples - start), 1, 8, 8)
        z = z if scheduler == "ddim" else temperature * z + 0.1 * torch.randn_like(z)
        x = torch.nn.functional.interpolate(z, (64, 64), mode="bicubic")
        batches.append((0.36 + 0.12 * x).clamp(-0.01, 0.741).double().requires_grad_())
    return batches
"""
RUN = """echo "Cloning into 'ese-invldm'" >&2
mkdir -p ese-invldm/ese_invldm
cp engine.py ese-invldm/ese_invldm/__init__.py
"""


def write_files(path: Path, run: str = RUN, engine: str = ENGINE) -> Path:
    """Write the zip file that the course hands out."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run.sh", run)
        archive.writestr("engine.py", engine)
    return path
