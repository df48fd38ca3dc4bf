"""How far a group of concepts stands out in a unit: the decision of direct phrase scoring.

log p(term|E) alone favours what is often said, and the best of many terms is high by chance. So all
terms of a group are added up, and so are hundreds of everyday ones, and it is asked by how much a
unit's exemplars raise the odds of the one against the other (docs/audit.md has what was measured).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.lexicon import Group, Lexicon, shipped_lexicon
from milan_onnx.applications.phrases import Scoring
from milan_onnx.applications.terms import TermScores, score_terms, summed
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.run import Run
from milan_onnx.wording import normalise

Floats = NDArray[np.float64]

RIVALS = "rivals"
"""The shipped lexicon of groups that a group may be `against`."""
LEAST_LOG_P = -13.0
"""Nats. A term that the language model finds less likely is words that it never puts together."""


@dataclass(frozen=True)
class Place:
    """How a group stands in one unit."""

    raised: float
    """By how much its exemplars raise the odds of the group, in nats."""

    term: str
    """Its likeliest term there."""

    phrase: str
    """That term as the captioner writes it."""

    @property
    def chance(self) -> float:
        """Share of units without the concept that stand as high, at most (see `raised_odds`)."""
        return math.exp(-max(0.0, self.raised))


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

    @property
    def everywhere(self) -> bool:
        """Whether it stands high in most units: then it tells them not apart."""
        raised = [place.raised for place in self.places.values()]
        return bool(raised) and float(np.median(raised)) > 0


def standings_of(
    run: Run, groups: Sequence[Group], lexicon: Lexicon, scoring: Scoring, say: Reporter
) -> dict[str, Standing]:
    """How groups stand in the units of a run, by name.

    ``lexicon``: where the groups are found that they are against. Raises the errors of
    `score_phrases`.
    """
    everyday = [word for group in shipped_lexicon("everyday").values() for word in group.words]
    known = shipped_lexicon(RIVALS) | dict(lexicon)
    rivals = {
        group.name: [*everyday, *(word for name in group.against for word in known[name].words)]
        for group in groups
    }
    asked = [word for group in groups for word in (*group.words, *rivals[group.name])]
    scores = score_terms(run, asked, scoring, say)
    return {group.name: _standing(group, scores, rivals[group.name]) for group in groups}


def _standing(group: Group, scores: TermScores, rivals: Sequence[str]) -> Standing:
    columns = {normalise(term): column for column, term in enumerate(scores.terms)}
    known = {
        key: term
        for key, term in group.terms.items()
        if key in columns and scores.log_p[columns[key]] >= LEAST_LOG_P
    }
    unknown = tuple(term for key, term in group.terms.items() if key not in known)
    terms, own = list(known.values()), [columns[key] for key in known]
    if not own:
        return Standing((), unknown, {})
    others = {columns[key] for key in map(normalise, rivals) if key in columns}
    controls = sorted(others.difference(own))
    raised = raised_odds(scores.log_p_given_exemplars, scores.log_p, own, controls)
    best = scores.log_p_given_exemplars[:, own].argmax(axis=1).tolist()
    places = {
        (label.layer, label.unit): Place(float(odds), terms[term], scores.phrases[own[term]])
        for label, odds, term in zip(scores.labels, raised, best, strict=True)
    }
    return Standing(tuple(terms), unknown, places)


def raised_odds(
    given: Floats, prior: Floats, own: Sequence[int], controls: Sequence[int]
) -> Floats:
    """By how much exemplars raise the odds of a group against everyday things, in nats: (U,).

    ``given``: log p(term|E) (U, T); ``prior``: log p(term) (T,); ``own``: the group's terms;
    ``controls``: the everyday ones; without any, the group's own log p is raised or not.

    By Bayes this is log p(E|group) - log p(E|everyday). The ratio of two likelihoods has the mean 1
    where the second is the true one, so that it reaches 1/a in at most a share of a of the units
    that show everyday things (Markov), as far as the captioner is right about probabilities.
    """
    raised = summed(given[:, own]) - summed(prior[own])
    if len(controls):
        raised = raised - (summed(given[:, controls]) - summed(prior[controls]))
    return np.asarray(raised)
