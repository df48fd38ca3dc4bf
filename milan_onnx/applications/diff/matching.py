"""Which unit of one layer is which of another: by number, or by what they respond to.

Training again, or a tool that rewrites the graph, may order a layer's channels anew. What a unit
computes is then told by its fingerprint, its largest activations on the photos of the runs' sample
(`milan_onnx.exemplars.fingerprint`): units are matched one to one so that Pearson's correlations
are greatest in total. A pair below ``level`` is none: it weighs as much as no pair.

A unit whose fingerprint does not vary (dead, saturated on every photo, or active on none of the
sample) has no correlation; such units are matched among themselves by their exemplars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.diff.assignment import assign
from milan_onnx.choice import Choice
from milan_onnx.exemplars import LayerExemplars

Values = NDArray[np.float64]
Ids = NDArray[np.int64]
How = Literal["number", "activations"]

FEWEST_PHOTOS = 16
"""Photos below which a correlation means little."""
STEPS = 1_000_000
"""Correlations are compared in steps of a millionth, so that last bits decide nothing."""
ROWS = 512
"""Units whose correlations with all others are looked at together."""
NEAR = 0.01
"""By how much another unit must correlate better before it counts as the better match."""


@dataclass(frozen=True)
class Match:
    """Pairs of units of two layers."""

    how: Choice[How]
    """How they were found, and why so."""

    before: Ids
    """The first layer's unit of each pair (P,), ascending."""

    after: Ids
    """The second's (P,)."""

    correlations: Values
    """Correlation of their fingerprints (P,); nan where it is not known."""


class Correlations:
    """Fingerprints of two layers held against one another."""

    def __init__(self, before: LayerExemplars, after: LayerExemplars) -> None:
        """Of layers whose runs have the same photos."""
        self.layers = before, after
        _, mine, theirs = np.intersect1d(before.sample, after.sample, return_indices=True)
        self.photos = len(mine)
        self._before = _standard(np.asarray(before.fingerprint)[:, mine])
        self._after = _standard(np.asarray(after.fingerprint)[:, theirs])

    @property
    def enough(self) -> bool:
        """Whether there are photos enough to tell units by them."""
        return self.photos >= FEWEST_PHOTOS

    def varying(self) -> tuple[Ids, Ids]:
        """The units of each layer whose fingerprint varies."""
        mine, theirs = self._before.any(axis=1), self._after.any(axis=1)
        return np.flatnonzero(mine), np.flatnonzero(theirs)

    def table(self, before: Ids, after: Ids) -> Values:
        """Correlations (n, m) of units (n,) and units (m,)."""
        return np.clip(self._before[before] @ self._after[after].T, -1, 1)

    def pairs(self, before: Ids, after: Ids) -> Values:
        """Correlations (P,) of pairs; nan where a fingerprint does not vary."""
        mine, theirs = self._before[before], self._after[after]
        found = np.clip((mine * theirs).sum(axis=1), -1, 1)
        return np.where(mine.any(axis=1) & theirs.any(axis=1), found, np.nan)


def by_number(
    before: LayerExemplars,
    after: LayerExemplars,
    correlations: Correlations | None,
    reason: str,
) -> Match:
    """Pairs of units that have the same number. ``correlations``: None where they are not known."""
    units = np.arange(min(before.units, after.units))
    found = correlations.pairs(units, units) if correlations else np.full(len(units), np.nan)
    return Match(Choice("number", reason), units, units, found)


def by_activations(correlations: Correlations, level: float, reason: str) -> Match:
    """Pairs of units whose activations correlate at ``level`` or more, one to one."""
    mine, theirs = correlations.varying()
    before, after = _best(correlations.table(mine, theirs), mine, theirs, level)
    still = _still_pairs(correlations, mine, theirs, level)
    before, after = np.append(before, still[0]), np.append(after, still[1])
    order = np.argsort(before)
    before, after = before[order], after[order]
    found = correlations.pairs(before, after)
    return Match(Choice("activations", reason), before, after, found)


