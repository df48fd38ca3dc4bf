"""The shape of a region on the bundle's grid: its inside, the ring around it, its geometry.

`milan_onnx.bundle` defines all of it. Sums are of float64 values that are multiples of a small
power of two wherever a frame's side is 56 times one, and so exact: a region's numbers do not depend
on its company.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import GEOMETRY, GRID, RING

Floats = NDArray[np.float32]
Cells = NDArray[np.bool_]
Numbers = NDArray[np.float64]

STRIP, CORNER = 3, 7
TOGETHER = 16
"""Regions measured at once: more do not fit into a processor's cache."""
LEAST_AREA = 1e-4
LEAST = 1e-6
COORDINATES = np.arange(1, 2 * GRID, 2, dtype=np.float64)
"""Centres of the cells in steps of 1 / (2 * GRID): whole numbers, so that moments are exact."""


def inside(shares: Floats) -> Cells:
    """Cells bool (n, 56, 56) that belong to regions of shares (n, 56, 56); none is lost."""
    cells = shares >= 0.5
    thin = ~cells.any(axis=(1, 2))
    if thin.any():
        cells[thin] = shares[thin] > 0
    return cells


def ring(cells: Cells) -> Cells:
    """The ring bool (n, 56, 56) around the inside (n, 56, 56) of regions.

    The whole frame where all cells are inside, nothing where none is.
    """
    framed = _framed(cells, RING).view(np.uint8)
    # Rows first; then the same along the columns, which lie in memory one after the other.
    rows = _window(framed)
    near = _window(rows.reshape(len(rows) * GRID, -1)).reshape(cells.shape).view(np.bool_)
    found = near & ~cells
    found |= cells.all(axis=(1, 2), keepdims=True)
    return found


def geometry(shares: Floats, cells: Cells) -> Floats:
    """Numbers float32 (n, 25) of regions, in the order of `milan_onnx.bundle.GEOMETRY`.

    ``shares`` float32 and ``cells``, the inside, bool, both (n, 56, 56). A region without a share
    has zeros.
    """
    parts = [slice(start, start + TOGETHER) for start in range(0, len(shares), TOGETHER)]
    found = [_geometry(shares[part], cells[part]) for part in parts]
    return np.concatenate([np.zeros((0, len(GEOMETRY)), np.float32), *found])


def _geometry(shares: Floats, cells: Cells) -> Floats:
    fine = shares.astype(np.float64)
    count = _counts(cells)
    made = [*_moments(fine), *_outlines(cells, count), *_borders(fine), *_texture(cells, count)]
    numbers = np.stack(made, axis=1)[:, ORDER]
    numbers[count == 0] = 0
    return numbers.astype(np.float32)


MADE = (
    *("log_area", "sqrt_area", "centre_x", "centre_y", "spread_x", "spread_y"),
    *("eccentricity", "cos_2", "sin_2", "off_centre", "long_axis", "short_axis"),
    *("outline", "upright", "diagonal", "top", "bottom", "left", "right"),
    *("top_left", "top_right", "bottom_left", "bottom_right", "pieces", "filled"),
)
"""The numbers in the order that they are made in."""
ORDER = [MADE.index(name) for name in GEOMETRY]


