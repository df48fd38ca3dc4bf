"""Descriptions of units: photos through the encoder, pooled under masks, searched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.applications.evaluate.answers import TOP
from milan_onnx.applications.evaluate.virtual import Pool, VirtualUnit, exemplar_mask
from milan_onnx.bundle import SearchDefaults
from milan_onnx.errors import ProbeError
from milan_onnx.probe import Unusable, decode
from milan_onnx.progress import Reporter
from milan_onnx.regions import Region, centre_view, cut_image
from milan_onnx.runtime import Describer, Encoder, in_order

Floats = NDArray[np.float32]
Use = tuple[int, int]
"""(unit, rank) that a photo is an exemplar of."""

BATCH = 8
MASKS = 64
"""Masks made at once: 3 MB at 224x224."""


def virtual_features(
    data: Path,
    pool: Pool,
    units: Sequence[VirtualUnit],
    encoder: Encoder,
    workers: int,
    say: Reporter,
) -> list[Floats]:
    """Features float32 (K, F) of each unit; every photo is decoded and encoded once.

    Raises ProbeError naming a photo that cannot be read or has another size than its regions say.
    """
    uses: dict[str, list[Use]] = defaultdict(list)
    for unit, drawn in enumerate(units):
        for rank, place in enumerate(drawn.regions):
            uses[pool.shown[place].region.image].append((unit, rank))
    first = {item.region.image: item.region for item in reversed(pool.shown)}
    photos = sorted(uses)
    features = [np.zeros((len(u.regions), encoder.spec.features), np.float32) for u in units]

    def encode(batch: Sequence[str]) -> list[Floats]:
        frames = [_frame(data, first[photo], encoder.image_size) for photo in batch]
        maps = encoder.maps(np.stack(frames))
        return [_pooled(encoder, maps, i, pool, units, uses[p]) for i, p in enumerate(batch)]

    with say.stage("encode", len(photos), "photos") as meter:
        batches = (photos[start : start + BATCH] for start in range(0, len(photos), BATCH))
        for batch, pooled in in_order(encode, batches, workers):
            for photo, vectors in zip(batch, pooled, strict=True):
                for (unit, rank), vector in zip(uses[photo], vectors, strict=True):
                    features[unit][rank] = vector
            meter(len(batch))
    return features


def _frame(data: Path, region: Region, size: int) -> NDArray[np.uint8]:
    path = data / region.image
    try:
        photo = decode(path.read_bytes()).image
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProbeError(f"cannot read {path}: {reason}", hint="copy the folder again") from error
    except Unusable as error:
        raise ProbeError(f"{path} cannot be used: {error}", hint="copy the folder again") from error
    if photo.size != (region.width, region.height):
        raise ProbeError(
            f"{path} has {photo.width}x{photo.height} pixels, its regions are of "
            f"{region.width}x{region.height}",
            hint="copy the folder again",
        )
    return cut_image(photo, centre_view(*photo.size), size)


def _pooled(
    encoder: Encoder,
    maps: list[Floats],
    image: int,
    pool: Pool,
    units: Sequence[VirtualUnit],
    uses: Sequence[Use],
) -> Floats:
    parts = []
    for start in range(0, len(uses), MASKS):
        masks = [exemplar_mask(pool, units[u], rank) for u, rank in uses[start : start + MASKS]]
        parts.append(encoder.pool(maps, image, np.stack(masks)))
    return np.concatenate(parts)


def search(
    describer: Describer,
    features: Sequence[Floats],
    options: SearchDefaults,
    progress: Callable[[int], None],
) -> list[list[str]]:
    """The five best descriptions of each unit (K, F); units of one K are searched together."""
    found: list[list[str]] = [[] for _ in features]
    for units in _by_exemplars(features):
        batch = np.stack([features[unit] for unit in units])
        texts = describer.describe(batch, options, candidates=TOP, progress=progress)
        for unit, hypotheses in zip(units, texts, strict=True):
            found[unit] = [hypothesis.description for hypothesis in hypotheses]
    return found


def _by_exemplars(features: Sequence[Floats]) -> Iterator[list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for unit, rows in enumerate(features):
        groups[len(rows)].append(unit)
    yield from (groups[k] for k in sorted(groups))
