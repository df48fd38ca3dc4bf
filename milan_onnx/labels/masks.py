"""Masks small enough to embed: one bit a cell, as runs where that is shorter, in base64."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
from numpy.typing import NDArray

GRID = 56
"""Cells on a side: 7, 14, 28 and 56, the usual sides of activation maps, divide it."""


def pack_mask(mask: NDArray[np.bool_], grid: int = GRID) -> str:
    """A mask as text: 'r' and run lengths, or 'b' and bits, whichever is shorter.

    Runs are bytes, of False and True in turn from the top left cell on, row by row; a run of more
    than 255 cells goes on after an empty run of the other kind. Masks are blobs, so runs usually
    take a fifth of the bits.
    """
    cells = _sampled(mask, grid).ravel()
    bits = np.packbits(cells).tobytes()
    runs = _runs(cells, len(bits))
    kind, data = ("b", bits) if runs is None else ("r", runs)
    return kind + b64encode(data).decode("ascii")


def _sampled(mask: NDArray[np.bool_], grid: int) -> NDArray[np.bool_]:
    """The mask at (grid, grid): the cell centres' values, where it has another size."""
    height, width = mask.shape
    if (height, width) == (grid, grid):
        return mask
    rows = (np.arange(grid) * 2 + 1) * height // (2 * grid)
    columns = (np.arange(grid) * 2 + 1) * width // (2 * grid)
    return mask[np.ix_(rows, columns)]


def _runs(cells: NDArray[np.bool_], limit: int) -> bytes | None:
    """The run lengths, or None where they take ``limit`` bytes or more."""
    changes = np.flatnonzero(cells[1:] != cells[:-1]) + 1
    if changes.size + 1 >= limit:
        return None
    ends = [*changes.tolist(), cells.size]
    runs = bytearray(b"\x00" if cells[0] else b"")
    start = 0
    for end in ends:
        full, rest = divmod(end - start, 255)
        runs += b"\xff\x00" * full
        runs.append(rest)
        start = end
    return bytes(runs) if len(runs) < limit else None
