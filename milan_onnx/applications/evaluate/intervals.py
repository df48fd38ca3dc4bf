"""Bootstrap intervals (Efron 1979, percentile): how far a figure may be from chance alone.

Units that come from one concept stand or fall together, so it is the concepts that are drawn again
(cluster bootstrap), with all of their units. Where each unit is its own cluster that is the plain
bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A number and the interval it may lie in."""

    value: float
    """The mean over all units."""

    low: float | None = None
    """Lower end of the 95 % interval; None where none is given."""

    high: float | None = None
    """Upper end."""


class Bootstrap:
    """Draws clusters again and again, the same for every figure, so that differences are paired."""

    def __init__(self, clusters: Sequence[object], seed: int, resamples: int = RESAMPLES) -> None:
        """``clusters``: what each unit belongs to (U,)."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
        self._cluster = np.array([numbers[name] for name in clusters], dtype=np.int64)
        self._sizes = np.bincount(self._cluster, minlength=len(numbers)).astype(np.float64)
        rng = np.random.default_rng((seed, len(numbers)))
        self._picks = rng.integers(0, max(1, len(numbers)), (resamples, len(numbers)))

    def mean(self, values: NDArray[np.float64]) -> Figure:
        """The mean of values (U,) with its interval."""
        if not values.size:
            return Figure(float("nan"))
        sums = np.bincount(self._cluster, weights=values, minlength=self._sizes.size)
        means = np.sort(sums[self._picks].sum(1) / self._sizes[self._picks].sum(1))
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        return Figure(float(values.mean()), float(low), float(high))
