"""Sentence similarity: the mean cosine of a description with the phrases that are true of a unit.

It rewards what exact matching does not ("wolves" for "dogs"), and it is generous: any two phrases
have a cosine well above zero, so it means little without its baselines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.sentences import SentenceModel
from milan_onnx.errors import ExtraMissing, UsageError
from milan_onnx.progress import Reporter

Values = NDArray[np.float64]


class Similarity:
    """Cosines of descriptions and phrases."""

    def __init__(self, model: SentenceModel) -> None:
        self._model = model

    def __call__(self, descriptions: Sequence[str], phrases: Sequence[Sequence[str]]) -> Values:
        """Mean cosine (U,) of each unit's description with its phrases; 0 where either is missing.

        ``descriptions`` (U,), empty where there is none; ``phrases``: some for each unit.
        """
        self.learn({*descriptions}.union(*phrases))
        means = np.zeros(len(descriptions))
        for unit, (text, said) in enumerate(zip(descriptions, phrases, strict=True)):
            if text and said:
                means[unit] = self.cosines([text], said).mean()
        return means

    def nearest(
        self, candidates: Sequence[Sequence[str]], phrases: Sequence[Sequence[str]]
    ) -> Values:
        """Largest cosine (U,) of any of a unit's candidates with any of its phrases.

        0 where either is missing; empty texts count as missing.
        """
        largest = np.zeros(len(candidates))
        for unit, (texts, said) in enumerate(zip(candidates, phrases, strict=True)):
            texts, said = [t for t in texts if t], [t for t in said if t]
            if texts and said:
                largest[unit] = self.cosines(texts, said).max()
        return largest

    def cosines(self, texts: Sequence[str], others: Sequence[str]) -> Values:
        """Cosines (texts, others), summed in one order whatever their number."""
        ours, theirs = (self._model.vectors(some).astype(np.float64) for some in (texts, others))
        return np.asarray((ours[:, None] * theirs[None]).sum(2))

    def learn(self, sentences: Iterable[str]) -> None:
        """Find the vectors of many sentences at once, which is faster than by and by."""
        self._model.vectors(sorted({*sentences} - {""}))


def choose_similarity(wanted: bool | None, say: Reporter) -> Similarity | None:
    """The similarity where it is wanted (True), or wanted if installed (None).

    Raises ExtraMissing where it is wanted and not installed.
    """
    if wanted is False:
        return None
    try:
        return Similarity(SentenceModel())
    except ExtraMissing as error:
        if wanted:
            raise
        say.note(f"sentence similarity is left out: {error}")
        return None


def demand_similarity(wanted: bool | None) -> Similarity:
    """The similarity, where nothing can be judged without it.

    Raises ExtraMissing where it is not installed, UsageError where it is not wanted.
    """
    if wanted is False:
        raise UsageError(
            "described units are judged by sentence similarity", hint="leave --no-similarity out"
        )
    return Similarity(SentenceModel())
