"""Sentence similarity: the mean cosine of a description with the phrases that are true of a unit.

It rewards what exact matching does not ("wolves" for "dogs"), and it is generous: any two phrases
have a cosine well above zero, so it means little without its baselines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.sentences import SentenceModel
from milan_onnx.errors import ExtraMissing
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
        sentences = {*descriptions}.union(*phrases) - {""}
        order = sorted(sentences)
        vectors = self._model.vectors(order).astype(np.float64)
        place = {sentence: index for index, sentence in enumerate(order)}
        means = np.zeros(len(descriptions))
        for unit, (text, said) in enumerate(zip(descriptions, phrases, strict=True)):
            if text and said:
                theirs = vectors[[place[phrase] for phrase in said]]
                means[unit] = (theirs * vectors[place[text]]).sum(1).mean()
        return means


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
