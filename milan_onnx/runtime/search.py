"""The search for descriptions: beams of log p(d|E), then argmax of log p(d|E) - λ log p(d).

This is MILAN's decoding (section 3 and the paper's code): a beam of 50 hypotheses of at most
15 tokens, the stop token included, scored by sums of log-probabilities without a length norm;
a hypothesis that has stopped keeps its place at its score; one that never stops competes as it is.
The survivors are ranked by pointwise mutual information.

``consensus`` is the same search; which of the survivors is told first, the others decide
(`milan_onnx.runtime.consensus`). ``beam`` leaves the last step out, and ``greedy`` keeps one
hypothesis. With ``legacy`` the quirks of the paper's code are repeated (see `Objective` and
`rerank`).

Rows are ragged: stopped hypotheses leave the batch, and what depends on a common parent is
computed once. Order is total: scores are compared in steps of 1e-6, ties by the token ids, so the
result does not depend on which units share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import SearchDefaults, VocabularySpec
from milan_onnx.runtime.confidence import coherence
from milan_onnx.runtime.prior import log_prior
from milan_onnx.runtime.scoring import score_phrases
from milan_onnx.runtime.stepping import Captioner, CaptionerStep, LanguageModel, Start, States

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]
Ids = NDArray[np.int64]

RESOLUTION = 1e-6
NONE = np.empty(0, np.float32)
BATCH = 32
"""Units that are searched together; fixed, so that a resumed run cuts the same batches."""


@dataclass(frozen=True)
class Beams:
    """The hypotheses of U units, best first."""

    tokens: Ids
    """Token ids (U, B, length), -1 after the end. A stopped hypothesis ends with the stop token."""

    score: Scores
    """What the beam ranked by, log p(d|E) but for legacy strategies (U, B); -inf where a unit has
    fewer than B hypotheses."""

    coherence: Scores | None = field(default=None, kw_only=True)
    """How alike the exemplars of each unit are (U,) (see `coherence`); None where the captioner's
    first context is not of exemplars."""

    phrase_vector: Floats | None = field(default=None, kw_only=True)
    """The phrase vector predicted of each unit (U, D); None: the captioner predicts none."""


@dataclass(frozen=True)
class RankedBeams(Beams):
    """Hypotheses ranked by pointwise mutual information, or as the strategy says."""

    log_p_given_exemplars: Scores
    """log p(d|E) (U, B)."""

    log_p: Scores
    """log p(d) (U, B)."""

    pmi: Scores
    """log p(d|E) - λ log p(d) (U, B), descending."""


@dataclass(frozen=True)
class _Hypotheses:
    """H hypotheses of all units, ordered by unit and rank, all with t tokens or stopped before."""

    unit: Ids
    """Which unit each describes (H,)."""

    score: Scores
    """log p(d|E) so far (H,)."""

    tokens: Ids
    """Tokens (H, t), -1 after the stop token."""

    live: NDArray[np.bool_]
    """Not stopped yet (H,)."""

    order: Ids
    """Rank of the tokens among the unit's hypotheses in dictionary order (H,)."""

    row: Ids
    """Parent row in the last step's states (H,); meaningless once stopped."""


class Objective:
    """What the beam ranks by: log p(d|E); in the paper's code, when it does not rerank, each step's
    log p(w|E) - λ log p(w)."""

    def __init__(
        self, captioner: Captioner, language_model: LanguageModel | None, pmi_weight: float
    ) -> None:
        """Without a language model: log p(d|E)."""
        self._captioner, self._language_model = captioner, language_model
        self._weight = pmi_weight

    def start(self, features: Floats) -> Start:
        """Of units from features float32 (U, K, F); states of both models, where there are two."""
        start = self._captioner.start(features)
        if self._language_model is None:
            return start
        prior = [state.repeat(len(features), axis=0) for state in self._language_model.start()]
        return start._replace(states=[*start.states, *prior])

    def step(
        self,
        contexts: Sequence[Floats],
        unit: Ids,
        states: States,
        parent: Ids,
        token: Ids,
        top: int,
        vocabulary: int,
    ) -> CaptionerStep:
        """Append ``token`` (R,) to parents (P,): the next tokens and what they add to the score."""
        if self._language_model is None:
            return self._captioner.step(contexts, unit, states, parent, token, top)
        count = len(states) - len(self._language_model.start())
        given = self._captioner.step(contexts, unit, states[:count], parent, token, vocabulary)
        row = np.arange(len(token)).repeat(vocabulary)
        log_p, prior = self._language_model.step(
            states[count:], parent, token, row, given.next_token.reshape(-1)
        )
        added = given.log_prob - np.float32(self._weight) * log_p.reshape(given.log_prob.shape)
        return CaptionerStep(added, given.next_token, NONE, [*given.states, *prior])


