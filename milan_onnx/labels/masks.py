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
    runs, bits = _runs(cells), np.packbits(cells).tobytes()
    kind, data = ("r", runs) if len(runs) < len(bits) else ("b", bits)
    return kind + b64encode(data).decode("ascii")


def _sampled(mask: NDArray[np.bool_], grid: int) -> NDArray[np.bool_]:
    """The mask at (grid, grid): the cell centres' values, where it has another size."""
    height, width = mask.shape
    if (height, width) == (grid, grid):
        return mask
    rows = (np.arange(grid) * 2 + 1) * height // (2 * grid)
    columns = (np.arange(grid) * 2 + 1) * width // (2 * grid)
    return mask[np.ix_(rows, columns)]


def _runs(cells: NDArray[np.bool_]) -> bytes:
    changes = np.flatnonzero(np.diff(cells, prepend=False))
    lengths = np.diff(changes, prepend=0, append=cells.size)
    runs = bytearray()
    for length in lengths.tolist():
        full, rest = divmod(length, 255)
        runs += b"\xff\x00" * full
        runs.append(rest)
    return bytes(runs)
