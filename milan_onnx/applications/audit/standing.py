"""How far a group of concepts stands out in a unit: the decision of direct phrase scoring."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.audit.terms import TermScores, score_terms, summed
from milan_onnx.applications.lexicon import Group, shipped_lexicon
from milan_onnx.applications.phrases import Scoring
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.run import Run
from milan_onnx.wording import normalise

Floats = NDArray[np.float64]

FEW = 32
"""Units of which a layer alone does not tell what is usual: those of the run do."""
LEAST_SPREAD = 0.25
"""Nats: groups that the captioner hardly tells apart shall not look certain."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""


@dataclass(frozen=True)
class Place:
    """How a group stands in one unit."""

    chance: float
    """Share of units without the concept in which it would stand as high, 0..1."""

    term: str
    """Its likeliest term there."""

    phrase: str
    """That term as the captioner writes it."""


@dataclass(frozen=True)
class Standing:
    """How a group stands in the units of a run."""

    known: tuple[str, ...]
    """Its terms that the captioner can say."""

    unknown: tuple[str, ...]
    """Its other terms."""

    places: Mapping[tuple[str, int], Place]
    """By layer and unit; none of units with nothing to describe, or without known terms."""

    def of(self, label: UnitLabel) -> Place | None:
        """Of one unit."""
        return self.places.get((label.layer, label.unit))


def standings_of(
    run: Run, groups: Sequence[Group], scoring: Scoring, say: Reporter
) -> dict[str, Standing]:
    """How groups stand in the units of a run, by name. Raises the errors of `score_phrases`."""
    everyday = [word for group in shipped_lexicon("everyday").values() for word in group.words]
    asked = [word for group in groups for word in group.words]
    scores = score_terms(run, [*asked, *everyday], scoring, say)
    columns = {normalise(term): column for column, term in enumerate(scores.terms)}
    controls = [columns[key] for key in map(normalise, everyday) if key in columns]
    return {group.name: _standing(group, scores, columns, controls) for group in groups}


def _standing(
    group: Group,
    scores: TermScores,
    columns: Mapping[tuple[str, ...], int],
    controls: Sequence[int],
) -> Standing:
    known = {key: term for key, term in group.terms.items() if key in columns}
    unknown = tuple(term for key, term in group.terms.items() if key not in columns)
    own = [columns[key] for key in known]
    places = _places(scores, own, list(known.values()), controls) if own else {}
    return Standing(tuple(known.values()), unknown, places)


def _places(
    scores: TermScores, own: Sequence[int], terms: Sequence[str], controls: Sequence[int]
) -> dict[tuple[str, int], Place]:
    raised = raised_odds(scores.log_p_given_exemplars, scores.log_p, own, controls)
    best = scores.log_p_given_exemplars[:, own].argmax(axis=1)
    found = {}
    for rows, background in _backgrounds(scores.labels):
        for row, chance in zip(rows, chances(raised[rows], raised[background]), strict=True):
            label, place = scores.labels[row], int(best[row])
            phrase = scores.phrases[own[place]]
            found[label.layer, label.unit] = Place(float(chance), terms[place], phrase)
    return found


def raised_odds(
    given: Floats, prior: Floats, own: Sequence[int], controls: Sequence[int]
) -> Floats:
    """By how much exemplars raise the odds of a group against everyday things, in nats: (U,).

    ``given``: log p(term|E) (U, T); ``prior``: log p(term) (T,); ``own``: the group's terms;
    ``controls``: the everyday ones. Without controls the group's own log p is raised or not.
    """
    raised = summed(given[:, own]) - summed(prior[own])
    if len(controls):
        raised -= summed(given[:, controls]) - summed(prior[controls])
    return raised


def chances(raised: Floats, background: Floats) -> Floats:
    """The share of background units that would stand as high by chance: (U,), 0..1.

    The background is taken as normal around its median; its spread is its median absolute
    deviation, which units that do show the concept hardly move. Its middle is at most 0: where most
    units show the concept, the odds are raised in most.
    """
    middle = float(np.median(background))
    spread = NORMAL * float(np.median(np.abs(background - middle)))
    z = (raised - min(middle, 0.0)) / max(spread, LEAST_SPREAD)
    return np.array([math.erfc(value / math.sqrt(2)) / 2 for value in z])


def _backgrounds(labels: Sequence[UnitLabel]) -> list[tuple[list[int], list[int]]]:
    """Units by layer, with those that tell what is usual for them."""
    layers: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        layers[label.layer].append(row)
    everything = list(range(len(labels)))
    return [(rows, rows if len(rows) >= FEW else everything) for rows in layers.values()]
