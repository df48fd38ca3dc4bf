"""What an edit did to accuracy: on the test part, which no choice has seen, beside baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.ablating import (
    Array,
    PassedImages,
    Unit,
    Units,
    by_layer,
)
from milan_onnx.applications.edit.choosing import Chosen
from milan_onnx.applications.evaluate.intervals import Bootstrap, Figure
from milan_onnx.progress import Reporter

Ids = NDArray[np.int64]
BEFORE, AFTER, RANDOM, ALL = "before", "after", "random", "sort-all"


@dataclass(frozen=True)
class Judged:
    """Accuracy on the test part of one set of images."""

    images: str
    """Which set: clean or adversarial."""

    accuracy: Mapping[str, Figure]
    """By row: before, after, random (mean over seeds), sort-all."""

    gain: Figure
    """After less before, paired over images."""

    gain_over_random: Figure | None
    """After less random, over images and seeds."""

    classes: Mapping[str, tuple[int, float, float]]
    """Of each class: test images, accuracy before and after."""

    tested: int
    """Test images."""


def judge(
    name: str,
    images: PassedImages,
    ways: Mapping[str, Sequence[Units]],
    names: Sequence[str],
    seed: int,
    say: Reporter,
) -> Judged:
    """Accuracy on test images with each way's units ablated; several ways of a row are averaged."""
    right: dict[str, Array] = {}
    with say.stage(f"judge {name}", sum(map(len, ways.values())), "ablations") as meter:
        for way, several in ways.items():
            found = []
            for units in several:
                found.append(images.right(units).astype(np.float64))
                meter(1)
            right[way] = np.mean(found, axis=0)
    bootstrap = Bootstrap(range(len(images.ids)), seed)
    random = right.get(RANDOM)
    return Judged(
        images=name,
        accuracy={way: bootstrap.mean(values) for way, values in right.items()},
        gain=bootstrap.mean(right[AFTER] - right[BEFORE]),
        gain_over_random=None if random is None else bootstrap.mean(right[AFTER] - random),
        classes=_classes(images.labels, right, names),
        tested=len(images.ids),
    )


def _classes(
    labels: Ids, right: Mapping[str, Array], names: Sequence[str]
) -> dict[str, tuple[int, float, float]]:
    return {
        names[label]: (
            int((labels == label).sum()),
            float(right[BEFORE][labels == label].mean()),
            float(right[AFTER][labels == label].mean()),
        )
        for label in np.unique(labels).tolist()
    }


def random_units(everything: Sequence[Unit], count: int, seeds: int) -> list[Units]:
    """As many units, drawn from all of the layers, once for each seed from 0 on."""
    draws = []
    for seed in range(seeds):
        picked = np.random.default_rng(seed).permutation(len(everything))[:count]
        draws.append(by_layer([everything[index] for index in sorted(picked.tolist())]))
    return draws


def rows(
    chosen: Chosen, random: Sequence[Units], sort_all: Chosen | None
) -> dict[str, list[Units]]:
    """What is judged, by row."""
    ways: dict[str, list[Units]] = {BEFORE: [{}], AFTER: [by_layer(chosen.units)]}
    if random:
        ways[RANDOM] = list(random)
    if sort_all is not None:
        ways[ALL] = [by_layer(sort_all.units)]
    return ways
