"""The last stage: is a label true of photos that it was not made from?

Every described unit has held-out photos: its own most active ones and a random sample that all
units share. On each, the region that excites the unit is scored against the label: log p(d|region).
A label that is true of the unit scores high where the unit is active. Labels of other units of the
layer are scored on the same regions; what they reach is chance (docs/validity.md).

The language model has no part in it: within a unit log p(d) is one number, and neither correlation
nor precision changes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from milan_onnx.describing.encoding import (
    EVERYTHING,
    Ids,
    Regions,
    Uses,
    coarse_side,
    encode_regions,
)
from milan_onnx.describing.figures import average_precision, mean, pearson, quantile_bar
from milan_onnx.describing.job import Captioning, Job
from milan_onnx.describing.kept import Count, Kept
from milan_onnx.describing.labelling import Described
from milan_onnx.describing.scanning import Scanned
from milan_onnx.exemplars import HeldOut, LayerExemplars
from milan_onnx.files import atomic_file
from milan_onnx.labels import UnitLabel, Validity
from milan_onnx.runtime import Describer, Encoder
from milan_onnx.runtime.scoring import phrase_array

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]

SCORES = "scores.npz"
OTHERS = 2
"""Labels of other units that a unit's own is held against."""
LEAST_UNITS = 16
"""Fewer described units than this make no distribution of shuffled labels."""


@dataclass(frozen=True)
class Scored:
    """Scores of one layer's held-out photos."""

    units: Ids
    """The units that have a description (n,)."""

    others: Ids
    """For each, which of them lend it their labels (n, OTHERS); -1 for none."""

    scores: Scores
    """log p(d|region) (n, 1 + OTHERS, S): of its own label, then of the others'."""


@dataclass(frozen=True)
class _Figures:
    """How well one label predicts one unit."""

    correlation: float | None
    """Pearson's."""

    auprc: float | None
    """Average precision."""

    @property
    def strength(self) -> float:
        """What labels are compared by; the least possible where nothing can be said."""
        return -np.inf if self.correlation is None else self.correlation


def validate(
    job: Job,
    scanned: Scanned,
    described: Sequence[Sequence[Described]],
    score: Callable[[Sequence[Scored], Ids], None],
) -> list[UnitLabel]:
    """Labels of all layers with their validity; the scan must have held photos out.

    ``score`` puts in the scores of labels, of which it is given the token ids
    (`score_layers`); raises as it does.
    """
    held_out = scanned.held_out
    scored = [_unscored(held, units) for held, units in zip(held_out, described, strict=True)]
    score(scored, _phrase_table(scored, described))
    level = job.options.validity_level
    return [
        label
        for layer, held, units in zip(scored, scanned.held_out, described, strict=True)
        for label in judge(layer, held, [unit.label for unit in units], level)
    ]


def score_layers(
    job: Captioning,
    describer: Describer,
    encoder: Encoder,
    layers: Sequence[LayerExemplars],
    held_out: Sequence[HeldOut],
    scored: Sequence[Scored],
    table: Ids,
    kept: Kept,
) -> None:
    """Score labels on held-out photos, in place: each photo is encoded once, for all layers.

    ``table``: token ids (units of all layers, 1 + OTHERS, length). Goes on from what was kept.
    """
    regions = held_out_regions(job, layers, held_out, [layer.units for layer in scored])
    count = _count(kept, scored)
    for part in score_regions(job, describer, encoder, regions, table, count):
        put_scores(scored, *part)


def held_out_regions(
    job: Captioning,
    layers: Sequence[LayerExemplars],
    held_out: Sequence[HeldOut],
    units: Sequence[Ids],
) -> list[Regions]:
    """The regions of the held-out photos of some units of each layer."""
    spec = job.bundle.manifest.encoder
    return [
        _regions(layer, held, some, coarse_side(spec, held.grid))
        for layer, held, some in zip(layers, held_out, units, strict=True)
    ]


def score_regions(
    job: Captioning,
    describer: Describer,
    encoder: Encoder,
    regions: Sequence[Regions],
    table: Ids,
    count: Count,
    part: slice = EVERYTHING,
) -> Iterator[tuple[Uses, Scores]]:
    """log p(phrase|region) (n, 1 + OTHERS) of regions, part by part; ``part``: of the photos."""
    first = np.cumsum([0, *(len(layer.ids) for layer in regions)])

    def work(uses: Uses, features: Floats) -> tuple[Uses, Scores]:
        phrases = table[first[uses.layer] + uses.row]
        region = np.arange(len(features)).repeat(1 + OTHERS)
        found = describer.score(features[:, None], region, phrases.reshape(len(region), -1))
        return uses, found.reshape(-1, 1 + OTHERS)

    return encode_regions(job, regions, encoder, "validate", work, count, part)


def put_scores(scored: Sequence[Scored], uses: Uses, found: Scores) -> None:
    """Put scores of regions (n, 1 + OTHERS) where they belong."""
    for index in np.unique(uses.layer):
        mine = uses.layer == index
        scored[index].scores[uses.row[mine], :, uses.slot[mine]] = found[mine]


