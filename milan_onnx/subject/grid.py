"""How the tokens of a layer lie in the frame."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

MOST_PREFIX_TOKENS = 8
"""Class, distillation and register tokens come first; no known model has more."""


@dataclass(frozen=True)
class Grid:
    """Patches in rows, behind some prefix tokens."""

    height: int
    """Rows."""

    width: int
    """Columns."""

    prefix: int
    """Tokens before the first patch that belong to no place."""


def token_grid(tokens: int, frame: tuple[int, int]) -> Grid | None:
    """The grid of a number of tokens over a frame of (height, width) pixels, or None.

    For a square frame the largest square that leaves at most eight prefix tokens; of several, one
    that divides the frame into whole pixels is preferred. For other frames, square patches.
    """
    grids = list(_candidates(tokens, frame))
    whole = [grid for grid in grids if _whole(grid, frame)]
    best = max(whole or grids, key=lambda grid: grid.height, default=None)
    return best


def _candidates(tokens: int, frame: tuple[int, int]) -> list[Grid]:
    height, width = frame
    found = []
    for rows in range(1, (isqrt(tokens) if height == width else tokens) + 1):
        columns, rest = divmod(rows * width, height)
        prefix = tokens - rows * columns
        if not rest and columns and 0 <= prefix <= MOST_PREFIX_TOKENS:
            found.append(Grid(rows, columns, prefix))
    return found


def _whole(grid: Grid, frame: tuple[int, int]) -> bool:
    return frame[0] % grid.height == 0 and frame[1] % grid.width == 0
