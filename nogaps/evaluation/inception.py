"""KID and Fréchet distance as torchmetrics computes them on Inception's features."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nogaps.evaluation.realism import Features
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, sha256

SIZE, BATCH_SIZE = 2048, 32  # features of an image, as the FID paper takes them; images at once
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # the network that FID is defined by


@dataclass(frozen=True)
class Inception:
    """Inception's feature space; None if it cannot be had. about: what it is, or why there is none.

    space: images (N,1|3,H,W) in [0,1] to arrays (N,2048), float64; images are taken as 8 bits, grey
    in three channels, and brought to 299×299 pixels.
    """

    space: Features | None
    about: str


def find_inception(path: str | Path | None = None) -> Inception:
    """The space of the weights in `path`, else of those in torch's hub cache; downloads nothing.

    path: state dict of torch-fidelity's Inception v3 (.pth), converted from the network of arXiv
    1512.00567 that FID (arXiv 1706.08500) is defined by. Raises BadInput if it cannot be used; what
    is amiss with cached weights, which nobody asked for, is told in `about`.
    """
    if path is not None:
        return load_inception(Path(path))
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if not cached.exists():
        where = "expected in torch's hub cache, or as --inception FILE of `prior evaluate`"
        return Inception(None, f"torch-fidelity's {WEIGHTS}: not found, {where}")
    try:
        return load_inception(cached)
    except BadInput as error:
        return Inception(None, str(error))


def load_inception(path: Path) -> Inception:
    """The space of the weights in `path`. Raises BadInput if they or the libraries do not load."""
    model = load_network(path).to(pick_device())
    name = f"{SIZE} features of Inception v3 ({path.name}, sha256 {sha256(path)[:16]})"
    return Inception(lambda x: features(model, x), name)


def load_network(path: Path) -> torch.nn.Module:
    """torchmetrics' Inception v3, uint8 (N,3,H,W) to (N,2048). Raises BadInput."""
    state = load_state_dict(path)
    try:
        import torch_fidelity  # noqa: F401 (torchmetrics has no Inception without it)
        from torchmetrics.image.fid import NoTrainInceptionV3
    except Exception as error:  # a torchvision built for another torch raises RuntimeError
        reason = " ".join(str(error).split())[:80]
        text = f"torchmetrics and torch-fidelity cannot be imported ({reason})"
        raise BadInput(f"{path}: {text}, expected those of the extra `study`") from error
    # torch-fidelity unpickles what it is given without restriction: it is given the tensors that
    # were just read, not the file
    tensors = io.BytesIO()
    torch.save(state, tensors)
    tensors.seek(0)
    try:
        with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
            return NoTrainInceptionV3("inception-v3-compat", [str(SIZE)], tensors)
    except RuntimeError as error:
        raise BadInput(f"{path}: tensors of another network, expected {WEIGHTS}") from error


def load_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    """Finite tensors by name, read without running pickled code. Raises BadInput."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"{path}: cannot be read ({reason}), expected {WEIGHTS}") from error
    except Exception as error:  # zip, pickle and torch each raise their own
        raise BadInput(f"{path}: damaged or more than tensors, expected {WEIGHTS}") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise BadInput(f"{path}: is no state dict, expected {WEIGHTS}")
    if not all(v.isfinite().all() for v in state.values()):
        raise BadInput(f"{path}: holds NaN or infinite weights, expected {WEIGHTS}")
    return state


@torch.no_grad()
def features(model: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """Features (N,d), float64, of images x (N,1|3,H,W) in [0,1]; model: of uint8 (N,3,H,W)."""
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    colour = (255 * x).round().byte().expand(-1, 3, -1, -1)
    rows = [model(batch.to(device)).cpu() for batch in colour.split(BATCH_SIZE)]
    return torch.cat(rows).double().numpy()


def library_distances(
    a: np.ndarray, b: np.ndarray, subsets: int, subset_size: int, seed: int
) -> dict[str, float]:
    """torchmetrics' KID, its standard deviation over subsets, and FID of features (N,d) and (M,d).

    subset_size: at most N and M. The same as `kernel_distance` and `frechet_distance`.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    given = torch.nn.Identity()  # both metrics take features that were computed once
    given.num_features = a.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the memory that features take
        kernel = KernelInceptionDistance(given, subsets=subsets, subset_size=subset_size)
    frechet = FrechetInceptionDistance(given)
    for metric in (kernel, frechet):
        metric.update(torch.from_numpy(b), real=True)
        metric.update(torch.from_numpy(a), real=False)
    with torch.random.fork_rng([]):  # the subsets are drawn from the global generator
        torch.manual_seed(seed)
        kid, spread = kernel.compute()
    return {"kid": float(kid), "kid_std": float(spread), "frechet": float(frechet.compute())}
