"""How many of the selected units to ablate, and in which order: on the validation part alone.

``sorted`` (MILAN section 6): each unit is ablated alone; those whose loss helps accuracy most come
first, and the number is where accuracy with the first n ablated is highest. ``greedy`` asks at each
step which of the rest helps most beside those already ablated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from milan_onnx.applications.ablating import Units
from milan_onnx.applications.edit.selecting import Unit
from milan_onnx.progress import Reporter

Score = Callable[[Units], float]
"""Accuracy on the validation part with some units ablated."""


@dataclass(frozen=True)
class Chosen:
    """Units in the order in which they are ablated."""

    order: tuple[Unit, ...]
    """Those that were tried."""

    scores: tuple[float, ...]
    """Accuracy on the validation part with the first n ablated, from n = 0 on."""

    count: int
    """The n of the highest accuracy; the least of several."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """Those to ablate."""
        return self.order[: self.count]


def by_layer(units: Sequence[Unit]) -> Units:
    """Units by the tensor of their layer."""
    found: dict[str, list[int]] = {}
    for tensor, unit in units:
        found.setdefault(tensor, []).append(unit)
    return found


def in_order(units: Sequence[Unit], score: Score, most: int, say: Reporter) -> Chosen:
    """The number of units, in the order given."""
    order = tuple(units[:most])
    scores = []
    with say.stage("choose", len(order) + 1, "ablations") as meter:
        for count in range(len(order) + 1):
            scores.append(score(by_layer(order[:count])))
            meter(1)
    return Chosen(order, tuple(scores), int(np.argmax(scores)))


def alone(units: Sequence[Unit], score: Score, say: Reporter) -> dict[Unit, float]:
    """Accuracy with each unit ablated alone."""
    found = {}
    with say.stage("rank", len(units), "units") as meter:
        for unit in units:
            found[unit] = score(by_layer([unit]))
            meter(1)
    return found


def ranked(units: Sequence[Unit], scores: Mapping[Unit, float]) -> list[Unit]:
    """Units by their accuracy when ablated alone, highest first; equal ones as they were."""
    return sorted(units, key=lambda unit: -scores[unit])


def greedy(units: Sequence[Unit], score: Score, most: int, say: Reporter) -> Chosen:
    """At each step the unit that helps most; of equal ones the first."""
    rest, order, scores = list(units), list[Unit](), [score({})]
    steps = min(most, len(rest))
    with say.stage("choose", steps, "units") as meter:
        for _ in range(steps):
            tried = [score(by_layer([*order, unit])) for unit in rest]
            best = int(np.argmax(tried))
            order.append(rest.pop(best))
            scores.append(tried[best])
            meter(1)
    return Chosen(tuple(order), tuple(scores), int(np.argmax(scores)))
