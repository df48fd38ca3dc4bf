"""Units of trained networks, named by what their exemplars show."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from milan_onnx.export.backbones import ClassHead
from milan_onnx.export.features import FeatureSet
from milan_onnx.export.units import LOGITS
from milan_onnx.export.virtual_units import (
    UNSAID,
    SampleNames,
    VirtualUnit,
    coloured_names,
    concepts_of,
    wording,
)
from milan_onnx.regions import Names, NameTable

Ints = NDArray[np.int64]
Key = tuple[str, str]
Shares = Mapping[Key, float]
SHARED = 0.4
"""Share of a unit's exemplars that must show what it is named by."""
CLEAR = 0.2
"""Least ``share² * log(share / share in the layer)``: common things need more exemplars."""
NEAR = 0.75
"""Other names are used too whose score reaches this share of the best one's."""
SECOND = 0.25
"""Share of a unit's exemplars that must show the second of two things it is named by."""
PAIRS = 0.5
"""How often a unit that detects two things is named by both."""
OWN_CLASS = 0.1
"""Share of its exemplars from which on a unit of a classifier's last layer is always called by its
class; where fewer show it, as much less often."""
LAST = 0.9
"""Share of the units drawn that are of last layers: their names are all different, and without
them the captioner calls every second unit "animals"."""
COMMON = 0.75
"""A name of n units is drawn ``n ** (1 - COMMON)`` times as often as a name of one."""
CLASSES = 8
"""Likeliest classes of the backbone that count for a sample."""


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


@dataclass(frozen=True)
class ClassOdds:
    """The backbone's likeliest classes of samples, from its classifier on their features."""

    classes: Ints
    """Class numbers (R, CLASSES), likeliest first."""

    odds: NDArray[np.float32]
    """Their probabilities (R, CLASSES)."""

    first: int
    """Sample of the first row."""


@torch.inference_mode()
def class_odds(features: NDArray[np.float16], first: int, head: ClassHead) -> ClassOdds:
    """Likeliest classes of the samples from ``first`` on; ``features`` float16 (R, F) of all."""
    width = head.weight.shape[1]
    found = []
    for begin in range(first, len(features), 4096):
        last = torch.from_numpy(features[begin : begin + 4096, -width:]).float()
        logits = torch.nn.functional.linear(last, head.weight, head.bias)
        found.append(logits.softmax(-1).topk(CLASSES))
    return ClassOdds(
        np.concatenate([part.indices.numpy() for part in found]),
        np.concatenate([part.values.numpy() for part in found]),
        first,
    )


class Evidence:
    """What samples show: by their labels, and by what the backbone takes them for."""

    def __init__(
        self, features: FeatureSet, known: SampleNames, odds: ClassOdds, table: NameTable
    ) -> None:
        self._features, self._known, self._odds = features, known, odds
        self._classes = [table.of_class(number) for number in range(1000)]

    def of(self, row: int) -> dict[Key, float]:
        """Each concept, and how far the sample shows it (0 to 1)."""
        shown: defaultdict[Key, float] = defaultdict(float)
        for number, odds in self._likeliest(row):
            for key in self._concepts(row, self._classes[number]):
                shown[key] += odds
        return {**shown, **dict.fromkeys(concepts_of(self._features, self._known, row), 1.0)}

    def _likeliest(self, row: int) -> Iterable[tuple[int, float]]:
        place = row - self._odds.first
        return zip(self._odds.classes[place].tolist(), self._odds.odds[place].tolist(), strict=True)

    def _concepts(self, row: int, names: Names) -> Iterable[Key]:
        yield from (("name", name) for name in names.own if name not in UNSAID)
        yield from (("general", name) for name in names.general if name not in UNSAID)
        if self._known.colour[row]:
            yield from coloured_names(self._known.colour[row], names)


