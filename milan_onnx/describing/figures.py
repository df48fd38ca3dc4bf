"""Figures of validity: does a score predict an activation, and is that better than chance?

All take float64 arrays and give the same bits for the same numbers in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def pearson(scores: Scores, activations: Scores) -> float | None:
    """Pearson's correlation of two arrays (n,); None where either does not vary."""
    x, y = _standard(scores), _standard(activations)
    if x is None or y is None:
        return None
    return float(np.clip((x * y).sum(), -1, 1))


def _standard(values: Scores) -> Scores | None:
    """Values of mean 0 and square sum 1; None where they do not vary or are not finite."""
    if not len(values) or not np.isfinite(values).all():
        return None
    largest = np.abs(values).max()
    if values.min() == values.max():
        return None
    centred = values / largest  # squares of huge activations would overflow
    centred = centred - centred.mean()
    length = math.sqrt((centred * centred).sum())
    return np.asarray(centred / length) if length > 0 else None


def average_precision(scores: Scores, positive: NDArray[np.bool_]) -> float | None:
    """Area under the precision-recall curve of scores (n,) for what is positive (n,).

    Each distinct score is one step of the curve, so ties count the same in any order: the sum over
    steps of the gain in recall times the precision there. None without positives or negatives.
    """
    total = int(positive.sum())
    if total == 0 or total == len(positive):
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    gains = np.diff(hits, prepend=0)
    return float((gains * hits / (ends + 1)).sum() / total)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are there; None where none is."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def quantile_bar(values: Sequence[float], level: float) -> float:
    """The smallest of the values above which at most a share ``level`` of them lies."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil((1 - level) * len(ordered) - 1e-9) - 1)]