def _moments(shares: Numbers) -> tuple[Numbers, ...]:
    """Area, centre, spread and axes, each (n,)."""
    columns, rows = shares.sum(axis=1), shares.sum(axis=2)
    total = rows.sum(axis=1)
    scale = 1 / np.maximum(total, LEAST)
    step = 0.5 / GRID
    x = (columns * COORDINATES).sum(axis=1) * scale
    y = (rows * COORDINATES).sum(axis=1) * scale
    xx = (columns * COORDINATES**2).sum(axis=1) * scale
    yy = (rows * COORDINATES**2).sum(axis=1) * scale
    xy = ((shares * COORDINATES).sum(axis=2) * COORDINATES).sum(axis=1) * scale
    a = np.maximum(xx - x * x, 0) * step**2
    b = np.maximum(yy - y * y, 0) * step**2
    c = (xy - x * y) * step**2
    apart = np.sqrt((a - b) ** 2 + 4 * c * c)
    whole = np.maximum(a + b, LEAST)
    area, x, y = total / GRID**2, x * step, y * step
    return (
        *(np.log(np.maximum(area, LEAST_AREA)), np.sqrt(area), x, y, np.sqrt(a), np.sqrt(b)),
        *(apart / whole, (a - b) / whole, 2 * c / whole, np.abs(x - 0.5) + np.abs(y - 0.5)),
        *(np.sqrt((a + b + apart) / 2), np.sqrt(np.maximum((a + b - apart) / 2, 0))),
    )


def _outlines(cells: Cells, count: Numbers) -> tuple[Numbers, ...]:
    """Length of the outline and the directions that it runs in, each (n,)."""
    across = _counts(cells[:, :, 1:] ^ cells[:, :, :-1]) / (GRID * (GRID - 1))
    down = _counts(cells[:, 1:] ^ cells[:, :-1]) / (GRID * (GRID - 1))
    right = _counts(cells[:, 1:, 1:] ^ cells[:, :-1, :-1]) / (GRID - 1) ** 2
    left = _counts(cells[:, 1:, :-1] ^ cells[:, :-1, 1:]) / (GRID - 1) ** 2
    area = np.maximum(count, 1) / GRID**2
    return (
        np.log(1e-3 + (across + down) / area),
        (across - down) / (across + down + LEAST),
        (right - left) / (right + left + LEAST),
    )


def _borders(shares: Numbers) -> tuple[Numbers, ...]:
    """How much of each strip along the border and of each corner is covered, each (n,)."""
    first, last = slice(None, STRIP), slice(-STRIP, None)
    near, far = slice(None, CORNER), slice(-CORNER, None)
    parts = [shares[:, first], shares[:, last], shares[:, :, first], shares[:, :, last]]
    parts += [shares[:, y, x] for y in (near, far) for x in (near, far)]
    return tuple(part.sum(axis=2).sum(axis=1) / part[0].size for part in parts)


def _texture(cells: Cells, count: Numbers) -> tuple[Numbers, ...]:
    """Pieces minus holes, and how much of its rows and columns a region fills, each (n,)."""
    # Euler: corners - edges + cells, of closed cells. Edges: four a cell, shared ones once.
    framed = _framed(cells, 1)
    rows = framed[:, 1:] | framed[:, :-1]
    corners = _counts(rows[:, :, 1:] | rows[:, :, :-1])
    shared = _counts(cells[:, :, 1:] & cells[:, :, :-1]) + _counts(cells[:, 1:] & cells[:, :-1])
    euler = corners - (4 * count - shared) + count
    box = cells.any(axis=1).sum(axis=1) * cells.any(axis=2).sum(axis=1)
    return np.sign(euler) * np.log1p(np.abs(euler)), count / np.maximum(box, 1)


def _counts(cells: Cells) -> Numbers:
    """How many cells (n, h, w) are set, float64 (n,)."""
    flat = np.ascontiguousarray(cells).view(np.uint8).reshape(len(cells), -1)
    return np.asarray(flat.sum(axis=1, dtype=np.uint32), np.float64)


def _framed(cells: Cells, width: int) -> Cells:
    """Cells (n, h, w) with so many empty ones on every side."""
    count, height, wide = cells.shape
    framed = np.zeros((count, height + 2 * width, wide + 2 * width), np.bool_)
    framed[:, width:-width, width:-width] = cells
    return framed


def _window(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whether any of 2 * RING + 1 rows is set: (n, h, ...) to (n, h - 2 * RING, ...)."""
    reach, width = 1, 2 * RING + 1
    while reach < width:
        step = min(reach, width - reach)
        cells = cells[:, :-step] | cells[:, step:]
        reach += step
    return cells