def name_units(
    evidence: Evidence,
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
        classes = [table.of_class(int(c)) for c in channels] if name.endswith(LOGITS) else None
        units += _of_layer(name, groups, evidence, classes)
    return units


def _of_layer(
    layer: str, groups: Sequence[Ints], evidence: Evidence, classes: Sequence[Names] | None
) -> list[RealUnit]:
    shown = [[evidence.of(int(row)) for row in rows] for rows in groups]
    shares = [_mean(unit) for unit in shown]
    base = _mean(shares)
    made = []
    for index, rows in enumerate(groups):
        scores = _scores(shares[index], base)
        said = _said(shown[index], scores, base)
        if classes is not None:
            said = _with_class(classes[index], shares[index], said)
        if said:
            made.append(_unit(layer, rows, said, scores))
    return made


def _mean(parts: Sequence[Shares]) -> dict[Key, float]:
    total: Counter[Key] = Counter()
    for part in parts:
        total.update(part)
    return {key: value / len(parts) for key, value in total.items()}


def _scores(shares: Shares, base: Shares, least: float = SHARED) -> dict[Key, float]:
    """How well each concept that enough exemplars show names the unit.

    The square prefers what is true of most exemplars to what is rarer in the layer.
    """
    return {
        key: share**2 * math.log(share / base[key])
        for key, share in shares.items()
        if share >= least
    }


def _said(
    shown: Sequence[Shares], scores: Mapping[Key, float], base: Shares
) -> dict[tuple[str, ...], float]:
    """Phrases of a unit, and how often to use them; none if nothing names it."""
    best = max(scores.values(), default=0.0)
    if best < CLEAR:
        return {}
    fitting = sorted(key for key, score in scores.items() if score >= NEAR * best)
    total = sum(scores[key] for key in fitting)
    said = {wording(*key): scores[key] / total for key in fitting}
    both = _two(shown, _best(scores), base)
    if both:
        said = {text: odds * (1 - PAIRS) for text, odds in said.items()} | {(both,): PAIRS}
    return said


def _best(scores: Mapping[Key, float]) -> Key:
    """The concept of the highest score; of two that are equal, the one that says more."""
    return max(sorted(scores, key=lambda key: (key[0] == "general", key)), key=scores.__getitem__)


def _two(shown: Sequence[Shares], first: Key, base: Shares) -> str:
    """Two things that a unit detects, where what does not show the first shows a second."""
    rest = [unit for unit in shown if unit.get(first, 0.0) < 0.5]
    if not rest or first[0] not in ("name", "general"):
        return ""
    part = len(rest) / len(shown)
    shares = {key: share * part for key, share in _mean(rest).items()}
    scores = {
        key: score
        for key, score in _scores(shares, base, SECOND).items()
        if key[0] in ("name", "general") and score > 0
    }
    second = _best(scores) if scores else first
    apart = set(second[1].split()).isdisjoint(first[1].split())
    return f"{first[1]} and {second[1]}" if apart else ""


def _with_class(
    names: Names, shares: Shares, said: Mapping[tuple[str, ...], float]
) -> dict[tuple[str, ...], float]:
    """Phrases of a unit of a classifier's last layer: its class, as far as exemplars show it."""
    if not names.own:
        return dict(said)
    own = min(1.0, shares.get(("name", names.own[0]), 0.0) / OWN_CLASS)
    if not said:
        return {(names.own[0],): 1.0} if own > 0.5 else {}
    mixed = {text: odds * (1 - own) for text, odds in said.items() if own < 1}
    return mixed | {(names.own[0],): own + mixed.get((names.own[0],), 0.0)}


def _unit(
    layer: str, rows: Ints, said: Mapping[tuple[str, ...], float], scores: Mapping[Key, float]
) -> RealUnit:
    accepted = {text for key in scores for text in wording(*key)}
    accepted.update(text for texts in said for text in texts)
    odds = np.array([*said.values()])
    return RealUnit(
        layer, rows, tuple(said), tuple((odds / odds.sum()).tolist()), frozenset(accepted)
    )


def balanced(units: Sequence[RealUnit]) -> NDArray[np.float64]:
    """How often to draw each unit: (units,).

    Common names ("animals", of every tenth unit) do not crowd out others, and units of last layers,
    whose names are all different, are LAST of what is drawn.
    """
    counts = Counter(unit.wording[0][0] for unit in units)
    weights = np.array([counts[unit.wording[0][0]] ** -COMMON for unit in units])
    last = np.array([unit.layer.endswith(LOGITS) for unit in units])
    for group, share in ((last, LAST), (~last, 1 - LAST)):
        weights[group] *= share / (weights[group].sum() or 1.0)
    return np.asarray(weights / weights.sum(), np.float64)
