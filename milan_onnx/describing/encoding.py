"""Features of exemplars: a distinct image is encoded once, and pooled under each of its masks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.describing.job import Job
from milan_onnx.exemplars import LayerExemplars, exemplar_masks
from milan_onnx.probe import frames
from milan_onnx.runtime import Encoder, in_order

Floats = NDArray[np.float32]
Frame = tuple[int, NDArray[np.uint8]]
Use = tuple[int, int, int]
"""(layer, row among its describable units, rank) that an image is an exemplar of."""

BATCH = 8
MASKS = 64
"""Masks made at once: 13 MB at 224x224."""
NOTHING_TO_DESCRIBE = frozenset({"dead", "constant"})


def describable(layer: LayerExemplars) -> list[int]:
    """Units that have something to describe: neither dead nor constant."""
    return [u for u in range(layer.units) if not NOTHING_TO_DESCRIBE.intersection(layer.flags(u))]


def encode_exemplars(job: Job, layers: Sequence[LayerExemplars], encoder: Encoder) -> list[Floats]:
    """Features float32 (describable units, K, F) of each layer.

    The encoder sees the same view of a photo as the subject did, at its own resolution.
    Raises ProbeError when a photo can no longer be read.
    """
    rows = [describable(layer) for layer in layers]
    k, size = layers[0].ids.shape[1], encoder.image_size
    features = [np.zeros((len(units), k, encoder.spec.features), np.float32) for units in rows]
    uses = _uses(layers, rows)
    view = job.preprocessing.geometry.scaled(size, size)

    def encode(batch: Sequence[Frame]) -> list[tuple[int, Floats]]:
        maps = encoder.maps(np.stack([frame for _, frame in batch]))
        return [
            (image, _pooled(encoder, maps, index, layers, rows, uses[image]))
            for index, (image, _) in enumerate(batch)
        ]

    with job.say.stage("encode", len(uses), "images") as meter:
        batches = _chunks(frames(job.probe, sorted(uses), view, workers=job.threads))
        for batch, pooled in in_order(encode, batches, job.in_flight):
            for image, vectors in pooled:
                for (layer, row, rank), vector in zip(uses[image], vectors, strict=True):
                    features[layer][row, rank] = vector
            meter(len(batch))
    return features


def _uses(layers: Sequence[LayerExemplars], rows: Sequence[Sequence[int]]) -> dict[int, list[Use]]:
    uses: dict[int, list[Use]] = {}
    for index, (layer, units) in enumerate(zip(layers, rows, strict=True)):
        for row, unit in enumerate(units):
            for rank, image in enumerate(layer.ids[unit].tolist()):
                uses.setdefault(image, []).append((index, row, rank))
    return uses


def _pooled(
    encoder: Encoder,
    maps: list[Floats],
    image: int,
    layers: Sequence[LayerExemplars],
    rows: Sequence[Sequence[int]],
    uses: Sequence[Use],
) -> Floats:
    """Features (n, F) of one image's uses, in their order (they are ordered by layer)."""
    parts = []
    for index, group in itertools.groupby(uses, key=lambda use: use[0]):
        places = np.array([(rows[index][row], rank) for _, row, rank in group])
        for start in range(0, len(places), MASKS):
            units, ranks = places[start : start + MASKS].T
            activations = np.asarray(layers[index].maps[units, ranks])
            size = encoder.image_size
            masks = exemplar_masks(activations, layers[index].thresholds[units], size, size)
            parts.append(encoder.pool(maps, image, masks))
    return np.concatenate(parts)


def _chunks(items: Iterator[Frame]) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
