"""Limits: what a rule measures, and whether that is more than is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from milan_onnx.applications.audit.policy import Rule
from milan_onnx.applications.audit.result import Comparison, Hit, Limit, Verdict
from milan_onnx.labels import UnitLabel, abstained_share

DIGITS = 6
SLACK = 1e-9
"""What is written as 2 % is not exceeded by 2 % computed."""


def judge(
    rule: Rule,
    labels: Sequence[UnitLabel],
    hits: tuple[Hit, ...],
    comparison: Comparison | None = None,
) -> Verdict:
    """The verdict on a rule; ``labels``: the units that it is on."""

    def limit(name: str, allowed: float) -> Limit:
        found = _measured(name, labels, hits, comparison)
        sign = -1 if name.startswith("min_") else 1
        broken = found is not None and sign * (found - allowed) > SLACK
        return Limit(name, allowed, found, broken)

    limits = tuple(limit(name, allowed) for name, allowed in rule.limits.items())
    return Verdict(rule, len(labels), hits, limits, comparison)


def _measured(
    name: str, labels: Sequence[UnitLabel], hits: Sequence[Hit], comparison: Comparison | None
) -> float | None:
    if name == "max_units":
        return len(hits)
    if name == "max_share":
        return _share(len(hits), len(labels))
    if name == "max_importance":
        return max((hit.importance for hit in hits if hit.importance is not None), default=None)
    if name == "max_increase":
        return None if comparison is None else comparison.increase
    return ON_LABELS[name](labels)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, DIGITS) if whole else None


def _abstained(labels: Sequence[UnitLabel]) -> float | None:
    return abstained_share(labels, DIGITS)


def _dead(labels: Sequence[UnitLabel]) -> float | None:
    return _share(sum(label.description is None for label in labels), len(labels))


def _correlation(labels: Sequence[UnitLabel]) -> float | None:
    found = [label.validity.correlation for label in labels if label.validity is not None]
    there = [value for value in found if value is not None]
    return round(math.fsum(there) / len(there), DIGITS) if there else None


ON_LABELS: dict[str, Callable[[Sequence[UnitLabel]], float | None]] = {
    "max_abstained": _abstained,
    "max_dead": _dead,
    "min_correlation": _correlation,
}
