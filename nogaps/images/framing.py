"""Images resampled to the size and place of the heads in the test set."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIZE = 64  # of the test set's images
FRAME = 128  # frames are kept at twice that size, for warping
TOP_ROW, HEAD_COLUMNS = 8.0, 57.0  # where the head lies, in pixels of a 64×64 image


def frame_slice(image: np.ndarray, top: float, occiput: float, forehead: float) -> np.ndarray:
    """Resample one slice so that its head lies where the test set's heads lie.

    A Gaussian filter keeps frequencies that 64×64 cannot hold from folding back.

    Args:
        image: (H, W), any range.
        top: The row of the skull's top, in its pixels.
        occiput: The column of the back of the head.
        forehead: The column of the forehead, above `occiput`.

    Returns:
        (128, 128) float64 in the range of the input; 0 outside the slice.
    """
    scale = (forehead - occiput) / HEAD_COLUMNS
    smooth = ndimage.gaussian_filter(image.astype(np.float64), max(0.0, scale / 4 - 0.5))
    position = (np.arange(FRAME) + 0.5) / 2
    rows = top + (position - TOP_ROW) * scale
    columns = (occiput + forehead) / 2 + (position - (SIZE - 1) / 2) * scale
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(smooth, grid, order=1, mode="constant", cval=0.0)
