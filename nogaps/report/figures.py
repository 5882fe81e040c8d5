"""Pictures that may stand in a page."""

from __future__ import annotations

import base64
import io
import warnings
from html import escape

from nogaps.submission.figures import MAX_PIXELS

FORMATS = ("PNG", "JPEG")


def picture(encoded: str, alt: str, left: int = MAX_PIXELS) -> tuple[str, int]:
    """An <img> for a PNG or JPEG in base64, and its number of pixels; ("", 0) for anything else.

    left: how many pixels it may have, at most MAX_PIXELS. Only its header is read.
    """
    from PIL import Image

    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, which is looked at here
            found = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # Pillow raises whatever a damaged file leads it to
        return "", 0
    (width, height), pixels = found.size, found.width * found.height
    if pixels > min(left, MAX_PIXELS):
        return "", 0
    source = f"data:image/{found.format.lower()};base64,{base64.b64encode(data).decode()}"
    size = f'width="{width}" height="{height}"'
    return f'<img src="{source}" alt="{escape(alt)}" {size}>', pixels
