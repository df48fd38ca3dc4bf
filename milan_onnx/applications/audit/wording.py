"""A verdict in words: what tables, JUnit, SARIF and Markdown all say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from milan_onnx.applications.audit.result import (
    Audit,
    Comparison,
    Evidence,
    Hit,
    Limit,
    Verdict,
    concepts_of,
)
from milan_onnx.labels import percent_text

NAMED = 4
"""Concepts that one line names."""
LIMITS = {
    "max_units": "at most {} units",
    "max_share": "at most {} of the units",
    "max_importance": "no importance above {}",
    "max_increase": "at most {} more of the units than the baseline",
    "max_abstained": "at most {} of the labels abstained",
    "max_dead": "at most {} of the units dead",
    "min_correlation": "a mean correlation of at least {}",
}
COUNTED = frozenset({"max_units", "max_share"})
"""Limits whose figure the number of hits says."""
SHARES = frozenset({"max_share", "max_increase", "max_abstained", "max_dead"})


def state(verdict: Verdict) -> str:
    """``kept`` or ``broken``."""
    return "broken" if verdict.broken else "kept"


def limit_text(limit: Limit) -> str:
    """What is allowed: ``at most 2 % of the units``."""
    return LIMITS[limit.name].format(_value(limit, limit.allowed))


def found_text(limit: Limit) -> str:
    """What was found: ``3.4 %``."""
    return "nothing to measure" if limit.found is None else _value(limit, limit.found)


def limits_text(verdict: Verdict) -> str:
    """All limits of a rule."""
    return "; ".join(map(limit_text, verdict.limits))


def hits_text(verdict: Verdict) -> str:
    """``11 of 320 units (3.4 %)``."""
    if not verdict.rule.groups:
        return f"{verdict.units} units"
    return f"{len(verdict.hits)} of {verdict.units} units ({percent(verdict.share)})"


def found_texts(verdict: Verdict) -> str:
    """Everything that was found, in the order of the limits, and the baseline's."""
    said = [hits_text(verdict)] if verdict.rule.groups else []
    said += [found_text(limit) for limit in verdict.limits if limit.name not in COUNTED]
    said += [comparison_text(verdict.comparison)] if verdict.comparison else []
    return "; ".join(said)


def outcome_text(verdict: Verdict) -> str:
    """Limits with what was found of each: one sentence without its full stop."""
    said = [hits_text(verdict)] if verdict.rule.groups else []
    for limit in verdict.limits:
        known = limit.name in COUNTED
        said.append(limit_text(limit) if known else f"{limit_text(limit)}: {found_text(limit)}")
    return "; ".join(said)


def concepts_text(verdict: Verdict) -> str:
    """What was found most: ``faces: face 5, skin: skin 2``."""
    return _listed([(g, t, n) for (g, t), n in _most(verdict)])


def comparison_text(comparison: Comparison) -> str:
    """The baseline's hits, and what it has not."""
    share = comparison.hits / comparison.units if comparison.units else 0.0
    only = _listed([(c.group, c.term, c.here) for c in comparison.only_here])
    new = f"; only here: {only}" if only else ""
    return f"{comparison.hits} of {comparison.units} units ({percent(share)}) in the baseline{new}"


def hit_text(hit: Hit) -> str:
    """Why a unit is a hit: one sentence without its full stop."""
    reasons = ", ".join(map(evidence_text, hit.evidence))
    sure = "" if hit.confidence is None else f" (confidence {percent_text(hit.confidence)})"
    return f"unit {hit.unit} of {hit.layer}: {reasons}{sure}"


def trust_column(hits: Iterable[Hit]) -> tuple[str, Callable[[Hit], str]]:
    """How far labels may be trusted, a column and its cells: their confidence, or where none of
    the hits has one their validity."""
    if any(hit.confidence is not None for hit in hits):
        return "confidence", lambda hit: percent_text(hit.confidence)
    return "validity", lambda hit: "" if hit.validity is None else f"{hit.validity:.2f}"


def evidence_text(evidence: Evidence) -> str:
    """``label "human faces" (faces: face)``."""
    where = {"label": "label", "candidates": "candidate", "phrases": "phrase"}[evidence.look]
    chance = "" if evidence.chance is None else f", chance {evidence.chance:.2g}"
    return f'{where} "{evidence.text}" ({evidence.group}: {evidence.term}{chance})'


def summary_text(audit: Audit) -> str:
    """``2 of 6 rules broken: no faces, few texts``."""
    broken = ", ".join(verdict.rule.name for verdict in audit.broken)
    return f"{len(audit.broken)} of {len(audit.verdicts)} rules broken" + (
        f": {broken}" if broken else ""
    )


def percent(share: float) -> str:
    """``3.4 %``."""
    return f"{100 * share:.3g} %"


def _value(limit: Limit, value: float) -> str:
    return percent(value) if limit.name in SHARES else f"{value:.4g}"


def _most(verdict: Verdict) -> list[tuple[tuple[str, str], int]]:
    return sorted(concepts_of(verdict.hits).items(), key=lambda item: (-item[1], item[0]))


def _listed(concepts: list[tuple[str, str, int]]) -> str:
    more = len(concepts) - NAMED
    named = ", ".join(f"{group}: {term} {count}" for group, term, count in concepts[:NAMED])
    return f"{named} and {more} more" if more > 0 else named
