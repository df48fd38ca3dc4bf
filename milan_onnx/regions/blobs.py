"""Masks as units would mark them: coarse, displaced, too large or too small, or just anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]

SMALLEST = 0.004
"""Share of the frame below which a region is too small to be shown."""
GRIDS = (7, 14, 28)
"""Sides of the activation maps that masks are made to look like."""


def blob_of(mask: Mask, rng: np.random.Generator) -> Mask:
    """A mask (S, S) as a unit would have it: coarse, displaced a little, too large or too small."""
    size = mask.shape[0]
    grid = int(rng.choice(GRIDS))
    moved = np.roll(mask, rng.integers(-size // 18, size // 18 + 1, 2), axis=(0, 1))
    return _enlarged(_cells(moved, grid), size, float(rng.uniform(0.25, 0.7)))


def random_blob(size: int, rng: np.random.Generator) -> Mask:
    """A mask (size, size) of a few per cent of the frame, anywhere."""
    grid = int(rng.choice([4, 7, 14]))
    return _enlarged(rng.random((grid, grid)) ** 2, size, float(rng.uniform(0.6, 0.85)))


def _enlarged(cells: NDArray[np.floating[Any]], size: int, threshold: float) -> Mask:
    """Where cells (h, w), upsampled to (size, size), pass a share of their largest value."""
    plane = Image.fromarray(cells.astype(np.float32))
    large = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
    return np.asarray(large > threshold * max(float(large.max()), 1e-6), dtype=np.bool_)


def _cells(mask: Mask, grid: int) -> NDArray[np.floating[Any]]:
    """Share of each of (grid, grid) cells that a mask covers."""
    size = mask.shape[0]
    if size % grid:
        plane = Image.fromarray(mask.astype(np.float32))
        return np.asarray(plane.resize((grid, grid), Image.Resampling.BOX))
    cells: NDArray[np.floating[Any]] = mask.reshape(grid, size // grid, grid, -1).mean((1, 3))
    return cells
