"""What became of one unit's label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from milan_onnx.applications.similarity import Similarity
from milan_onnx.labels import UnitLabel
from milan_onnx.labels.record import rounded_score
from milan_onnx.wording import normalise, says

Verdict = Literal["kept", "reworded", "changed", "gained", "lost", "undescribed"]
VERDICTS: tuple[Verdict, ...] = (
    "kept",
    "reworded",
    "changed",
    "gained",
    "lost",
    "undescribed",
)
CHANGES = ("changed", "gained", "lost")
"""Verdicts that count as a change of meaning."""
ABSTAINED = "abstained"


@dataclass(frozen=True)
class UnitDiff:
    """A unit before and after."""

    before: UnitLabel | None
    """Its label in the first run; None: the unit has no counterpart there."""

    after: UnitLabel | None
    """Its label in the second run; None: it has no counterpart there."""

    verdict: Verdict
    """``kept``: the same words. ``reworded``: others that say the same. ``changed``: others.
    ``gained``: described now, not before. ``lost``: described before, not now. ``undescribed``:
    neither."""

    correlation: float | None
    """Pearson's, of the unit's largest activations on the sample's photos; None: not known."""

    exemplars: float | None
    """Photos among both runs' exemplars as a share of those among either's; None: the runs have
    other photos, or the unit no counterpart."""

    similarity: float | None
    """Cosine of the two descriptions; None where either is missing, or it was not asked for."""

    @property
    def described(self) -> bool:
        """Whether it has a description before or after."""
        return self.verdict != "undescribed"

    @property
    def trusted(self) -> bool:
        """Whether it has a description before or after, and none that abstains."""
        labels = [label for label in (self.before, self.after) if label is not None]
        return self.described and not any(ABSTAINED in label.flags for label in labels)

    @property
    def confidence(self) -> float:
        """The lesser confidence of its labels: a change counts as far as both are right. 0 where
        none has one."""
        labels = [label for label in (self.before, self.after) if label is not None]
        return min((x.confidence for x in labels if x.confidence is not None), default=0.0)

    @property
    def flags_gained(self) -> tuple[str, ...]:
        """Flags that it has now and had not, sorted."""
        return _new_flags(self.before, self.after)

    @property
    def flags_lost(self) -> tuple[str, ...]:
        """Flags that it had and has no more, sorted."""
        return _new_flags(self.after, self.before)

    @property
    def candidates(self) -> float | None:
        """Descriptions among both n-bests as a share of those among either; None without."""
        one, other = _candidates(self.before), _candidates(self.after)
        return len(one & other) / len(one | other) if one and other else None

    @property
    def near(self) -> bool:
        """Whether it changed, but to or from a description among the other run's n-best."""
        among = _among(self.before, self.after) or _among(self.after, self.before)
        return self.verdict == "changed" and bool(among)

    @property
    def differs(self) -> bool:
        """Whether there is anything to show: another description or other flags."""
        alone = self.before is None or self.after is None
        other_words = self.verdict not in ("kept", "undescribed")
        return alone or other_words or bool(self.flags_gained or self.flags_lost)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values; scores with 4 decimals."""
        return {
            "verdict": self.verdict,
            "before": _label_json(self.before),
            "after": _label_json(self.after),
            "correlation": rounded_score(self.correlation),
            "exemplar_overlap": rounded_score(self.exemplars),
            "similarity": rounded_score(self.similarity),
            "candidate_overlap": rounded_score(self.candidates),
            "best_before_among_after": _among(self.before, self.after),
            "best_after_among_before": _among(self.after, self.before),
            "flags_gained": list(self.flags_gained),
            "flags_lost": list(self.flags_lost),
        }


@dataclass(frozen=True)
class Meaning:
    """When two descriptions mean the same."""

    similarity: Similarity | None
    """Sentence similarity; None: words alone decide."""

    level: float
    """Cosine from which on descriptions in other words mean the same."""

    def cosines(
        self, pairs: Sequence[tuple[UnitLabel | None, UnitLabel | None]]
    ) -> list[float | None]:
        """Of each pair's descriptions; None where one is missing."""
        texts = [(_text(before), _text(after)) for before, after in pairs]
        if self.similarity is None:
            return [None] * len(texts)
        both = [(one, other) for one, other in texts if one and other]
        found = iter(self.similarity([one for one, _ in both], [[other] for _, other in both]))
        return [float(next(found)) if one and other else None for one, other in texts]

    def verdict(
        self, before: UnitLabel | None, after: UnitLabel | None, cosine: float | None
    ) -> Verdict:
        """What became of a label."""
        one, other = _text(before), _text(after)
        if not one and not other:
            return "undescribed"
        if not one or not other:
            return "gained" if other else "lost"
        if one == other:
            return "kept"
        alike = says(one, other) or says(other, one)
        return "reworded" if alike or (cosine or 0) >= self.level else "changed"


def _text(label: UnitLabel | None) -> str:
    return (label.description or "") if label else ""


def _new_flags(one: UnitLabel | None, other: UnitLabel | None) -> tuple[str, ...]:
    """The flags that only the other has; none where a unit has no counterpart."""
    return tuple(sorted(set(other.flags) - set(one.flags))) if one and other else ()


def _candidates(label: UnitLabel | None) -> set[tuple[str, ...]]:
    return {normalise(c.description) for c in label.candidates} if label else set()


def _among(one: UnitLabel | None, other: UnitLabel | None) -> bool | None:
    """Whether one's description is among the other's n-best; None where either has none."""
    if not _text(one) or other is None or not other.candidates:
        return None
    return normalise(_text(one)) in _candidates(other)


def _label_json(label: UnitLabel | None) -> dict[str, Any] | None:
    if label is None:
        return None
    return {
        "unit": label.unit,
        "description": label.description,
        "confidence": rounded_score(label.confidence),
        "pmi": rounded_score(label.pmi),
        "validity": rounded_score(label.validity.correlation if label.validity else None),
        "flags": list(label.flags),
    }
