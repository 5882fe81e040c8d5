"""What the figures of a notebook show: images with shades, or only curves, or nothing."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

FORMATS = ("PNG", "JPEG", "GIF")  # what Jupyter writes
MAX_PIXELS, ALL_PIXELS = 20_000_000, 100_000_000  # of one picture, and of those of a question
SMALLEST = 16  # pixels: a narrower panel shows no head
INK, SHADES, SHARE = 0.3, 4, 0.01  # least part that is not page; shades of 16, each on this part
MANY = 10  # parts: no longer looked into
UNEVEN = 24  # of 255: JPEG does not keep the page quite even
EMBEDDED = re.compile(r"data:image/(?:png|jpe?g|gif);base64,([A-Za-z0-9+/=\s]+)")


class Shown(NamedTuple):
    """What one figure, or all of a question, shows."""

    figures: int  # pictures, readable or not
    parts: int = 0  # parts of them that have the shades of an image, colour bars among them
    images: int = 0  # those that are no bars
    pixels: int = 0  # decoded


def pictures(data: dict[str, str]) -> list[str]:
    """Pictures, in base64, in the data of an output by its kind; those in HTML and SVG too."""
    found = []
    for kind, text in data.items():
        if kind in ("text/html", "image/svg+xml"):
            found += EMBEDDED.findall(text)
        elif kind.startswith("image/"):
            found.append(text)
    return found


def show(encoded: list[str], enough: int) -> Shown:
    """What pictures in base64 show, the smallest first, until `enough` images are found."""
    total = Shown(0)
    for text in sorted(encoded, key=len):
        more = total.images < enough and total.pixels < ALL_PIXELS
        one = look(text) if more else Shown(1)
        total = Shown(*(a + b for a, b in zip(total, one, strict=True)))
    return total


def look(encoded: str) -> Shown:
    """What one picture in base64 shows: nothing, if it cannot be read."""
    picture = grey(encoded)
    return Shown(1) if picture is None else Shown(1, *panels(picture), picture.size)


def grey(encoded: str) -> np.ndarray | None:
    """A picture in base64 as (H,W) uint8 on a white page; None if it cannot be read."""
    from PIL import Image

    try:
        data = io.BytesIO(base64.b64decode("".join(encoded.split()), validate=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, which is looked at here
            picture = Image.open(data, formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            return None
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return np.asarray(picture.convert("L"))
    except Exception:  # Pillow's decoders raise whatever a damaged file leads them to
        return None


def panels(picture: np.ndarray) -> tuple[int, int]:
    """How many parts of a picture (H,W) uint8 are images, and how many of those are not strips.

    Parts are what straight lines of the page's shade divide; an image may itself be a grid on a
    page of its own. An image fills its part with several shades; curves and letters leave most of
    it to the page, bars have one shade each.
    """
    found = _images(picture)
    grids = [len(_images(part)) if len(found) < MANY else 1 for part in found]
    images = sum(max(1, n) for part, n in zip(found, grids, strict=True) if not _is_strip(part, n))
    return len(found), images


def _images(picture: np.ndarray) -> list[np.ndarray]:
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    page = int(np.bincount(border, minlength=256).argmax())
    ink = np.abs(picture.astype(np.int16) - page) > UNEVEN
    parts = _parts(np.stack([picture, ink.astype(np.uint8)]))
    return [part for part, inked in parts if _is_image(part, inked)]


def _parts(layers: np.ndarray, depth: int = 8) -> Iterator[np.ndarray]:
    """Cut picture and ink, (2,H,W), along rows and columns without ink until none is left."""
    if min(layers.shape[1:]) < SMALLEST:
        return
    for axis in (1, 2):
        runs = _runs(layers[1].any(2 - axis))
        if depth and runs != [(0, layers.shape[axis])]:
            for start, stop in runs:
                yield from _parts(layers.take(range(start, stop), axis), depth - 1)
            return
    yield layers


def _runs(filled: np.ndarray) -> list[tuple[int, int]]:
    """Where runs of True start and stop."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], filled, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _is_image(part: np.ndarray, ink: np.ndarray) -> bool:
    shades = np.bincount((part // 16).ravel(), minlength=16) / part.size
    return ink.mean() > INK and int((shades > SHARE).sum()) >= SHADES


def _is_strip(part: np.ndarray, inside: int) -> bool:
    """Is it a colour bar, and no row of images?"""
    return inside < 2 and max(part.shape) >= 3 * min(part.shape)