def _phrase_table(scored: Sequence[Scored], described: Sequence[Sequence[Described]]) -> Ids:
    """Token ids (units of all layers, 1 + OTHERS, length): of each its own label's, then the
    others'."""
    pairs = zip(scored, described, strict=True)
    table = phrase_array([p for s, d in pairs for p in _phrases(s, d)])
    return table.reshape(len(table) // (1 + OTHERS), 1 + OTHERS, table.shape[1])


def _count(kept: Kept, scored: Sequence[Scored]) -> Count:
    """The count of scored batches; their scores, where an earlier try kept them, are put in."""
    path = kept.folder / SCORES if kept.folder else None

    def keep() -> None:
        if path is not None:
            with atomic_file(path) as file:
                np.savez(file, *(layer.scores for layer in scored))

    count = Count(kept, "validate", keep)
    if path is None or count.done == 0:
        return count
    try:
        with np.load(path, allow_pickle=False) as found:
            for index, layer in enumerate(scored):
                layer.scores[...] = found[f"arr_{index}"]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        count.done = 0
    return count


def judge(
    layer: Scored, held_out: HeldOut, labels: Sequence[UnitLabel], level: float
) -> list[UnitLabel]:
    """Labels of a layer with their validity, and flagged where they are no better than others'.

    Of labels with a confidence it only measures: whether they abstain, that has decided. Another
    abstains when its correlation is not above 0, not above the mean of the others' on the
    same photos, or (but for layers of few units) not above that of all but a share ``level`` of the
    layer's shuffled labels: at most that share of them would pass.
    """
    figures = [_judged(held_out, layer, place) for place in range(len(layer.units))]
    shuffled = [other.strength for _, others in figures for other in others]
    bar = quantile_bar(shuffled, level) if len(figures) >= LEAST_UNITS and shuffled else 0.0
    result = list(labels)
    for unit, (own, others) in zip(layer.units.tolist(), figures, strict=True):
        chance = mean([other.correlation for other in others])
        flags = labels[unit].flags
        undecided = labels[unit].confidence is None
        if undecided and own.strength <= max(0.0, chance or 0.0, bar):
            flags = tuple(sorted({*flags, "abstained"}))
        result[unit] = replace(
            labels[unit],
            flags=flags,
            validity=Validity(
                correlation=own.correlation,
                auprc=own.auprc,
                shuffled_correlation=chance,
                shuffled_auprc=mean([other.auprc for other in others]),
                images=int((held_out.ids[unit] >= 0).sum()),
            ),
        )
    return result


def _judged(held_out: HeldOut, layer: Scored, place: int) -> tuple[_Figures, list[_Figures]]:
    """Figures of a unit's own label and of the others'."""
    unit = layer.units[place]
    slots = np.flatnonzero(held_out.ids[unit] >= 0)
    slots = slots[np.argsort(held_out.ids[unit, slots])]  # sums in the order of the images
    activations = held_out.activations[unit, slots].astype(np.float64)
    positive = slots < held_out.top
    lent = np.append(True, layer.others[place] >= 0)
    found = [
        _Figures(pearson(scores, activations), average_precision(scores, positive))
        for scores in layer.scores[place][lent][:, slots]
    ]
    return found[0], found[1:]


def _regions(layer: LayerExemplars, held_out: HeldOut, units: Ids, side: int) -> Regions:
    return Regions(
        ids=held_out.ids[units],
        maps=lambda rows, slots: held_out.maps(units[rows], slots),
        thresholds=np.asarray(layer.thresholds[units]),
        side=side,
    )


def _unscored(held_out: HeldOut, described: Sequence[Described]) -> Scored:
    """The units of a layer that have a description, and whose labels each is held against."""
    units = np.array([u for u, unit in enumerate(described) if unit.tokens], np.int64)
    others = shuffled([described[unit].tokens for unit in units.tolist()])
    return Scored(units, others, np.zeros((len(units), 1 + OTHERS, held_out.ids.shape[1])))


def shuffled(phrases: Sequence[tuple[int, ...]]) -> Ids:
    """For each phrase (n of them), OTHERS places of other, distinct phrases (n, OTHERS); or -1.

    They are sought from a third and two thirds of the way round, so every run takes the same, and
    neighbours in the layer do not lend to one another.
    """
    count = len(phrases)
    places = np.full((count, OTHERS), -1, np.int64)
    for own, phrase in enumerate(phrases):
        taken = {phrase, ()}
        for turn in range(OTHERS):
            begin = own + (turn + 1) * count // (OTHERS + 1)
            places[own, turn] = _next(phrases, begin, taken)
            if places[own, turn] >= 0:
                taken.add(phrases[places[own, turn]])
    return places


def _next(phrases: Sequence[tuple[int, ...]], begin: int, taken: set[tuple[int, ...]]) -> int:
    """The first place from ``begin``, round and round, whose phrase is not taken; -1 for none."""
    count = len(phrases)
    places = (place % count for place in range(begin, begin + count))
    return next((place for place in places if phrases[place] not in taken), -1)


def _phrases(layer: Scored, described: Sequence[Described]) -> list[tuple[int, ...]]:
    """For each unit its own label's tokens, then the others'; none for an other that is not."""
    own = [described[unit].tokens for unit in layer.units.tolist()]
    return [
        phrase
        for tokens, others in zip(own, layer.others.tolist(), strict=True)
        for phrase in (tokens, *(own[other] if other >= 0 else () for other in others))
    ]
