"""What ablation showed: curves of accuracy, classes, units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from milan_onnx.applications.ablating import Unit

RANDOM = "random"


@dataclass(frozen=True)
class Curve:
    """Accuracy as units are ablated in one order."""

    name: str
    """The criterion, or ``random``."""

    accuracy: tuple[float, ...]
    """At each step; of ``random`` the mean over its draws."""

    low: tuple[float, ...]
    """The least over the draws; for a criterion the accuracy itself."""

    high: tuple[float, ...]
    """The largest over the draws."""

    classes: Mapping[str, float]
    """Accuracy of each class at the last step."""

    @property
    def mean(self) -> float:
        """Accuracy over the steps after the first: what criteria are compared by."""
        return float(np.mean(self.accuracy[1:]))


@dataclass(frozen=True)
class Importance:
    """What ablation showed."""

    layers: tuple[str, ...]
    """Tensors of the layers whose units were ablated."""

    units: int
    """How many they have."""

    images: int
    """Labelled images that could be used."""

    ablated: tuple[int, ...]
    """Units ablated at each step, from 0 on."""

    curves: tuple[Curve, ...]
    """``random`` first, then criteria by their mean accuracy, the most harmful first."""

    classes: Mapping[str, float]
    """Accuracy of each class with nothing ablated."""

    loss: Mapping[Unit, float] | None
    """Accuracy lost by ablating each unit alone; None where that was not asked."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        loss = self.loss
        rows = None if loss is None else [[tensor, u, value] for (tensor, u), value in loss.items()]
        return asdict(self) | {"loss": rows}
