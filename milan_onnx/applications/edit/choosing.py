"""How many of the selected units to ablate, and in which order: on the validation part alone.

``sorted`` (MILAN section 6): each unit is ablated alone; those whose loss leaves the highest
accuracy come first. ``greedy`` asks at each step which of the rest does beside those already
ablated. How many: where the images are those on which the model shall become better, the number of
the highest accuracy; where they are ordinary ones, as many as accuracy bears, all but a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from milan_onnx.applications.ablating import Unit, Units, by_layer
from milan_onnx.progress import Reporter

Score = Callable[[Units], float]
"""Accuracy on the validation part with some units ablated."""
Count = Callable[[Sequence[float]], int]
"""From the accuracies with the first n ablated, n from 0 on, to the n that is taken."""


@dataclass(frozen=True)
class Chosen:
    """Units in the order in which they are ablated."""

    order: tuple[Unit, ...]
    """Those that were tried."""

    scores: tuple[float, ...]
    """Accuracy on the validation part with the first n ablated, from n = 0 on."""

    count: int
    """The n that was chosen."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """Those to ablate."""
        return self.order[: self.count]


def best(scores: Sequence[float]) -> int:
    """The number of the highest accuracy; the least of several."""
    return int(np.argmax(scores))


def bearable(tolerance: float) -> Count:
    """The largest number that costs at most ``tolerance`` of the accuracy without any ablation."""
    return lambda scores: max(n for n, s in enumerate(scores) if s >= scores[0] - tolerance)


def in_order(units: Sequence[Unit], score: Score, most: int, count: Count, say: Reporter) -> Chosen:
    """The number of units, in the order given."""
    order = tuple(units[:most])
    scores = []
    with say.stage("choose", len(order) + 1, "ablations") as meter:
        for tried in range(len(order) + 1):
            scores.append(score(by_layer(order[:tried])))
            meter(1)
    return Chosen(order, tuple(scores), count(scores))


def alone(
    units: Sequence[Unit], score_of: Callable[[str], Score], say: Reporter
) -> dict[Unit, float]:
    """Accuracy with each unit ablated alone. ``score_of``: how that is found in a layer: the later
    it is, the less of the model runs again."""
    found = {}
    with say.stage("rank", len(units), "units") as meter:
        for tensor, numbers in by_layer(units).items():
            score = score_of(tensor)
            for number in numbers:
                found[tensor, number] = score({tensor: [number]})
                meter(1)
    return found


def ranked(units: Sequence[Unit], scores: Mapping[Unit, float]) -> list[Unit]:
    """Units by their accuracy when ablated alone, highest first; equal ones as they were."""
    return sorted(units, key=lambda unit: -scores[unit])


def greedy(units: Sequence[Unit], score: Score, most: int, count: Count, say: Reporter) -> Chosen:
    """At each step the unit whose loss leaves the highest accuracy; of equal ones the first."""
    rest, order, scores = list(units), list[Unit](), [score({})]
    steps = min(most, len(rest))
    with say.stage("choose", steps, "units") as meter:
        for _ in range(steps):
            tried = [score(by_layer([*order, unit])) for unit in rest]
            place = int(np.argmax(tried))
            order.append(rest.pop(place))
            scores.append(tried[place])
            meter(1)
    return Chosen(tuple(order), tuple(scores), count(scores))
