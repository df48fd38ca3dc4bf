"""One-to-one assignment of greatest total weight, exact: weights are integers, so nothing rounds.

Shortest augmenting paths with dual prices (Jonker and Volgenant 1987, in the rectangular form of
Crouse 2016). A row whose best column no other row wants is settled at the start, which is most of
them where rows and columns really belong together; each other row costs one search. Prices prove
the result: no reduced cost is negative, and those of the chosen pairs are zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FAR = np.iinfo(np.int64).max // 4
NOBODY = -1


def assign(weights: Ints) -> Ints:
    """The column of each row (n,), -1 for a row that gets none, for weights (n, m).

    The smaller side is assigned wholly. Equal weights give equal results; among several best
    assignments it is always the same one.
    """
    rows, columns = weights.shape
    if rows > columns:
        chosen = np.full(rows, NOBODY, np.int64)
        chosen[_Assignment(-weights.T).solve()] = np.arange(columns)
        return chosen
    return _Assignment(-weights).solve()


class _Assignment:
    """The search, for costs (n, m) with n <= m."""

    def __init__(self, costs: Ints) -> None:
        self._costs = np.ascontiguousarray(costs)
        rows, columns = costs.shape
        best = self._costs.argmin(axis=1) if columns else np.zeros(rows, np.int64)
        self._row_prices = np.take_along_axis(self._costs, best[:, None], axis=1)[:, 0]
        self._column_prices = np.zeros(columns, np.int64)
        self._owners = np.full(columns, NOBODY, np.int64)
        self._chosen = np.full(rows, NOBODY, np.int64)
        wanted, first = np.unique(best, return_index=True)
        self._owners[wanted], self._chosen[first] = first, wanted

    def solve(self) -> Ints:
        """The column of each row (n,)."""
        for row in np.flatnonzero(self._chosen == NOBODY).tolist():
            self._augment(row)
        return self._chosen

    def _augment(self, start: int) -> None:
        """Find a column for a row, moving others where that costs least in all."""
        columns = len(self._owners)
        distance = np.full(columns, FAR, np.int64)
        before = np.full(columns, NOBODY, np.int64)
        open_columns = np.ones(columns, bool)
        row, least, reached = start, 0, []
        while True:
            through = self._costs[row] - self._column_prices + (least - self._row_prices[row])
            nearer = open_columns & (through < distance)
            distance[nearer], before[nearer] = through[nearer], row
            column = self._nearest(np.where(open_columns, distance, FAR))
            least = int(distance[column])
            open_columns[column] = False
            reached.append(column)
            if self._owners[column] == NOBODY:
                break
            row = int(self._owners[column])
        self._reprice(start, np.array(reached), distance, least)
        self._flip(start, column, before)

    def _nearest(self, distance: Ints) -> int:
        """The nearest column; of several a free one, which ends the search."""
        ties = np.flatnonzero(distance == distance.min())
        free = ties[self._owners[ties] == NOBODY]
        return int(free[0] if free.size else ties[0])

    def _reprice(self, start: int, reached: Ints, distance: Ints, least: int) -> None:
        """Change prices so that the pairs along the path cost nothing more."""
        gains = least - distance[reached]
        owners = self._owners[reached[:-1]]
        self._row_prices[start] += least
        self._row_prices[owners] += gains[:-1]
        self._column_prices[reached] -= gains

    def _flip(self, start: int, column: int, before: Ints) -> None:
        """Give each column on the path to the row that reached it."""
        while True:
            row = int(before[column])
            self._owners[column] = row
            column, self._chosen[row] = int(self._chosen[row]), column
            if row == start:
                return
