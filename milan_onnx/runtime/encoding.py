"""Features of exemplars that are already known: frames through the encoder, pooled under masks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_onnx.progress import Reporter
from milan_onnx.runtime.describer import Encoder
from milan_onnx.runtime.session import in_order

Floats = NDArray[np.float32]
Frame = NDArray[np.uint8]
Use = tuple[int, int]
"""(unit, rank) that a photo is an exemplar of."""
Masks = Callable[[Sequence[Use]], NDArray[np.bool_]]
"""Masks (n, S, S) of exemplars."""
P = TypeVar("P", bound=Hashable)

BATCH = 8
MASKS = 64
"""Masks made at once: 3 MB at 224x224."""


def encode(
    frames: Iterable[tuple[P, Frame]],
    uses: Mapping[P, Sequence[Use]],
    masks: Masks,
    exemplars: Sequence[int],
    encoder: Encoder,
    workers: int,
    say: Reporter,
) -> list[Floats]:
    """Features float32 (K, F) of each unit; every frame is encoded once.

    ``frames``: those that ``uses`` names, with uint8 (S, S, 3). ``exemplars``: K of each unit.
    """
    features = [np.zeros((k, encoder.spec.features), np.float32) for k in exemplars]
    with say.stage("encode", len(uses), "photos") as meter:
        for batch in pooled(frames, uses, masks, encoder, workers):
            for photo, vectors in batch:
                for (unit, rank), vector in zip(uses[photo], vectors, strict=True):
                    features[unit][rank] = vector
            meter(len(batch))
    return features


def pooled(
    frames: Iterable[tuple[P, Frame]],
    uses: Mapping[P, Sequence[Use]],
    masks: Masks,
    encoder: Encoder,
    workers: int,
) -> Iterator[list[tuple[P, Floats]]]:
    """Each photo with the features float32 (n, F) of its ``uses``, a batch of photos at a time.

    ``workers``: batches under way at once; they come in the order of ``frames``.
    """

    def work(batch: Sequence[tuple[P, Frame]]) -> list[Floats]:
        maps = encoder.maps(np.stack([frame for _, frame in batch]))
        found = []
        for image, (photo, _) in enumerate(batch):
            own, view = uses[photo], encoder.image(maps, image)
            parts = [own[start : start + MASKS] for start in range(0, len(own), MASKS)]
            found.append(np.concatenate([view.pool(masks(part)) for part in parts]))
        return found

    for batch, vectors in in_order(work, batches(frames), workers):
        yield [(photo, found) for (photo, _), found in zip(batch, vectors, strict=True)]


def batches(items: Iterable[tuple[P, Frame]]) -> Iterator[list[tuple[P, Frame]]]:
    """Photos with their frames, as many at once as are encoded together."""
    source = iter(items)
    while batch := list(islice(source, BATCH)):
        yield batch