def search(
    captioner: Captioner,
    language_model: LanguageModel,
    features: Floats,
    vocabulary: VocabularySpec,
    options: SearchDefaults,
) -> RankedBeams:
    """Describe units from their exemplars' features float32 (U, K, F)."""
    beams = find_beams(captioner, language_model, features, vocabulary, options)
    return rank(beams, captioner, language_model, features, vocabulary, options)


def find_beams(
    captioner: Captioner,
    language_model: LanguageModel,
    features: Floats,
    vocabulary: VocabularySpec,
    options: SearchDefaults,
) -> Beams:
    """The hypotheses of each unit by the strategy's own objective."""
    afterwards = options.strategy in ("rerank", "consensus")
    inside = options.legacy and not afterwards and options.pmi_weight != 0
    objective = Objective(captioner, language_model if inside else None, options.pmi_weight)
    if options.strategy == "greedy":
        options = replace(options, beam_size=1)
        if options.legacy:  # it goes on after the stop token, and adds up what follows
            vocabulary = replace(vocabulary, stop=-1)
    return beam_search(objective, features, vocabulary, options)


def rank(
    beams: Beams,
    captioner: Captioner,
    language_model: LanguageModel,
    features: Floats,
    vocabulary: VocabularySpec,
    options: SearchDefaults,
    longest: int = 0,
) -> RankedBeams:
    """Hypotheses with all their scores, in the order of the strategy; for ``consensus`` by PMI.

    ``longest``: see `rerank`. ``pmi`` of the other strategies is what their beam ranked by.
    """
    if options.strategy in ("rerank", "consensus"):
        weight, after = options.pmi_weight, longest if options.legacy else 0
        return rerank(beams, language_model, vocabulary, weight, after)
    ended = _cut(beams.tokens, vocabulary.stop)
    units, size, length = ended.shape
    flat = ended.reshape(units * size, length)
    log_p = log_prior(language_model, flat, vocabulary).reshape(units, size)
    given = beams.score
    if options.legacy:
        unit = np.arange(units).repeat(size)
        scored = score_phrases(captioner, features, unit, flat, vocabulary.start)
        given = np.where(np.isfinite(beams.score), scored.reshape(units, size), -np.inf)
    return RankedBeams(
        ended,
        beams.score,
        given,
        log_p,
        beams.score,
        coherence=beams.coherence,
        phrase_vector=beams.phrase_vector,
    )


def _cut(tokens: Ids, stop: int) -> Ids:
    """Token sequences with -1 after their first stop token."""
    stopped = np.cumsum(tokens == stop, axis=-1) - (tokens == stop)
    return np.where(stopped > 0, -1, tokens)


def beam_search(
    objective: Objective, features: Floats, vocabulary: VocabularySpec, options: SearchDefaults
) -> Beams:
    """The ``beam_size`` best hypotheses of the objective that beam search finds."""
    units = len(features)
    contexts, states, predicted = objective.start(features)
    beam = _Hypotheses(
        unit=np.arange(units),
        score=np.zeros(units),
        tokens=np.empty((units, 0), np.int64),
        live=np.ones(units, bool),
        order=np.zeros(units, np.int64),
        row=np.arange(units),
    )
    for _ in range(options.length):
        if not beam.live.any():
            break
        beam, states = _advance(beam, objective, contexts, states, vocabulary, options)
    alike = coherence(contexts[0]) if contexts and contexts[0].ndim == 3 else None
    return replace(_collect(beam, units, options), coherence=alike, phrase_vector=predicted)


