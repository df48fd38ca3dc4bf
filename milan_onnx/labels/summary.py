"""What a layer's labels have in common: counts, validity, descriptions that come up again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from milan_onnx.labels.confidence import percent_text
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

    confidence: float | None = None
    """Mean confidence of the labels, 4 decimals; None where none has one."""

    abstained: float | None = None
    """Share of the judged labels that abstain, 4 decimals; None where none was judged."""


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
        confidence=_mean(label.confidence for label in own),
        abstained=abstained_share(own, 4),
    )


def abstained_share(labels: Sequence[UnitLabel], decimals: int) -> float | None:
    """Labels that abstain, as a share of those that were judged: that have a confidence, or were
    tested on held-out photos. None where there are none."""
    judged = [x for x in labels if x.confidence is not None or x.validity is not None]
    if not judged:
        return None
    return round(sum("abstained" in label.flags for label in judged) / len(judged), decimals)


def _validity(labels: Sequence[UnitLabel]) -> LayerValidity | None:
    found = [label.validity for label in labels if label.validity is not None]
    if not found:
        return None
    return LayerValidity(
        correlation=_mean(v.correlation for v in found),
        shuffled_correlation=_mean(v.shuffled_correlation for v in found),
        auprc=_mean(v.auprc for v in found),
        shuffled_auprc=_mean(v.shuffled_auprc for v in found),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in map(rounded_score, values) if value is not None]
    return rounded_score(math.fsum(there) / len(there)) if there else None


def confidence_text(summary: LayerSummary) -> str:
    """One line: '61 % on average, 18 % abstained'; empty where no label has a confidence."""
    if summary.confidence is None:
        return ""
    return f"{percent_text(summary.confidence)} on average, {_abstained_text(summary)}"


def validity_text(summary: LayerSummary) -> str:
    """One line: 'correlation 0.41 (shuffled 0.05), AUPRC 0.62 (0.35), 18 % abstained', the last
    where validity decides that."""
    found = summary.validity
    if found is None:
        return "not tested"
    text = (
        f"correlation {figure_text(found.correlation)} "
        f"(shuffled {figure_text(found.shuffled_correlation)}), "
        f"AUPRC {figure_text(found.auprc)} ({figure_text(found.shuffled_auprc)})"
    )
    return text if summary.confidence is not None else f"{text}, {_abstained_text(summary)}"


def _abstained_text(summary: LayerSummary) -> str:
    return f"{100 * (summary.abstained or 0):.0f} % abstained"


def figure_text(value: float | None) -> str:
    """A figure with two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}"
