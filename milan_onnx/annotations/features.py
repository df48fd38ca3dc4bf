"""Features of described units: each frame through the encoder once, pooled under its masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.annotations.units import AnnotatedUnits, Photo
from milan_onnx.progress import Reporter
from milan_onnx.runtime import Encoder
from milan_onnx.runtime.encoding import Floats, Use, encode, pooled


def annotated_features(
    source: AnnotatedUnits, units: Sequence[int], encoder: Encoder, workers: int, say: Reporter
) -> list[Floats]:
    """Features float32 (K, F) of some units of a source, in their order.

    ``workers``: batches of photos under way at once. Raises BadInput naming the photos that cannot
    be used.
    """
    exemplars = [source.units[unit].exemplars for unit in units]
    uses = photo_uses(source, units, exemplars)
    photos = source.frames(tuple(uses), encoder.image_size)
    masks = _Masks(source, units, encoder.image_size)
    return encode(photos, uses, masks, exemplars, encoder, workers, say)


def photo_uses(
    source: AnnotatedUnits, units: Sequence[int], exemplars: Sequence[int]
) -> Mapping[Photo, list[Use]]:
    """Of each photo, as which exemplars it serves: (place among ``units``, rank).

    ``exemplars``: how many of each unit; photos come in the order in which they are first used.
    """
    uses: dict[Photo, list[Use]] = {}
    for place, (unit, count) in enumerate(zip(units, exemplars, strict=True)):
        for rank in range(count):
            uses.setdefault(source.photo(unit, rank), []).append((place, rank))
    return uses


def photo_features(
    source: AnnotatedUnits,
    units: Sequence[int],
    uses: Mapping[Photo, Sequence[Use]],
    photos: Sequence[Photo],
    encoder: Encoder,
    workers: int,
) -> Iterator[list[tuple[Photo, Floats]]]:
    """Some photos with the features float32 (n, F) of their uses, a batch at a time."""
    frames = source.frames(photos, encoder.image_size)
    return pooled(frames, uses, _Masks(source, units, encoder.image_size), encoder, workers)


class _Masks:
    """Makes masks (n, S, S) of exemplars."""

    def __init__(self, source: AnnotatedUnits, units: Sequence[int], size: int) -> None:
        self._source, self._units, self._size = source, units, size

    def __call__(self, some: Sequence[Use]) -> NDArray[np.bool_]:
        return np.stack([self._source.mask(self._units[u], rank, self._size) for u, rank in some])
