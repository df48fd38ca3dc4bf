"""The paper's groups of networks, and splits of units into those to train on and those held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milan_onnx.annotations.units import AnnotatedUnit
from milan_onnx.errors import BadInput

NETWORKS = {
    "alexnet/imagenet": "cls",
    "alexnet/places365": "cls",
    "resnet152/imagenet": "cls",
    "resnet152/places365": "cls",
    "biggan/imagenet": "gen",
    "biggan/places365": "gen",
}
"""The networks of the paper's ``base`` set, and their task."""


def networks_of(group: str) -> tuple[str, ...]:
    """The networks of a group of the paper, or of one network's own name.

    base, cls, gen, imagenet, places365, alexnet, resnet152, biggan, and not-ARCH-DATASET for all of
    base but one. Raises BadInput for any other name.
    """
    if group == "base":
        return tuple(NETWORKS)
    if group.startswith("not-"):
        left_out = group.removeprefix("not-").replace("-", "/", 1)
        if left_out in NETWORKS:
            return tuple(name for name in NETWORKS if name != left_out)
    chosen = [name for name, task in NETWORKS.items() if group in (task, *name.split("/"))]
    if chosen:
        return tuple(chosen)
    if group.count("/") == 1:
        return (group,)
    known = "base, cls, gen, imagenet, places365, alexnet, resnet152, biggan, not-ARCH-DATASET"
    raise BadInput(f"no group of MILANNOTATIONS is named {group!r}", hint=f"give one of {known}")


@dataclass(frozen=True)
class Split:
    """Which units train and which tell how well that goes."""

    train: tuple[str, ...]
    """Keys of units."""

    val: tuple[str, ...]
    """Keys of units that were held out."""

    def to_json(self) -> str:
        """The split written down."""
        return json.dumps({"train": self.train, "val": self.val}, indent=1)

    @staticmethod
    def from_json(text: str) -> Split:
        """What ``to_json`` wrote."""
        found = json.loads(text)
        return Split(tuple(found["train"]), tuple(found["val"]))


def split_units(units: Sequence[AnnotatedUnit], held_out: float, seed: int) -> Split:
    """A random split by unit: no sentence of a held-out unit is trained on.

    The original holds out positions in a list of sentences for the language model, so that it
    trains on most of them.
    """
    keys = sorted(unit.key for unit in units)
    order = np.random.default_rng(seed).permutation(len(keys))
    count = max(1, round(held_out * len(keys))) if held_out > 0 else 0
    val = {keys[i] for i in order[:count].tolist()}
    return Split(tuple(key for key in keys if key not in val), tuple(sorted(val)))
