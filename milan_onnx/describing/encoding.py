"""Features of regions: a distinct image is encoded once, and pooled under each of its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import EncoderSpec
from milan_onnx.describing.features import StoredFeatures
from milan_onnx.describing.job import Captioning
from milan_onnx.describing.kept import Count, Kept
from milan_onnx.exemplars import LayerExemplars, exemplar_masks
from milan_onnx.probe import frames
from milan_onnx.runtime import Encoder, in_order
from milan_onnx.runtime.pooling import averaged

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Frame = tuple[int, NDArray[np.uint8]]
T = TypeVar("T")

BATCH = 8
MASKS = 64
"""Masks made at once: 13 MB at 224x224."""
BLOCK = 256
"""Features handed over at once, at least, where a batch of images has so many."""
EVERYTHING = slice(None)
NOTHING_TO_DESCRIBE = frozenset({"dead", "constant"})


@dataclass(frozen=True)
class Regions:
    """Regions of photos that excite units of one layer: S slots a unit."""

    ids: Ids
    """Image ids (units, S); -1 where a slot holds no photo."""

    maps: Callable[[Ids, Ids], Floats]
    """Activation maps float32 (n, h, w) of units (n,) and slots (n,)."""

    thresholds: Floats
    """Activation above which a position is in the unit's region (units,)."""

    side: int
    """Resolution of the masks: (side, side)."""

    fade: bool = False
    """Whether masks fade at the border, as in the paper's code."""


@dataclass(frozen=True)
class Uses:
    """Which regions of some photos: n of them, ordered by photo, layer, unit and slot."""

    layer: Ids
    """Index of the layer (n,)."""

    row: Ids
    """Index of the unit among its layer's regions (n,)."""

    slot: Ids
    """Which of the unit's slots (n,)."""

    def __getitem__(self, part: slice) -> Uses:
        """Some of them."""
        return Uses(self.layer[part], self.row[part], self.slot[part])

    @staticmethod
    def joined(parts: Sequence[Uses]) -> Uses:
        """Several, one after the other."""
        return Uses(
            *(np.concatenate([getattr(p, n) for p in parts]) for n in ("layer", "row", "slot"))
        )


Pooled = tuple[Uses, Floats]
"""Regions and their features float32 (n, F)."""


def describable(layer: LayerExemplars) -> list[int]:
    """Units that have something to describe: neither dead nor constant."""
    return [u for u in range(layer.units) if not NOTHING_TO_DESCRIBE.intersection(layer.flags(u))]


def encode_exemplars(
    job: Captioning, layers: Sequence[LayerExemplars], encoder: Encoder, kept: Kept
) -> list[StoredFeatures]:
    """Features (describable units, K, F) of each layer; goes on from what was kept.

    The encoder sees the same view of a photo as the subject did, at its own resolution.
    Raises ProbeError when a photo can no longer be read, OutputUnwritable when features need a file
    and the disk is full.
    """
    regions = exemplar_regions(job, layers)
    places = [kept.folder / f"features-{i}" if kept.folder else None for i in range(len(layers))]
    features = [
        StoredFeatures(len(r.ids), r.ids.shape[1], encoder.spec.features, place)
        for r, place in zip(regions, places, strict=True)
    ]

    def keep() -> None:
        for layer in features:
            layer.keep()

    count = Count(kept, "encode", keep)
    if not all(layer.found for layer in features):
        count.done = 0
    parts = encode_regions(job, regions, encoder, "encode", lambda *part: part, count)
    for part in parts:
        put_features(features, *part)
    return features


def put_features(features: Sequence[StoredFeatures], uses: Uses, vectors: Floats) -> None:
    """Put features float32 (n, F) of exemplars (n) where they belong."""
    for index in np.unique(uses.layer):
        mine = uses.layer == index
        features[index].put(uses.row[mine], uses.slot[mine], vectors[mine])


def encode_regions(
    job: Captioning,
    regions: Sequence[Regions],
    encoder: Encoder,
    stage: str,
    work: Callable[[Uses, Floats], T],
    count: Count,
    part: slice = EVERYTHING,
) -> Iterator[T]:
    """What ``work`` makes of regions and their features float32 (n, F), photo by photo.

    ``regions``: of each layer; ``stage``: its name in progress. ``work`` runs in several threads at
    once. ``count``: of the batches of photos that are done; those of an earlier try are passed
    over. ``part``: of the photos in their order (`photos_of`).

    Raises ProbeError when a photo cannot be read, OutputUnwritable from ``count``.
    """
    uses = _uses(regions)
    size = encoder.image_size
    view = job.geometry.scaled(size, size)

    def encode(batch: Sequence[Frame]) -> list[T]:
        maps = encoder.maps(np.stack([frame for _, frame in batch]))
        sized = {r.side: [_at_most(level, r.side) for level in maps] for r in regions}
        return [work(*block) for block in _blocks(pooled(batch, sized))]

    def pooled(batch: Sequence[Frame], sized: dict[int, list[Floats]]) -> Iterator[Pooled]:
        for place, (image, _) in enumerate(batch):
            views = {side: encoder.image(maps, place) for side, maps in sized.items()}
            for part, masks in _masks(regions, uses[image]):
                yield part, views[masks.shape[1]].pool(masks)

    photos = sorted(uses)[part]
    begin = min(count.done * BATCH, len(photos))
    with job.say.stage(stage, len(photos), "images") as meter:
        meter(begin)
        batches = _chunks(frames(job.probe, photos[begin:], view, workers=job.threads))
        for batch, made in in_order(encode, batches, job.in_flight):
            yield from made
            meter(len(batch))
            count.add()
    count.end()


