"""Inception's feature space, where torch-fidelity's weights for it lie on this machine."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nogaps.evaluation.realism import Features
from nogaps.runtime.device import pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256

BATCH_SIZE = 32
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # of the network that FID is defined by


@dataclass(frozen=True)
class Inception:
    """Inception's feature space, or why it is not available."""

    space: Features | None  # from images (N,1|3,H,W) in [0,1] to features (N,2048), if available
    about: str  # what the space is, or the reason


def find_inception(path: str | Path | None = None) -> Inception:
    """Load the network that FID (arXiv 1706.08500) is defined by; nothing is downloaded.

    Args:
        path: State dict of torch-fidelity's Inception v3 (.pth); else that in torch's hub cache.

    Raises:
        BadInput: The file that was given cannot be used.
    """
    file = Path(path or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS)
    if path is None and not file.exists():
        where = "expected in torch's hub cache, or as --inception FILE of `prior evaluate`"
        return Inception(None, f"torch-fidelity's {WEIGHTS} is missing, {where}")
    try:
        network = load_network(file).to(pick_device())
    except BadInput as error:
        if path is not None:
            raise
        return Inception(None, str(error))
    about = f"2048 features of Inception v3 ({file.name}, sha256 {sha256(file)[:16]})"
    return Inception(partial(features, network), about)


def load_network(path: Path) -> torch.nn.Module:
    """Load Inception v3 from `path`, without running code that the file may hold.

    Returns:
        A network from uint8 images (N,3,H,W) to a tuple of features (N,2048).

    Raises:
        BadInput: The weights cannot be used, or torch-fidelity cannot be imported.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        finite = all(value.isfinite().all() for value in state.values())
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot be read ({reason})", WEIGHTS, path=path) from error
    except Exception as error:  # zip, pickle and torch raise errors of many kinds
        problem = "is damaged, or holds more than tensors"
        raise BadInput(problem, WEIGHTS, path=path) from error
    if not finite:
        raise BadInput("holds NaN or infinite weights", WEIGHTS, path=path)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:  # torchvision built for another torch raises RuntimeError
        problem = f"torch-fidelity cannot be imported ({' '.join(str(error).split())[:80]})"
        raise BadInput(problem, "that of the extra `study`", path=path) from error
    # torch-fidelity would unpickle the file without restriction: it gets the tensors just read
    tensors = io.BytesIO()
    torch.save(state, tensors)
    tensors.seek(0)
    try:
        with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
            return FeatureExtractorInceptionV3("inception", ["2048"], tensors)
    except RuntimeError as error:
        raise BadInput("holds the tensors of another network", WEIGHTS, path=path) from error


@torch.no_grad()
def features(network: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """Return features (N,d), float64, of images x (N,1|3,H,W) in [0,1], taken as 8 bits."""
    device = next(network.parameters()).device
    colour = (255 * x).round().byte().expand(-1, 3, -1, -1)
    rows = [network(batch.to(device))[0].cpu() for batch in colour.split(BATCH_SIZE)]
    return torch.cat(rows).double().numpy()
