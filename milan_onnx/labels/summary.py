"""What a layer's labels have in common: counts, and the descriptions that come up again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from milan_onnx.labels.record import UnitLabel


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
    )
