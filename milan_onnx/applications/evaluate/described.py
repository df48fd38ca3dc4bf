"""Descriptions against what annotators said of units: figures, rows and groups.

The similarity of a description is its cosine with the nearest phrase of its unit; best of five is
the best that one of the first five candidates reaches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np

from milan_onnx.annotations import AnnotatedUnit
from milan_onnx.applications.evaluate import baselines
from milan_onnx.applications.evaluate.answers import TOP, Descriptions, Values, firsts
from milan_onnx.applications.evaluate.calibration import calibration, confident_half
from milan_onnx.applications.evaluate.intervals import Bootstrap, Figure
from milan_onnx.applications.evaluate.judging import columns_of, judge, mean_of
from milan_onnx.applications.evaluate.result import Row
from milan_onnx.applications.similarity import Similarity
from milan_onnx.errors import UsageError

SECOND = "second annotator"
HALF = "ours, more confident half"
COHERENT = 2.0
"""Mean coherence from which on a unit is judged, by default: most regions share what is said."""
Differences = Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True)
class DescribedCase:
    """Descriptions of described units, before they are judged."""

    units: Sequence[AnnotatedUnit]
    """All units, whatever their coherence."""

    found: Mapping[str, Descriptions]
    """What each row says of them; ``ours`` is there."""

    confidence: Sequence[float | None]
    """How sure we are of our own first description."""

    depth: Mapping[str, str]
    """Early, middle or late, by `layer_name`; not there for networks of one layer."""

    similarity: Similarity
    """Sentence similarity."""

    least: float = COHERENT
    """Mean coherence from which on a unit counts in the table."""

    seed: int = 0
    """Seed of the bootstrap and of the shuffling."""

    def part(self, units: Sequence[int]) -> DescribedCase:
        """Some of the units."""
        return DescribedCase(
            [self.units[i] for i in units],
            {name: [texts[i] for i in units] for name, texts in self.found.items()},
            [self.confidence[i] for i in units],
            self.depth,
            self.similarity,
            self.least,
            self.seed,
        )


@dataclass(frozen=True)
class Judged:
    """What was found."""

    columns: Mapping[str, str]
    """Titles of the columns."""

    rows: tuple[Row, ...]
    """Figures of the units that are coherent enough."""

    differences: Differences
    """Paired differences of the same."""

    groups: Mapping[str, Mapping[str, Any]]
    """Figures of parts of the units."""

    calibration: Mapping[str, Any] | None
    """How far confidences can be believed; None where there are none."""

    units: Sequence[Mapping[str, Any]]
    """What was said of each unit, whatever its coherence."""


@dataclass(frozen=True)
class DescribedJudge:
    """Judges descriptions by the phrases of their units."""

    units: Sequence[AnnotatedUnit]
    """The units."""

    similarity: Similarity
    """Sentence similarity."""

    seed: int
    """Seed of the bootstrap and of the shuffling."""

    words: int = 0
    """None: what share of the bundle's words is used is no column here."""

    def values(self, descriptions: Descriptions) -> dict[str, Values]:
        """Similarity and best of five (U,)."""
        phrases = [unit.phrases for unit in self.units]
        return {
            "similarity": self.similarity.nearest([x[:1] for x in descriptions], phrases),
            "best5": self.similarity.nearest([x[:TOP] for x in descriptions], phrases),
        }

    def whole(self, descriptions: Descriptions) -> dict[str, float]:
        """Nothing."""
        return {}

    def shuffled(self, descriptions: Descriptions) -> tuple[dict[str, Values], dict[str, float]]:
        """Values with descriptions of other units, averaged over several rotations."""
        keys = [unit.key for unit in self.units]
        dealt = baselines.shuffled(descriptions, keys, self.seed)
        return mean_of([self.values(way) for way in dealt]), {}

    def bootstrap(self) -> Bootstrap:
        """The bootstrap over units."""
        return Bootstrap([unit.key for unit in self.units], self.seed)


def judge_described(case: DescribedCase) -> Judged:
    """Judge all rows. Raises UsageError where no unit is coherent enough."""
    case.similarity.learn(_sentences(case))
    kept = [i for i, unit in enumerate(case.units) if (unit.coherence or 0) >= case.least]
    if not kept:
        raise UsageError(
            f"no unit has a mean coherence of {case.least:g}", hint="lower --least-coherence"
        )
    main = case.part(kept)
    rows, differences = _rows(main)
    found, half = _calibrated(main)
    groups = {
        name: _group(case.part(places)) for name, places in _parts(case, kept).items() if places
    }
    return Judged(columns_of(rows), (*rows, *half), differences, groups, found, _facts(case))


