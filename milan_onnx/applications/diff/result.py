"""What a diff found."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from milan_onnx.applications.diff.units import CHANGES, VERDICTS, UnitDiff
from milan_onnx.choice import Choice
from milan_onnx.labels import LayerSummary
from milan_onnx.labels.record import rounded_score

FORMAT = "milan-onnx-diff"
FORMAT_VERSION = 1


def percent(share: float) -> str:
    """A share as per cent: '2.5 %'."""
    return f"{100 * share:.3g} %"


@dataclass(frozen=True)
class Count:
    """How many labels there are of each verdict."""

    verdicts: Mapping[str, int]
    """Units by verdict."""

    described: int
    """Units with a description before or after."""

    changed: int
    """Of these, those whose description changed its meaning, was gained or was lost."""

    near: int
    """Of the verdict ``changed``, units one of whose descriptions is in the other run's n-best."""

    described_before: int
    """Units with a description before."""

    @property
    def share(self) -> float:
        """``changed`` as a share of ``described``; 0 where there are none."""
        return self.changed / self.described if self.described else 0.0

    @property
    def lost_share(self) -> float:
        """Descriptions that were lost as a share of those that were there before; or 0."""
        return self.verdicts["lost"] / self.described_before if self.described_before else 0.0

    @staticmethod
    def of(units: Sequence[UnitDiff]) -> Count:
        """Count units."""
        verdicts = Counter(unit.verdict for unit in units)
        return Count(
            verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
            described=sum(unit.described for unit in units),
            changed=sum(unit.verdict in CHANGES for unit in units),
            near=sum(unit.near for unit in units),
            described_before=sum(bool(u.before and u.before.description) for u in units),
        )

    def to_json(self) -> dict[str, Any]:
        """Counts and shares, as JSON values."""
        return {
            **self.verdicts,
            "changed_near": self.near,
            "described": self.described,
            "changed_share": rounded_score(self.share),
            "lost_share": rounded_score(self.lost_share),
        }


@dataclass(frozen=True)
class LayerDiff:
    """A layer before and after."""

    name: str
    """What people call it: its name before, and after where that is another."""

    before: str
    """Tensor in the first run."""

    after: str
    """Tensor in the second run."""

    pairing: str
    """Why these are taken to be the same layer."""

    match: Choice[str]
    """How units were matched, ``number`` or ``activations``, and why so."""

    units: tuple[UnitDiff, ...]
    """All units: pairs in the order of the first run, then what only one of the runs has."""

    summaries: tuple[LayerSummary, LayerSummary]
    """The layer's labels before and after."""

    @cached_property
    def count(self) -> Count:
        """Its verdicts."""
        return Count.of(self.units)

    @cached_property
    def trusted(self) -> Count:
        """The verdicts of the units none of whose labels abstains."""
        return Count.of([unit for unit in self.units if unit.trusted])

    @property
    def moved(self) -> int:
        """Units whose counterpart has another number."""
        return sum(bool(u.before and u.after and u.before.unit != u.after.unit) for u in self.units)

    def flags(self, flag: str) -> tuple[int, int]:
        """Units with a flag before and after."""
        before, after = self.summaries
        return before.flags.get(flag, 0), after.flags.get(flag, 0)

    def figures(self) -> dict[str, float | None]:
        """How alike the pairs are; None where it is not known."""
        return {
            "correlation_median": _over(self.units, lambda u: u.correlation, statistics.median),
            "exemplar_overlap_mean": _over(self.units, lambda u: u.exemplars, statistics.fmean),
            "candidate_overlap_mean": _over(self.units, lambda u: u.candidates, statistics.fmean),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "pairing": self.pairing,
            "match": self.match.value,
            "match_reason": self.match.reason,
            "count": self.count.to_json(),
            "count_trusted": self.trusted.to_json(),
            "moved": self.moved,
            **self.figures(),
            "summary_before": asdict(self.summaries[0]),
            "summary_after": asdict(self.summaries[1]),
            "units": [unit.to_json() for unit in self.units],
        }


@dataclass(frozen=True)
class RunDiff:
    """Two runs held against one another."""

    runs: tuple[Mapping[str, Any], Mapping[str, Any]]
    """What each run is: its folder, model and captioner."""

    layers: tuple[LayerDiff, ...]
    """The layers that both have, in the order of the first run."""

    only_before: tuple[str, ...]
    """Layers that the first run alone has."""

    only_after: tuple[str, ...]
    """Layers that the second run alone has."""

    settings: Mapping[str, Any]
    """How they were compared."""

    notes: tuple[str, ...] = ()
    """What a reader must know."""

    @cached_property
    def count(self) -> Count:
        """The verdicts of all layers."""
        return Count.of([unit for layer in self.layers for unit in layer.units])

    @cached_property
    def trusted(self) -> Count:
        """The verdicts of all units none of whose labels abstains."""
        units = [unit for layer in self.layers for unit in layer.units if unit.trusted]
        return Count.of(units)

    @property
    def differs(self) -> bool:
        """Whether a layer is missing, or a unit's description or flags are others."""
        units = (unit.differs for layer in self.layers for unit in layer.units)
        return bool(self.only_before or self.only_after) or any(units)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "before": dict(self.runs[0]),
            "after": dict(self.runs[1]),
            "differs": self.differs,
            "count": self.count.to_json(),
            "count_trusted": self.trusted.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }


def _over(
    units: Sequence[UnitDiff],
    value: Callable[[UnitDiff], float | None],
    mean: Callable[[Sequence[float]], float],
) -> float | None:
    found = [x for x in map(value, units) if x is not None and math.isfinite(x)]
    return rounded_score(mean(found)) if found else None
