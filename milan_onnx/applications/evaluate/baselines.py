"""What a figure is held against: descriptions that know less than ours.

``constant``   every unit is called what most units are called (and, in top-5, the five commonest)
``shuffled``   every unit gets the descriptions of a unit of another cluster, several ways, averaged
``no PMI``     the same beam search, ranked by log p(d|E) alone (λ = 0)
``greedy``     the likeliest next word, one after the other (a beam of one, λ = 0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from milan_onnx.applications.evaluate.answers import TOP, Descriptions, firsts
from milan_onnx.bundle import SearchDefaults

ROTATIONS = 10


def searches(ours: SearchDefaults) -> dict[str, SearchDefaults]:
    """The search settings of the rows that need a search."""
    alone = replace(ours, pmi_weight=0.0)
    if ours.strategy == "consensus":  # the order of the beam, whatever the others say
        alone = replace(alone, strategy="rerank")
    return {"ours": ours, "no PMI": alone, "greedy": replace(alone, beam_size=1)}


def constant(descriptions: Descriptions) -> list[list[str]]:
    """The commonest first descriptions, for every unit; ties in alphabetical order."""
    counts = Counter(text for text in firsts(descriptions) if text)
    commonest = sorted(counts, key=lambda text: (-counts[text], text))[:TOP]
    return [list(commonest) for _ in descriptions]


def shuffled(
    descriptions: Descriptions, clusters: Sequence[object], seed: int, rotations: int = ROTATIONS
) -> Iterator[list[Sequence[str]]]:
    """Descriptions dealt to units of other clusters, ``rotations`` ways (fewer for few clusters).

    The clusters are put in a random circle, and each takes those of the one so many places on; no
    unit ever keeps its own cluster's.
    """
    members: dict[object, list[int]] = {}
    for unit, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(unit)
    names = list(members)
    rng = np.random.default_rng((seed, len(names)))
    circle = [names[i] for i in rng.permutation(len(names))]
    steps = min(rotations, len(circle) - 1)
    for step in range(1, steps + 1):
        dealt: list[Sequence[str]] = [()] * len(descriptions)
        for place, name in enumerate(circle):
            givers = members[circle[(place + _reach(step, steps, len(circle))) % len(circle)]]
            for index, unit in enumerate(members[name]):
                dealt[unit] = descriptions[givers[index % len(givers)]]
        yield dealt


def _reach(step: int, steps: int, size: int) -> int:
    """The step-th of evenly spread distances between 1 and size - 1."""
    return 1 + (step - 1) * (size - 1) // steps
