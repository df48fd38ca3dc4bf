"""The probability that a person would call a description right, by the bundle's calibration.

It is logistic regression: 1 / (1 + exp(-(bias + sum of weight * input))). The inputs are those of
`milan_onnx.bundle.CALIBRATION_INPUTS` that the calibration has weights of:

    agreement                how much the unit's other hypotheses say the same (`runtime.consensus`)
    log_p_given_exemplars    log p(d|E) by its number of tokens, the stop token included
    log_p                    log p(d), by the same
    pmi                      log p(d|E) - λ log p(d), by the same
    words                    its number of tokens, without the stop token
    predicted                cosine of its phrase vector with the one that the captioner predicts
    certainty                the same averaged over the unit's hypotheses by their weights
    coherence                how alike the unit's exemplars are to the captioner: the mean cosine of
                             pairs of rows of its first context tensor, a row an exemplar
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import CALIBRATION_INPUTS, Calibration, SearchDefaults
from milan_onnx.runtime.hypothesis import Hypothesis

Scores = NDArray[np.float64]

BY_CONSENSUS = frozenset({"agreement", "predicted", "certainty"})
"""Inputs that only the search ``consensus`` finds."""


def calibration_inputs(
    found: Hypothesis, coherence: float | None, stop: int
) -> dict[str, float | None]:
    """All inputs of a hypothesis; None for what is not known of it.

    ``coherence``: of its unit; ``stop``: the stop token.
    """
    length = len(found.tokens)
    scores = {
        "log_p_given_exemplars": found.log_p_given_exemplars,
        "log_p": found.log_p,
        "pmi": found.pmi,
    }
    each = {name: score / length if length else None for name, score in scores.items()}
    words = float(sum(token != stop for token in found.tokens)) if length else None
    return {
        "agreement": found.agreement,
        **each,
        "words": words,
        "coherence": coherence,
        "predicted": found.predicted,
        "certainty": found.certainty,
    }


def confidence(calibration: Calibration, inputs: Mapping[str, float | None]) -> float | None:
    """The probability, 0..1; None where an input that has a weight is not known."""
    total = calibration.bias
    for name in CALIBRATION_INPUTS:  # always in this order: the sum's last bits depend on it
        if name in calibration.weights:
            value = inputs[name]
            if value is None:
                return None
            total += calibration.weights[name] * value
    odds = math.exp(-abs(total))  # never too large
    return (1.0 if total >= 0 else odds) / (1 + odds)


def why_none(calibration: Calibration | None, search: SearchDefaults, exemplars: int) -> str:
    """Why hypotheses of units of so many exemplars will have no confidence; empty: they will."""
    if calibration is None:
        return "the bundle has no calibration"
    if BY_CONSENSUS & calibration.weights.keys() and search.strategy != "consensus":
        return "the bundle's calibration needs the search consensus"
    if "coherence" in calibration.weights and exemplars < 2:
        return "the bundle's calibration needs two exemplars a unit"
    return ""


def coherence(context: NDArray[np.float32]) -> Scores:
    """Mean cosine of pairs of exemplars by a context tensor (U, K, D): float64 (U,).

    A row of zeros is like no other (0). NaN for a unit of one exemplar.
    """
    rows = context.astype(np.float64)
    length = np.sqrt((rows * rows).sum(axis=2, keepdims=True))
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    total, count = rows.sum(axis=1), rows.shape[1]
    if count < 2:
        return np.full(len(rows), np.nan)
    # All pairs at once: the square of a sum, less each row with itself.
    pairs = (total * total).sum(axis=1) - (rows * rows).sum(axis=2).sum(axis=1)
    return np.asarray(pairs / (count * (count - 1)))
