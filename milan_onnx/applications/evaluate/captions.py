"""Descriptions of units by other searches than their run's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from milan_onnx.applications.evaluate.answers import TOP
from milan_onnx.bundle import SearchDefaults
from milan_onnx.runtime import Describer, Hypothesis
from milan_onnx.runtime.encoding import Floats


def search(
    describer: Describer,
    features: Sequence[Floats],
    options: SearchDefaults,
    progress: Callable[[int], None],
) -> list[list[str]]:
    """The five best descriptions of each unit (K, F)."""
    found = hypotheses(describer, features, options, progress)
    return [[hypothesis.description for hypothesis in texts] for texts in found]


def hypotheses(
    describer: Describer,
    features: Sequence[Floats],
    options: SearchDefaults,
    progress: Callable[[int], None],
) -> list[list[Hypothesis]]:
    """The same with their scores; units of one K are searched together."""
    found: list[list[Hypothesis]] = [[] for _ in features]
    for units in _by_exemplars(features):
        batch = np.stack([features[unit] for unit in units])
        texts = describer.describe(batch, options, candidates=TOP, progress=progress)
        for unit, best in zip(units, texts, strict=True):
            found[unit] = best
    return found


def _by_exemplars(features: Sequence[Floats]) -> Iterator[list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for unit, rows in enumerate(features):
        groups[len(rows)].append(unit)
    yield from (groups[k] for k in sorted(groups))
