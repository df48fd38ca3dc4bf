"""Units of trained networks, named by what their exemplars are labelled with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.export.features import FeatureSet
from milan_onnx.export.units import LOGITS
from milan_onnx.export.virtual_units import (
    SampleNames,
    VirtualUnit,
    concepts_of,
    wording,
)
from milan_onnx.regions import Names, NameTable

Ints = NDArray[np.int64]
Key = tuple[str, str]
SHARED = 0.5
"""Share of a unit's exemplars that must show what it is named by."""
CLEAR = 0.45
"""Least ``share * log(share / share in the layer)``: common things need more exemplars."""
NEAR = 0.75
"""Other names are used too whose score reaches this share of the best one's."""
OWN_CLASS = 0.75
"""How often a unit of a classifier's last layer is called by its class and not more generally."""


@dataclass(frozen=True)
class RealUnit:
    """A unit with a name."""

    layer: str
    """Network and layer."""

    rows: Ints
    """Samples of its exemplars (K,)."""

    wording: tuple[tuple[str, ...], ...]
    """For each concept that fits, the ways to say it."""

    odds: tuple[float, ...]
    """How often each concept is meant."""

    accepted: frozenset[str]
    """What it may be called without being wrong."""

    def draw(self, count: int, rng: np.random.Generator) -> VirtualUnit:
        """A training example with ``count`` of its exemplars."""
        rows = rng.choice(self.rows, min(count, len(self.rows)), replace=False)
        if len(rows) < count:
            rows = np.concatenate([rows, rng.choice(self.rows, count - len(rows))])
        said = self.wording[int(rng.choice(len(self.wording), p=self.odds))]
        return VirtualUnit(rows, str(rng.choice(said)), "real", self.accepted)


def name_units(
    features: FeatureSet,
    known: SampleNames,
    keys: Ints,
    first: int,
    layers: Sequence[tuple[str, Ints]],
    table: NameTable,
) -> list[RealUnit]:
    """Units whose exemplars share something that has a name.

    ``keys`` (R, 3) says of which layer, unit and rank the samples from row ``first`` on are;
    ``layers`` gives each layer's name and channel numbers.
    """
    order = np.lexsort(keys.T[::-1])
    rows, sorted_keys = order + first, keys[order]
    units: list[RealUnit] = []
    for index, (name, channels) in enumerate(layers):
        inside = sorted_keys[:, 0] == index
        of_layer, unit = rows[inside], sorted_keys[inside, 1]
        groups = [of_layer[unit == u] for u in range(len(channels))]
        if name.endswith(LOGITS):
            named = [table.of_class(int(c)) for c in channels]
            pairs = zip(named, groups, strict=True)
            units += [_of_class(name, n, g) for n, g in pairs if n.all]
        else:
            units += _of_layer(name, groups, features, known)
    return units


def _of_class(layer: str, names: Names, rows: Ints) -> RealUnit:
    odds = (OWN_CLASS, 1 - OWN_CLASS) if names.own and names.general else (1.0,)
    said = [texts[:1] for texts in (names.own, names.general) if texts]
    return RealUnit(layer, rows, tuple(said), odds, frozenset(names.all))


def _of_layer(
    layer: str, groups: Sequence[Ints], features: FeatureSet, known: SampleNames
) -> list[RealUnit]:
    counts = [_counts(rows, features, known) for rows in groups]
    total: Counter[Key] = Counter()
    for count in counts:
        total.update(count)
    samples = sum(map(len, groups))
    base = {key: value / samples for key, value in total.items()}
    made = (_named(layer, rows, count, base) for rows, count in zip(groups, counts, strict=True))
    return [unit for unit in made if unit is not None]


def _counts(rows: Ints, features: FeatureSet, known: SampleNames) -> Counter[Key]:
    return Counter(key for row in rows for key in set(concepts_of(features, known, int(row))))


def _named(
    layer: str, rows: Ints, count: Counter[Key], base: Mapping[Key, float]
) -> RealUnit | None:
    shares = {key: value / len(rows) for key, value in count.items()}
    scores = {
        key: share * math.log(share / base[key]) for key, share in shares.items() if share >= SHARED
    }
    best = max(scores.values(), default=0.0)
    if best < CLEAR:
        return None
    fitting = sorted(key for key, score in scores.items() if score >= NEAR * best)
    weight = np.array([scores[key] for key in fitting])
    texts = tuple(wording(*key) for key in fitting)
    accepted = {text for key in scores for text in wording(*key)}
    odds = tuple((weight / weight.sum()).tolist())
    return RealUnit(layer, rows, texts, odds, frozenset(accepted))


def balanced(units: Sequence[RealUnit]) -> NDArray[np.float64]:
    """How often to draw each unit, so that common names do not crowd out others: (units,)."""
    counts = Counter(unit.wording[0][0] for unit in units)
    weights = np.array([counts[unit.wording[0][0]] ** -0.5 for unit in units])
    return np.asarray(weights / weights.sum(), np.float64)