def rerank(
    beams: Beams,
    language_model: LanguageModel,
    vocabulary: VocabularySpec,
    pmi_weight: float,
    longest: int = 0,
) -> RankedBeams:
    """Order hypotheses by log p(d|E) - λ log p(d).

    ``longest`` is for the paper's code: it pads descriptions with stop tokens to the longest of
    all units that were searched together, and its language model counts the first of them, so that
    log p(d) has one term too many in all that are shorter. 0 counts none.
    """
    units, size, length = beams.tokens.shape
    tokens = _stopped_twice(beams.tokens, vocabulary.stop, longest) if longest else beams.tokens
    flat = tokens.reshape(units * size, length)
    log_p = log_prior(language_model, flat, vocabulary).reshape(units, size)
    given = beams.score
    real = np.isfinite(given)
    pmi = np.where(real, given - pmi_weight * np.where(real, log_p, 0), -np.inf)
    order = np.empty((units, size), np.int64)
    for unit in range(units):
        keys = [beams.tokens[unit, :, t] for t in range(length - 1, -1, -1)]
        order[unit] = np.lexsort((*keys, -_steps(pmi[unit])))
    ranked = np.take_along_axis(given, order, axis=1)
    return RankedBeams(
        tokens=np.take_along_axis(beams.tokens, order[:, :, None], axis=1),
        score=ranked,
        log_p_given_exemplars=ranked,
        log_p=np.take_along_axis(log_p, order, axis=1),
        pmi=np.take_along_axis(pmi, order, axis=1),
        coherence=beams.coherence,
        phrase_vector=beams.phrase_vector,
    )


def longest_of(beams: Beams) -> int:
    """Tokens of the longest description."""
    return int((beams.tokens >= 0).sum(axis=-1).max(initial=0))


def _stopped_twice(tokens: Ids, stop: int, longest: int) -> Ids:
    """Token sequences with a second stop token, where they are shorter than ``longest``."""
    doubled = tokens.copy()
    unit, beam, place = np.nonzero(tokens[:, :, : longest - 1] == stop)
    doubled[unit, beam, place + 1] = stop
    return doubled


def _advance(
    beam: _Hypotheses,
    objective: Objective,
    contexts: Sequence[Floats],
    states: States,
    vocabulary: VocabularySpec,
    options: SearchDefaults,
) -> tuple[_Hypotheses, States]:
    """One token further: step the live rows, keep the best of them and of the stopped ones."""
    live = np.flatnonzero(beam.live)
    last = beam.tokens[live, -1] if beam.tokens.shape[1] else np.full(live.size, vocabulary.start)
    parents, parent = np.unique(beam.row[live], return_inverse=True)
    unit = np.empty(parents.size, np.int64)
    unit[parent] = beam.unit[live]
    step = objective.step(
        contexts,
        unit,
        [state[parents] for state in states],
        parent.astype(np.int64),
        last,
        min(options.beam_size, vocabulary.size),
        vocabulary.size,
    )
    log_prob = step.log_prob.astype(np.float64)
    log_prob[_barred(step.next_token, beam.tokens[live], options)] = -np.inf
    row, column = _contenders(beam, live, log_prob, options.beam_size)
    children = _children(beam, live, row, step.next_token[row, column], log_prob[row, column])
    return _best(children, beam, vocabulary, options.beam_size), step.states


def _barred(candidates: Ids, tokens: Ids, options: SearchDefaults) -> NDArray[np.bool_]:
    """Which next tokens (R, k) are forbidden, or would repeat an n-gram of the row (R, t)."""
    barred = np.isin(candidates, options.forbid)
    n, length = options.no_repeat, tokens.shape[1]
    for start in range(length - n + 1 if n else 0):
        same = (tokens[:, start : start + n - 1] == tokens[:, length - n + 1 :]).all(axis=1)
        barred |= same[:, None] & (candidates == tokens[:, start + n - 1, None])
    return barred


