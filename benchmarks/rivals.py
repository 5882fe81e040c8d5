"""What people fill holes with instead, each as `x_hat = impute(y, mask)` like ours.

    python -m benchmarks.rivals coursework corrupted.npy filled.npy

fills a file with one of them through the same streaming reader and writer as `nogaps fill`.
OpenCV (`pip install opencv-python-headless`) is optional: without it there are no such rows.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from skimage.restoration import inpaint_biharmonic

from benchmarks import check_profile, run
from benchmarks.recipes import CourseworkNet
from nogaps.filling.files import fill_file
from nogaps.interpolation import biharmonic, keep_observed
from nogaps.runtime.errors import BadInput

Impute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
METHODS = ("telea", "ns")
RADIUS = 3  # pixels around that OpenCV looks at: what its tutorial uses


def one_by_one(inpaint: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Impute:
    """An imputer from a function that fills one image (H,W), given its holes (H,W) bool."""

    def impute(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        images, holes = y[:, 0].numpy(), (~mask).expand_as(y)[:, 0].numpy()
        filled = [inpaint(image, hole) for image, hole in zip(images, holes, strict=True)]
        x_hat = torch.from_numpy(np.stack(filled)[:, None].astype(np.float32))
        return keep_observed(x_hat, y, mask)

    return impute


def opencv(method: str) -> Impute:
    """OpenCV's inpainting, in 8 bits: its float version takes the same time."""
    import cv2

    flag = getattr(cv2, f"INPAINT_{method.upper()}")

    def inpaint(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        grey = np.rint(255 * image).astype(np.uint8)
        return cv2.inpaint(grey, hole.astype(np.uint8), RADIUS, flag) / np.float32(255)

    return one_by_one(inpaint)


@functools.cache
def network(small: bool = False) -> CourseworkNet:
    """The network of the coursework's recipe, untrained: its time is that of any weights."""
    size = {"widths": (8, 16), "bottleneck": 16} if small else {}
    return CourseworkNet(**size).eval().requires_grad_(False)


def rivals(small: bool = False) -> dict[str, Impute]:
    """Every one that is installed, by name; small: a small network, for tests."""
    found: dict[str, Impute] = {
        "scikit-image biharmonic": one_by_one(inpaint_biharmonic),
        "biharmonic, all images of a mask at once": biharmonic,
    }
    if importlib.util.find_spec("cv2"):
        found |= {f"OpenCV {name}": opencv(name) for name in METHODS}
    net = network(small)
    return found | {"coursework": lambda y, mask: keep_observed(net(y, mask), y, mask)}


def main(
    name: Annotated[str, typer.Argument(help="One of those that the table names.")],
    source: Annotated[Path, typer.Argument(help="Corrupted images, as for `nogaps fill`.")],
    output: Annotated[Path, typer.Argument(help="File to write.")],
    profile: Annotated[str, typer.Option(help="full, or smoke: a small network.")] = "full",
) -> None:
    """Fill a file with a rival."""
    check_profile(profile)
    found = rivals(profile == "smoke")
    if name not in found:
        raise BadInput(f"{name}: expected one of {', '.join(found)}")
    with torch.no_grad():
        fill_file(source, output, found[name], progress=False)


if __name__ == "__main__":
    run(main)