def coarse_side(spec: EncoderSpec, grid: tuple[int, int]) -> int:
    """The least of a quarter, half and all of the frame's side that serves maps of a grid (h, w).

    A mask of a quarter's side is made in a fifth of the time. It must not be coarser than the
    activations, or their peaks would be missed, and fit the encoder's levels in whole cells.
    """
    sizes = {size for level in spec.levels for size in (level.height, level.width)}
    if spec.mask_resize != "area":
        return spec.image_size
    for parts in (4, 2):
        side, rest = divmod(spec.image_size, parts)
        whole = all(side % size == 0 or size % side == 0 for size in sizes) if side else False
        if whole and rest == 0 and side >= max(grid):
            return side
    return spec.image_size


def _at_most(level: Floats, side: int) -> Floats:
    """Maps (N,C,h,w) averaged to (side, side) where they are finer.

    Pooling them under masks of that side is the same as pooling the fine ones.
    """
    return averaged(level, max(1, level.shape[2] // side), max(1, level.shape[3] // side))


def exemplar_regions(job: Captioning, layers: Sequence[LayerExemplars]) -> list[Regions]:
    """The regions of all exemplars of the describable units of each layer."""
    side = job.bundle.manifest.encoder.image_size
    return [_exemplar_regions(layer, side, job.search.legacy) for layer in layers]


def photos_of(regions: Sequence[Regions]) -> int:
    """How many distinct photos there are."""
    return len(np.unique(np.concatenate([r.ids[r.ids >= 0] for r in regions])))


def _exemplar_regions(layer: LayerExemplars, side: int, fade: bool) -> Regions:
    units = np.array(describable(layer), np.int64)
    return Regions(
        ids=np.asarray(layer.ids[units]),
        maps=lambda rows, slots: layer.maps[units[rows], slots].astype(np.float32, copy=False),
        thresholds=np.asarray(layer.thresholds[units]),
        side=side,
        fade=fade,
    )


def _uses(regions: Sequence[Regions]) -> dict[int, Uses]:
    """The regions of each photo."""
    places = [np.nonzero(layer.ids >= 0) for layer in regions]
    everything = Uses(
        np.repeat(np.arange(len(regions)), [len(row) for row, _ in places]),
        np.concatenate([row for row, _ in places]),
        np.concatenate([slot for _, slot in places]),
    )
    image = np.concatenate([layer.ids[place] for layer, place in zip(regions, places, strict=True)])
    order = np.argsort(image, kind="stable")
    everything = Uses(everything.layer[order], everything.row[order], everything.slot[order])
    images, starts = np.unique(image[order], return_index=True)
    ends = np.append(starts, len(image))[1:].tolist()
    return {
        i: everything[start:end]
        for i, start, end in zip(images.tolist(), starts.tolist(), ends, strict=True)
    }


def _masks(regions: Sequence[Regions], uses: Uses) -> Iterator[tuple[Uses, NDArray[np.bool_]]]:
    """The regions of one photo, in parts, with their masks bool (n, side, side)."""
    edges = np.flatnonzero(np.diff(uses.layer, prepend=-1)).tolist()
    for begin, end in zip(edges, [*edges[1:], len(uses.layer)], strict=True):
        layer = regions[int(uses.layer[begin])]
        for start in range(begin, end, MASKS):
            part = uses[start : min(end, start + MASKS)]
            maps = layer.maps(part.row, part.slot)
            side, fade = layer.side, layer.fade
            yield part, exemplar_masks(maps, layer.thresholds[part.row], side, side, fade=fade)


def _blocks(parts: Iterator[Pooled]) -> Iterator[Pooled]:
    """The same in blocks of at least ``BLOCK`` regions, but for the last."""
    uses: list[Uses] = []
    features: list[Floats] = []
    for use, vectors in parts:
        uses.append(use)
        features.append(vectors)
        if sum(map(len, features)) >= BLOCK:
            yield Uses.joined(uses), np.concatenate(features)
            uses, features = [], []
    if uses:
        yield Uses.joined(uses), np.concatenate(features)


def _chunks(items: Iterator[Frame]) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
