"""What a request asks of the captioner, and how its answer is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from milan_onnx.runtime import Hypothesis, search_options
from milan_onnx.serve.captioning import messages as m
from milan_onnx.serve.captioning.engine import Answer, Describe, Engine, PhraseScore, Score


class Wish(Protocol):
    """One kind of request, understood."""

    @property
    def task(self) -> Describe | Score:
        """What each unit is asked."""

    def told(self, answers: Sequence[Answer]) -> BaseModel:
        """The answers of all units, as they are sent."""


@dataclass(frozen=True)
class DescribeWish:
    """Descriptions are wanted."""

    bundle: str
    """SHA-256 of the captioner's."""

    task: Describe
    """How."""

    @staticmethod
    def of(engine: Engine, form: m.DescribeForm) -> DescribeWish:
        """What a form asks. Raises UsageError for a search that the bundle cannot do."""
        given = {"strategy": form.strategy, "beam_size": form.beam_size}
        search = search_options(engine.bundle, pmi_weight=form.pmi_weight, **given)
        return DescribeWish(engine.bundle.sha256, Describe(search, form.candidates))

    def told(self, answers: Sequence[Answer]) -> m.Described:
        """All units."""
        return m.Described(bundle=self.bundle, units=[_described(found) for found in answers])


@dataclass(frozen=True)
class ScoreWish:
    """Scores of phrases are wanted."""

    bundle: str
    """SHA-256 of the captioner's."""

    task: Score
    """Their tokens."""

    phrases: tuple[str, ...]
    """The phrases as they were sent."""

    weight: float
    """λ of log p(d|E) - λ log p(d)."""

    @staticmethod
    def of(engine: Engine, form: m.ScoreForm) -> ScoreWish:
        """What a form asks. Raises PhraseUnknown naming the words that are not known."""
        tokens = tuple(engine.describer.tokens(phrase) for phrase in form.phrases)
        weight = engine.bundle.manifest.search.pmi_weight
        weight = weight if form.pmi_weight is None else form.pmi_weight
        return ScoreWish(engine.bundle.sha256, Score(tokens), tuple(form.phrases), weight)

    def told(self, answers: Sequence[Answer]) -> m.Scored:
        """All units."""
        units = [m.UnitScored(phrases=self._phrases(found)) for found in answers]
        return m.Scored(bundle=self.bundle, pmi_weight=self.weight, units=units)

    def _phrases(self, found: Answer) -> list[m.PhraseScored]:
        assert isinstance(found, Sequence)
        return [
            m.PhraseScored(
                phrase=phrase,
                pmi=score.log_p_given_exemplars - self.weight * score.log_p,
                log_p_given_exemplars=score.log_p_given_exemplars,
                log_p=score.log_p,
            )
            for phrase, score in zip(self.phrases, found, strict=True)
            if isinstance(score, PhraseScore)
        ]


def _described(found: Answer) -> m.UnitDescribed:
    assert isinstance(found, Sequence)
    told = [_candidate(one) for one in found if isinstance(one, Hypothesis)]
    if not told:
        best: dict[str, Any] = dict.fromkeys(m.DescriptionTold.model_fields)
    else:
        best = told[0].model_dump()
    return m.UnitDescribed(**best, candidates=told)


def _candidate(one: Hypothesis) -> m.DescriptionTold:
    return m.DescriptionTold(
        description=one.description,
        confidence=one.confidence,
        pmi=one.pmi,
        log_p_given_exemplars=one.log_p_given_exemplars,
        log_p=one.log_p,
    )
