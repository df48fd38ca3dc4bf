"""Confidence: the probability that a person would call a description right (docs/confidence.md).

It is the one figure of a label that people are shown first, always as a whole percentage.
"""

from __future__ import annotations

from collections.abc import Iterable

from milan_onnx.labels.record import UnitLabel, rounded_score

ABSTAIN_BELOW = 0.25
"""A label of less confidence abstains, where no other limit is set: fewer than one in four such
labels is right, so that on the whole they mislead more than they tell."""


def abstains(confidence: float, below: float) -> bool:
    """Whether a label of this confidence, as it is written, lies below a limit."""
    return (rounded_score(confidence) or 0.0) < below


def has_confidence(labels: Iterable[UnitLabel]) -> bool:
    """Whether any label has a confidence: else people are shown its PMI."""
    return any(label.confidence is not None for label in labels)


def percent_text(confidence: float | None) -> str:
    """'73 %', or a dash. Rounded down: what is shown is reached, and 100 % is certainty."""
    rounded = rounded_score(confidence)
    return "–" if rounded is None else f"{round(10_000 * rounded) // 100} %"