def choose_match(correlations: Correlations, level: float) -> Match:
    """By number, unless that is not how the units correspond and activations tell how.

    It is where the layers are equally large and at least half of the varying units correlate best
    with the one of their number. Activations are believed where they match more than half.
    """
    before, after = correlations.layers
    own, of = _own(correlations)
    if before.units == after.units and 2 * own >= of:
        best = f"{own} of {of} units correlate best with the one of their number"
        return by_number(before, after, correlations, best if of else "no activation varies")
    why = (
        f"the layers have {before.units} and {after.units} units"
        if before.units != after.units
        else f"only {own} of {of} units correlate best with the one of their number"
    )
    match = by_activations(correlations, level, "")
    sure = int((match.correlations >= level).sum())
    fewer = min(map(len, correlations.varying()))
    found = f"{sure} of {fewer} find one that correlates at {level:g} or more"
    if 2 * sure > fewer:
        return replace(match, how=Choice("activations", f"{why}, and {found}"))
    return by_number(before, after, correlations, f"{why}, but only {found}")


def _own(correlations: Correlations) -> tuple[int, int]:
    """How many units correlate best with the one of their number, of those that vary in both."""
    mine, theirs = correlations.varying()
    both = np.intersect1d(mine, theirs)
    own = 0
    for part in np.split(both, range(ROWS, len(both), ROWS)):
        best = correlations.table(part, theirs).max(axis=1, initial=-1)
        own += int((correlations.pairs(part, part) >= best - NEAR).sum())
    return own, len(both)


def _standard(fingerprints: NDArray[np.float32]) -> Values:
    """Rows of mean 0 and length 1; zeros for rows that do not vary or are not finite."""
    values = fingerprints.astype(np.float64)
    good = np.isfinite(values).all(axis=1)
    values[~good] = 0
    if not values.shape[1]:
        return values
    good &= values.min(axis=1) < values.max(axis=1)
    values[~good] = 0
    largest = np.abs(values).max(axis=1, keepdims=True)  # squares of huge values would overflow
    values /= np.where(largest > 0, largest, 1)
    values -= values.mean(axis=1, keepdims=True) * good[:, None]
    length = np.sqrt((values * values).sum(axis=1, keepdims=True))
    return np.asarray(values / np.where(length > 0, length, 1))


def _best(table: Values, before: Ids, after: Ids, level: float) -> tuple[Ids, Ids]:
    """Pairs of greatest total in a table (n, m), those below the level left out.

    Among equal totals that with most units of the same number, so a layer matches itself.
    """
    if not table.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    steps = np.rint(np.maximum(table, level) * STEPS).astype(np.int64)
    same = before[:, None] == after[None, :]
    chosen = assign(steps * (min(table.shape) + 1) + same)
    rows = np.flatnonzero(chosen >= 0)
    rows = rows[table[rows, chosen[rows]] >= level]
    return before[rows], after[chosen[rows]]


def _still_pairs(
    correlations: Correlations, mine: Ids, theirs: Ids, level: float
) -> tuple[Ids, Ids]:
    """Pairs of units whose fingerprints do not vary, by the overlap of their exemplars."""
    before, after = correlations.layers
    left = np.setdiff1d(np.arange(before.units), mine)
    right = np.setdiff1d(np.arange(after.units), theirs)
    own = [exciting(before, unit) for unit in left.tolist()]
    others = [exciting(after, unit) for unit in right.tolist()]
    return _best(overlaps(own, others), left, right, level)


def exciting(layer: LayerExemplars, unit: int) -> frozenset[int]:
    """The images that excite a unit: its exemplars; of a sparse one those that it answers at all,
    of a dead or constant one none."""
    ids = np.asarray(layer.ids[unit])
    if layer.bottomed[unit]:
        ids = ids[np.asarray(layer.activations[unit]) > layer.thresholds[unit]]
    return frozenset(ids.tolist())


def overlaps(some: Sequence[frozenset[int]], others: Sequence[frozenset[int]]) -> Values:
    """Images in both as a share of those in either (n, m); 1 where both hold none."""
    place = {image: i for i, image in enumerate(sorted(frozenset().union(*some, *others)))}
    one, other = (np.zeros((len(sets), len(place))) for sets in (some, others))
    for table, sets in ((one, some), (other, others)):
        for row, images in enumerate(sets):
            table[row, [place[image] for image in images]] = 1
    common = one @ other.T
    either = one.sum(axis=1)[:, None] + other.sum(axis=1) - common
    return np.asarray(np.where(either > 0, common / np.maximum(either, 1), 1.0))
