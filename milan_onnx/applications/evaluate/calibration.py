"""How far a confidence can be believed: of the labels said to be right with p, are p right?

A label is right where its similarity reaches `RIGHT`. Phrases of other units reach it rarely (their
mean is .28 on the units that this was chosen on), a second annotator's nearly always (mean .75).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RIGHT = 0.6
"""Cosine with the nearest phrase of a unit from which on a description counts as right."""
BINS, FEWEST = 10, 50
"""Most bins, and units that each has at least: of 25 the share that is right is 7 % off by chance
alone."""


@dataclass(frozen=True)
class Bin:
    """Units of about the same confidence."""

    units: int
    """How many."""

    lowest: float
    """Smallest confidence among them."""

    highest: float
    """Largest confidence among them."""

    confidence: float
    """Mean confidence."""

    right: float
    """Share of them that is right."""


def reliability(confidence: Values, right: Values, count: int | None = None) -> tuple[Bin, ...]:
    """Bins of equally many units (sizes differ by one at most), of rising confidence.

    ``confidence``, ``right`` (U,): the latter 0 or 1; ``count``: of bins, by default `BINS`, or
    fewer so that each has `FEWEST`. Units of equal confidence count as right by their share, so
    that their order means nothing.
    """
    count = count or max(1, min(BINS, len(confidence) // FEWEST))
    if not len(confidence):
        return ()
    _, group = np.unique(confidence, return_inverse=True)
    shares = (np.bincount(group, weights=right) / np.bincount(group))[group]
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(count, len(order)))
    return tuple(_bin(confidence[part], shares[part]) for part in parts)


def _bin(confidence: Values, right: Values) -> Bin:
    return Bin(
        len(confidence),
        float(confidence.min()),
        float(confidence.max()),
        float(confidence.mean()),
        float(right.mean()),
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean over all units of the distance
    between their bin's mean confidence and its share of right ones; 0 to 1, nan without units."""
    units = sum(part.units for part in bins)
    if not units:
        return float("nan")
    return sum(part.units * abs(part.confidence - part.right) for part in bins) / units


def confident_half(confidence: Values) -> list[int]:
    """The more confident half of the units (one more of an odd number), in their own order.

    Of equal ones at the border the earlier are taken.
    """
    order = np.argsort(-confidence, kind="stable")
    return sorted(order[: -(-len(order) // 2)].tolist())


def calibration(confidence: Values, similarity: Values) -> dict[str, Any]:
    """All of it, as JSON values; ``similarity`` (U,) of the first descriptions."""
    bins = reliability(confidence, (similarity >= RIGHT).astype(np.float64))
    return {
        "right_from": RIGHT,
        "units": len(confidence),
        "right": float((similarity >= RIGHT).mean()),
        "expected_calibration_error": calibration_error(bins),
        "reliability": [asdict(part) for part in bins],
    }
