"""What an audit found: a verdict a rule, and the units behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from milan_onnx.applications.audit.policy import SEVERITIES, Look, Rule, Severity
from milan_onnx.labels.record import rounded_score

FORMAT = "milan-onnx-audit"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Evidence:
    """Why a unit counts as one of a group."""

    look: Look
    """Where it was seen."""

    group: str
    """The group."""

    term: str
    """The group's term."""

    text: str
    """What holds it: a description, or the phrase that was scored."""

    chance: float | None = None
    """Of a phrase: the share of units without the concept that would do as well, at most."""


@dataclass(frozen=True)
class Hit:
    """A unit that a rule is about."""

    layer: str
    """Name of the tensor."""

    unit: int
    """Index of the channel."""

    description: str | None
    """Its label."""

    validity: float | None
    """Its label's correlation on held-out photos; None where it was not tested."""

    confidence: float | None
    """Its label's confidence; None where it has none."""

    importance: float | None
    """How much the network needs it; None where that was not given."""

    evidence: tuple[Evidence, ...]
    """At least one; label before candidates before phrases, groups in the rule's order."""

    line: int
    """Its line in the run's labels.jsonl, from 1."""

    link: str
    """Its place in the run's report: report.html#layer/unit."""


@dataclass(frozen=True)
class Limit:
    """One limit of a rule, and what was found."""

    name: str
    """Its key in the policy."""

    allowed: float
    """The policy's value."""

    found: float | None
    """What was found, 6 decimals; None where there was nothing to measure."""

    broken: bool
    """Whether that is more (or, of a minimum, less) than allowed."""


@dataclass(frozen=True)
class Concept:
    """A term that hits of both networks are compared by."""

    group: str
    """The group."""

    term: str
    """The term."""

    here: int
    """Units of the audited network that it was found of."""

    there: int
    """Units of the baseline."""


@dataclass(frozen=True)
class Comparison:
    """A rule's hits beside those of the baseline; units are matched by concept, not by number."""

    units: int
    """Units of the baseline that the rule is on."""

    hits: int
    """Those that it found."""

    increase: float
    """Share of units here less the share there, 6 decimals."""

    concepts: tuple[Concept, ...]
    """All terms found in either, most frequent here first."""

    @property
    def only_here(self) -> tuple[Concept, ...]:
        """What this network has and the baseline has not."""
        return tuple(concept for concept in self.concepts if concept.here and not concept.there)


@dataclass(frozen=True)
class Verdict:
    """What became of one rule."""

    rule: Rule
    """The rule."""

    units: int
    """Units that it is on."""

    hits: tuple[Hit, ...]
    """The units of its groups, in the run's order."""

    limits: tuple[Limit, ...]
    """Its limits, in the order of the rule."""

    comparison: Comparison | None = None
    """Beside the baseline; None without one, and for rules on labels."""

    @property
    def broken(self) -> bool:
        """Whether any limit is broken."""
        return any(limit.broken for limit in self.limits)

    @property
    def share(self) -> float:
        """Share of the units that are hits, 0..1."""
        return len(self.hits) / self.units if self.units else 0.0


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    model: Mapping[str, str]
    """Name and SHA-256 of the audited network."""

    folder: str
    """The run that was audited."""

    policy: Mapping[str, str]
    """Where the policy was read, and its SHA-256."""

    verdicts: tuple[Verdict, ...]
    """One a rule, in the policy's order."""

    fail_on: Severity
    """The least severity at which a broken rule breaks the audit."""

    baseline: Mapping[str, str] | None = None
    """Name and SHA-256 of the network that it was compared with."""

    phrases: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Of each group that was scored, the terms that the captioner can say: known, unknown."""

    notes: tuple[str, ...] = ()
    """What a reader must know."""

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The broken rules that are severe enough to break the audit."""
        severe = SEVERITIES[: SEVERITIES.index(self.fail_on) + 1]
        return tuple(v for v in self.verdicts if v.broken and v.rule.severity in severe)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": dict(self.model),
            "run": self.folder,
            "policy": dict(self.policy),
            "baseline": None if self.baseline is None else dict(self.baseline),
            "fail_on": self.fail_on,
            "broken": [verdict.rule.name for verdict in self.broken],
            "rules": [_verdict_json(verdict) for verdict in self.verdicts],
            "phrases": {
                name: {kind: list(terms) for kind, terms in found.items()}
                for name, found in self.phrases.items()
            },
            "notes": list(self.notes),
        }


def surest_first(hits: Sequence[Hit]) -> list[Hit]:
    """Hits as people are shown them: by confidence, those without one last; else as they are."""
    return sorted(hits, key=lambda hit: 1.0 if hit.confidence is None else -hit.confidence)


def concepts_of(hits: Sequence[Hit]) -> Counter[tuple[str, str]]:
    """How many hits each term of a group was found of."""
    return Counter(pair for hit in hits for pair in {(e.group, e.term) for e in hit.evidence})


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    rule, comparison = verdict.rule, verdict.comparison
    return {
        "name": rule.name,
        "severity": rule.severity,
        "groups": list(rule.groups),
        "look": list(rule.look) if rule.groups else [],
        "layers": list(rule.layers),
        "min_validity": rule.min_validity,
        "false_alarms": rule.false_alarms if "phrases" in rule.look and rule.groups else None,
        "broken": verdict.broken,
        "units": verdict.units,
        "hits": [_hit_json(hit) for hit in verdict.hits],
        "share": round(verdict.share, 6),
        "limits": [limit.__dict__ for limit in verdict.limits],
        "comparison": None if comparison is None else _comparison_json(comparison),
    }


def _hit_json(hit: Hit) -> dict[str, Any]:
    return {
        "layer": hit.layer,
        "unit": hit.unit,
        "description": hit.description,
        "confidence": rounded_score(hit.confidence),
        "validity": rounded_score(hit.validity),
        "importance": hit.importance,
        "evidence": [evidence.__dict__ for evidence in hit.evidence],
        "link": hit.link,
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "units": comparison.units,
        "hits": comparison.hits,
        "increase": comparison.increase,
        "concepts": [concept.__dict__ for concept in comparison.concepts],
        "only_here": [f"{concept.group}: {concept.term}" for concept in comparison.only_here],
    }