def _contenders(beam: _Hypotheses, live: Ids, log_prob: Scores, size: int) -> tuple[Ids, Ids]:
    """Rows and columns of the next tokens that may be among their unit's ``size`` best."""
    totals = beam.score[live, None] + log_prob
    units = int(beam.unit[-1]) + 1
    unit = beam.unit[live]
    place = np.arange(live.size) - np.searchsorted(unit, unit)
    width = totals.shape[1]
    dense = np.full((units, int(place.max()) + 1, width), -np.inf)
    dense[unit, place] = totals
    flat = dense.reshape(units, -1)
    # A stopped hypothesis can only raise the bar, so leaving them out keeps enough.
    kth = max(0, flat.shape[1] - size)
    bar = np.partition(flat, kth, axis=1)[:, kth] - 2 * RESOLUTION
    row, column = np.nonzero((totals >= bar[unit, None]) & np.isfinite(totals))
    return row, column


def _children(beam: _Hypotheses, live: Ids, row: Ids, token: Ids, log_prob: Scores) -> _Hypotheses:
    parent = live[row]
    return _Hypotheses(
        unit=beam.unit[parent],
        score=beam.score[parent] + log_prob,
        tokens=np.concatenate((beam.tokens[parent], token[:, None]), axis=1),
        live=np.ones(parent.size, bool),
        order=beam.order[parent],
        row=row,
    )


def _best(
    children: _Hypotheses, beam: _Hypotheses, vocabulary: VocabularySpec, size: int
) -> _Hypotheses:
    """The ``size`` best of the children and of the beam's stopped hypotheses, for each unit."""
    stopped = np.flatnonzero(~beam.live)
    blank = np.full((stopped.size, 1), -1)
    unit = np.concatenate((children.unit, beam.unit[stopped]))
    score = np.concatenate((children.score, beam.score[stopped]))
    tokens = np.concatenate((children.tokens, np.hstack((beam.tokens[stopped], blank))))
    live = np.concatenate((children.live, np.zeros(stopped.size, bool)))
    row = np.concatenate((children.row, np.zeros(stopped.size, np.int64)))
    parent_order = np.concatenate((children.order, beam.order[stopped]))
    live &= tokens[:, -1] != vocabulary.stop
    ranked = np.lexsort((tokens[:, -1], parent_order, -_steps(score), unit))
    first = np.searchsorted(unit[ranked], unit[ranked])
    kept = ranked[np.arange(ranked.size) - first < size]
    return _Hypotheses(
        unit=unit[kept],
        score=score[kept],
        tokens=tokens[kept],
        live=live[kept],
        order=_dictionary_order(unit[kept], parent_order[kept], tokens[kept, -1]),
        row=row[kept],
    )


def _dictionary_order(unit: Ids, parent_order: Ids, token: Ids) -> Ids:
    """Rank in dictionary order, from the parents' ranks and the appended tokens."""
    order = np.empty(unit.size, np.int64)
    order[np.lexsort((token, parent_order, unit))] = np.arange(unit.size)
    return order


def _steps(score: Scores) -> Scores:
    """Scores in whole steps of the resolution: equal within it, but for the steps' edges."""
    return np.round(score / RESOLUTION)


def _collect(beam: _Hypotheses, units: int, options: SearchDefaults) -> Beams:
    size, length = options.beam_size, options.length
    tokens = np.full((units, size, length), -1, np.int64)
    score = np.full((units, size), -np.inf)
    place = np.arange(beam.unit.size) - np.searchsorted(beam.unit, beam.unit)
    tokens[beam.unit, place, : beam.tokens.shape[1]] = beam.tokens
    score[beam.unit, place] = beam.score
    return Beams(tokens, score)
