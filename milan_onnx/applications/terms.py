"""Scores of terms: a concept as the captioner would write it, in any number or spelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.phrases import PhraseScores, Scoring, score_phrases
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter
from milan_onnx.run import Run
from milan_onnx.wording import normalise


@dataclass(frozen=True)
class TermScores:
    """Scores of terms for units, in nats."""

    labels: tuple[UnitLabel, ...]
    """The units (U,): those that have something to describe."""

    terms: tuple[str, ...]
    """The terms (T,) that the captioner can say."""

    phrases: tuple[str, ...]
    """How it writes each of them: its likeliest spelling."""

    log_p_given_exemplars: NDArray[np.float64]
    """log p(term|E) (U, T), summed over spellings."""

    log_p: NDArray[np.float64]
    """log p(term) (T,), summed over spellings."""


def score_terms(run: Run, terms: Sequence[str], scoring: Scoring, say: Reporter) -> TermScores:
    """Score terms for all units of a run; terms that read the same are scored once.

    Raises the errors of `score_phrases`.
    """
    distinct = {normalise(term): term for term in reversed(terms)}
    wanted = [term for term in dict.fromkeys(terms) if distinct[normalise(term)] == term]
    return _by_term(score_phrases(run, wanted, scoring, say, spellings=True), wanted)


def _by_term(scores: PhraseScores, terms: Sequence[str]) -> TermScores:
    columns: dict[tuple[str, ...], list[int]] = {}
    for column, phrase in enumerate(scores.phrases):
        columns.setdefault(normalise(phrase), []).append(column)
    known = [(term, columns[normalise(term)]) for term in terms if normalise(term) in columns]
    given = [summed(scores.log_p_given_exemplars[:, ways]) for _, ways in known]
    prior = [summed(scores.log_p[ways]) for _, ways in known]
    likeliest = [ways[int(scores.log_p[ways].argmax())] for _, ways in known]
    return TermScores(
        labels=scores.labels,
        terms=tuple(term for term, _ in known),
        phrases=tuple(scores.phrases[column] for column in likeliest),
        log_p_given_exemplars=np.stack(given, axis=1)
        if given
        else np.zeros((len(scores.labels), 0)),
        log_p=np.array(prior),
    )


def summed(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of the sum of probabilities, over the last axis."""
    return np.asarray(np.logaddexp.reduce(log_p, axis=-1))
