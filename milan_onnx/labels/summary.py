"""What a layer's labels have in common: counts, validity, descriptions that come up again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from milan_onnx.labels.record import UnitLabel, rounded_score


@dataclass(frozen=True)
class LayerValidity:
    """Validity of a layer's labels; means over its described units, 4 decimals."""

    correlation: float | None
    """Mean correlation of the labels."""

    shuffled_correlation: float | None
    """The same of shuffled labels."""

    auprc: float | None
    """Mean average precision of the labels."""

    shuffled_auprc: float | None
    """The same of shuffled labels."""

    abstained: float
    """Share of the described units that abstain."""


@dataclass(frozen=True)
class LayerSummary:
    """Figures of one layer."""

    layer: str
    """Name of the tensor."""

    units: int
    """Units with a record."""

    described: int
    """Units with a description."""

    distinct: int
    """Different descriptions."""

    repeated: tuple[tuple[str, int], ...]
    """Descriptions of two units or more, with their number; most frequent first."""

    flags: Mapping[str, int]
    """Units with each flag, where any."""

    validity: LayerValidity | None = None
    """How the labels did on held-out photos; None where they were not tested."""


def summarize(layer: str, labels: Sequence[UnitLabel], *, most: int = 8) -> LayerSummary:
    """The summary of the labels of ``layer``, with at most ``most`` repeated descriptions."""
    own = [label for label in labels if label.layer == layer]
    counts = Counter(label.description for label in own if label.description)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return LayerSummary(
        layer=layer,
        units=len(own),
        described=counts.total(),
        distinct=len(counts),
        repeated=tuple(item for item in order if item[1] > 1)[:most],
        flags=dict(sorted(Counter(flag for label in own for flag in label.flags).items())),
        validity=_validity(own),
    )


def _validity(labels: Sequence[UnitLabel]) -> LayerValidity | None:
    tested = [label for label in labels if label.validity is not None]
    if not tested:
        return None
    found = [label.validity for label in tested if label.validity is not None]
    return LayerValidity(
        correlation=_mean(v.correlation for v in found),
        shuffled_correlation=_mean(v.shuffled_correlation for v in found),
        auprc=_mean(v.auprc for v in found),
        shuffled_auprc=_mean(v.shuffled_auprc for v in found),
        abstained=round(sum("abstained" in t.flags for t in tested) / len(tested), 4),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in map(rounded_score, values) if value is not None]
    return rounded_score(math.fsum(there) / len(there)) if there else None


def validity_text(summary: LayerSummary) -> str:
    """One line: 'correlation 0.41 (shuffled 0.05), AUPRC 0.62 (0.35), 18 % abstained'."""
    found = summary.validity
    if found is None:
        return "not tested"
    return (
        f"correlation {figure_text(found.correlation)} "
        f"(shuffled {figure_text(found.shuffled_correlation)}), "
        f"AUPRC {figure_text(found.auprc)} ({figure_text(found.shuffled_auprc)}), "
        f"{100 * found.abstained:.0f} % abstained"
    )


def figure_text(value: float | None) -> str:
    """A figure with two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}"