def _sentences(case: DescribedCase) -> set[str]:
    said = {text for rows in case.found.values() for texts in rows for text in texts}
    return said.union(*(unit.phrases for unit in case.units))


def _rows(case: DescribedCase) -> tuple[tuple[Row, ...], Differences]:
    judging = DescribedJudge(case.units, case.similarity, case.seed)
    rows, differences = judge(judging, case.found)
    second = _second_annotator(case)
    return (*rows, *([second] if second else [])), differences


def _second_annotator(case: DescribedCase) -> Row | None:
    """One annotator's first phrase against the nearest of another's, the mean of all such pairs."""
    units = [unit for unit in case.units if len(unit.annotations) > 1]
    if not units:
        return None
    values = np.zeros(len(units))
    for place, unit in enumerate(units):
        pairs = list(permutations(unit.annotations, 2))
        said, others = [[a.description] for a, _ in pairs], [b.phrases for _, b in pairs]
        values[place] = case.similarity.nearest(said, others).mean()
    bootstrap = Bootstrap([unit.key for unit in units], case.seed)
    return Row(SECOND, {"similarity": bootstrap.mean(values)})


def _calibrated(case: DescribedCase) -> tuple[dict[str, Any] | None, tuple[Row, ...]]:
    """Calibration of our confidence, and the row of the more confident half."""
    known = [(i, value) for i, value in enumerate(case.confidence) if value is not None]
    if not known:
        return None, ()
    part = case.part([i for i, _ in known])
    confidence = np.array([value for _, value in known])
    judging = DescribedJudge(part.units, part.similarity, part.seed)
    similarity = judging.values(part.found["ours"])["similarity"]
    half = part.part(confident_half(confidence))
    rows, _ = judge(
        DescribedJudge(half.units, half.similarity, half.seed), {"ours": half.found["ours"]}
    )
    return calibration(confidence, similarity), (Row(HALF, rows[0].figures),)


def _parts(case: DescribedCase, kept: Sequence[int]) -> dict[str, list[int]]:
    """Groups: all units, those of a coherence, and of the coherent ones each depth and layer."""
    parts: dict[str, list[int]] = {"all, whatever the coherence": list(range(len(case.units)))}
    for least in range(4):
        parts[f"coherence {least}"] = [
            i for i, unit in enumerate(case.units) if int(unit.coherence or 0) == least
        ]
    layers = {i: layer_name(case.units[i]) for i in kept}
    for depth in DEPTHS:
        parts[depth] = [i for i in kept if case.depth.get(layers[i]) == depth]
    for name in sorted(set(layers.values()), key=natural):
        parts[f"layer {name}"] = [i for i in kept if layers[i] == name]
    return parts


def _group(case: DescribedCase) -> dict[str, Any]:
    rows, _ = _rows(case)
    figures = {row.name: {c: asdict(f) for c, f in row.figures.items()} for row in rows}
    return {"units": len(case.units), "figures": figures}


def _facts(case: DescribedCase) -> list[dict[str, Any]]:
    judging = DescribedJudge(case.units, case.similarity, case.seed)
    values = judging.values(case.found["ours"])
    return [
        {
            "network": unit.network,
            "layer": unit.layer,
            "unit": unit.unit,
            "coherence": unit.coherence,
            "phrases": list(unit.phrases),
            "confidence": case.confidence[i],
            "similarity": float(values["similarity"][i]),
            "best_of_five": float(values["best5"][i]),
            "descriptions": {name: list(texts[i]) for name, texts in case.found.items()},
        }
        for i, unit in enumerate(case.units)
    ]


def undescribed(descriptions: Descriptions) -> int:
    """How many units have no description, and so count 0."""
    return sum(not text for text in firsts(descriptions))


# --- layers ----------------------------------------------------------------------------------

DEPTHS = ("early", "middle", "late")


def layer_name(unit: AnnotatedUnit) -> str:
    """Names a unit's layer among those of all networks."""
    return f"{unit.network} {unit.layer}"


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts names as people do: numbers by their value."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"([0-9]+)", name)]


def depths(units: Sequence[AnnotatedUnit]) -> dict[str, str]:
    """Early, middle or late of each layer, by `layer_name`, in the natural order of its network's.

    Layer i of n (from 0) is early where i / (n - 1) <= 1/3, middle below 2/3, else late. A network
    of one layer has no depth.
    """
    layers: dict[str, set[str]] = {}
    for unit in units:
        layers.setdefault(unit.network, set()).add(unit.layer)
    found = {}
    for network, names in layers.items():
        last = len(names) - 1
        for i, name in enumerate(sorted(names, key=natural)):
            if last:
                depth = DEPTHS[0] if 3 * i <= last else DEPTHS[1] if 3 * i < 2 * last else DEPTHS[2]
                found[f"{network} {name}"] = depth
    return found
