"""Which part of an exemplar excites the unit: its activation map, upsampled and thresholded.

The map is upsampled bilinearly with half-pixel centres, as the original does; at the border it is
clamped (the original pads with zeros, which thins masks there; ``fade`` repeats it), and the mask
is where it lies above the unit's threshold (MILAN section 3).

Three cases leave such a mask empty, and a region that was shown as an exemplar must not be:
a saturated unit, whose threshold is its maximum; a peak of one cell that interpolation lowers below
the threshold; an exemplar whose peak does not reach the threshold (a unit that fires rarely).
Then the cells that reach the threshold, or else the peak's, are taken whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milan_onnx.geometry import interpolate

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

LARGEST = np.finfo(np.float32).max / 4


def upsample(maps: Floats, height: int, width: int, *, fade: bool = False) -> Floats:
    """Bilinear, half-pixel centres: float32 (n, h, w) to (n, height, width).

    Clamped at the border; with ``fade`` zeros lie beyond it, as in the paper's code.
    """
    return interpolate(_rows(maps, height, fade), width, 2, padded=fade)


def exemplar_masks(
    maps: Floats | NDArray[np.uint8],
    thresholds: Floats,
    height: int,
    width: int,
    *,
    fade: bool = False,
) -> Mask:
    """Masks (n, height, width) of maps (n, h, w) with thresholds (n,).

    None is empty, but with ``fade``, which does what the paper's code does (see `upsample`).
    """
    maps, thresholds = _bounded(maps.astype(np.float32, copy=False)), _bounded(thresholds)
    rows = _rows(maps, height, fade)
    # What lies between two values of a row is no larger than both: most rows need no columns.
    high = rows.max(axis=2) > thresholds[:, None]
    level = thresholds.repeat(high.sum(axis=1))[:, None]
    masks = np.zeros((len(maps), height, width), np.bool_)
    masks[high] = interpolate(rows[high], width, 1, padded=fade) > level
    if fade:
        return masks
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if empty.size:
        cells = _whole_cells(maps[empty], thresholds[empty, None, None], height, width)
        masks[empty] = cells
    return masks


def _rows(maps: Floats, height: int, fade: bool) -> Floats:
    """Maps (n, h, w) at their full height; with ``fade`` and a column of zeros on either side."""
    if fade:
        maps = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    return interpolate(maps, height, 1, padded=fade)


def _bounded(values: Floats) -> Floats:
    """Infinite and very large values as ones whose differences are finite; order is kept."""
    return np.asarray(np.clip(values, -LARGEST, LARGEST), dtype=np.float32)


def _whole_cells(maps: Floats, level: Floats, height: int, width: int) -> Mask:
    peak = maps.max(axis=(1, 2), keepdims=True)
    cells = np.where(peak > level, maps > level, maps >= peak)
    rows = np.arange(height) * maps.shape[1] // height
    columns = np.arange(width) * maps.shape[2] // width
    return np.asarray(cells[:, rows][:, :, columns], dtype=np.bool_)
