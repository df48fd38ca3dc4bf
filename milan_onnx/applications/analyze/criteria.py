"""Scores by which units can be ranked: what their descriptions are made of, and how sure they are.

The paper ranks units by some of these and takes them out of the network in that order, to see which
kinds of unit matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.analyze.reading import Reader, Reading
from milan_onnx.applications.sentences import SentenceModel
from milan_onnx.errors import ExtraMissing
from milan_onnx.labels import UnitLabel
from milan_onnx.progress import Reporter, Silent

Scores = NDArray[np.float64]
MAX_WORD_DIFFERENCE = "max word difference"


def criteria(
    labels: Sequence[UnitLabel],
    reader: Reader | None = None,
    *,
    word_difference: bool | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Scores]:
    """Scores (U,) of units by name, in the labels' order; nan where a unit has none.

    nouns, adjectives, verbs, adpositions, length, complexity; "max word difference": the largest
    squared distance between the vectors of two content words, 0 where there is but one;
    "kind:NAME": 1 where the description names that kind, else 0; validity: its correlation on
    held-out photos; confidence; pmi. A criterion that no unit has is left out.

    ``word_difference``: True demands it, None takes it where its package is installed. Raises
    ExtraMissing where it is wanted and not installed.
    """
    reader, say = reader or Reader(), reporter or Silent()
    units = [reader(label.description) if label.description else None for label in labels]
    found = {name: _scores(units, score) for name, score in _counted(reader).items()}
    if (model := _model(word_difference, say)) is not None:
        found[MAX_WORD_DIFFERENCE] = _differences(units, model)
    found["validity"] = _numbers(x.validity.correlation if x.validity else None for x in labels)
    found["confidence"] = _numbers(x.confidence for x in labels)
    found["pmi"] = _numbers(x.pmi for x in labels)
    return {name: scores for name, scores in found.items() if not np.isnan(scores).all()}


def _counted(reader: Reader) -> dict[str, Callable[[Reading], float]]:
    """What is counted in a description, by the criterion's name."""

    def speech(part: str) -> Callable[[Reading], float]:
        return lambda unit: float(unit.speech[part])

    def kind(name: str) -> Callable[[Reading], float]:
        return lambda unit: float(name in unit.kinds.all)

    parts = {f"{part}s": speech(part) for part in ("noun", "adjective", "verb", "adposition")}
    sizes: dict[str, Callable[[Reading], float]] = {
        "length": lambda unit: float(unit.length),
        "complexity": lambda unit: float(unit.complexity),
    }
    return parts | sizes | {f"kind:{name}": kind(name) for name in reader.finder.names}


def _scores(units: Sequence[Reading | None], score: Callable[[Reading], float]) -> Scores:
    return np.array([np.nan if unit is None else score(unit) for unit in units])


def _numbers(values: Iterable[float | None]) -> Scores:
    return np.array([np.nan if value is None else value for value in values])


def _model(wanted: bool | None, say: Reporter) -> SentenceModel | None:
    if wanted is False:
        return None
    try:
        return SentenceModel()
    except ExtraMissing as error:
        if wanted:
            raise
        say.note(f"the criterion {MAX_WORD_DIFFERENCE} is left out: {error}")
        return None


def _differences(units: Sequence[Reading | None], model: SentenceModel) -> Scores:
    """The largest squared distance between vectors of a description's content words."""
    words = sorted({word for unit in units if unit for word in unit.content})
    vectors = dict(zip(words, model.vectors(words).astype(np.float64), strict=True))

    def difference(unit: Reading) -> float:
        own = np.array([vectors[word] for word in unit.content])
        if len(own) < 2:
            return 0.0
        return float(((own[:, None] - own[None]) ** 2).sum(-1).max())

    return _scores(units, difference)
