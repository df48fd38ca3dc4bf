"""Features of regions, computed once: what the captioner is trained on.

For each photo, two views go through the encoder. In each, every labelled region gives a sample
with its mask, and one with a *blob*, the mask as a unit of a network would see it: coarse,
displaced, too large or too small. Photos that only have a label for the whole get the class
activation map of the backbone's own class as a mask.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.export import pixels
from milan_onnx.export.backbones import ClassHead
from milan_onnx.regions import (
    SMALLEST,
    Region,
    View,
    blob_of,
    centre_view,
    cut_image,
    cut_mask,
    enlarge,
    random_blob,
    random_view,
    region_mask,
)

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Encode = Callable[[NDArray[np.uint8]], Sequence[Floats]]
Say = Callable[[str], None]

EXACT, BLOB, CLASS, BACKGROUND, PIXELS, EDGE, UNIT, DRAWN = range(8)
CAM_THRESHOLD = 0.45
CLASS_CONFIDENCE = 0.35
# Photos whose class, as the backbone sees it, is worth a sample of its own.
CLASS_SOURCES = frozenset(
    {"coco", "caltech101", "imagen", "imagenet_sample", "pacs", "grocery", "openimages_small"}
)
# Masks that follow the outline of a thing closely enough to make samples of the outline.
OUTLINE_SOURCES = frozenset(
    {"coco", "cocostuff", "ade20k", "openclipart", "emoji", "tuxstamps", "composites"}
    | {"synth_patterns", "ccp", "toy"}
)


@dataclass(frozen=True)
class Sample:
    """One region of one view, before pooling."""

    mask: Mask
    """Bool (S,S)."""

    role: int
    """EXACT, BLOB, CLASS, BACKGROUND, PIXELS, EDGE, UNIT or DRAWN."""

    region: int = -1
    """Index of the region it shows, or -1."""

    name: str = ""
    """Class index of CLASS and UNIT samples, word of PIXELS samples, names of DRAWN ones."""


@dataclass(frozen=True)
class FeatureSet:
    """Samples of all photos, as arrays of one row each."""

    features: NDArray[np.float16]
    """Pooled features (N, F)."""

    statistics: NDArray[np.float16]
    """Pixel statistics (N, len(pixels.STATISTICS))."""

    image: NDArray[np.int32]
    """Index of the photo."""

    region: NDArray[np.int32]
    """Index of the region, or -1."""

    role: NDArray[np.int8]
    """EXACT, BLOB, CLASS, BACKGROUND, PIXELS, EDGE, UNIT or DRAWN."""

    name: tuple[str, ...]
    """Class index or word of samples without a region."""

    def save(self, folder: Path) -> None:
        """Write the arrays to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for key in ("features", "statistics", "image", "region", "role"):
            np.save(folder / f"{key}.npy", getattr(self, key))
        (folder / "name.json").write_text(json.dumps(self.name), encoding="utf-8")

    @classmethod
    def join(cls, parts: Sequence[FeatureSet]) -> FeatureSet:
        """The samples of several sets, one after the other."""
        keys = ("features", "statistics", "image", "region", "role")
        arrays: dict[str, Any] = {
            key: np.concatenate([getattr(part, key) for part in parts]) for key in keys
        }
        return cls(**arrays, name=tuple(name for part in parts for name in part.name))

    @classmethod
    def load(cls, folder: Path) -> FeatureSet:
        """Read what ``save`` wrote."""
        keys = ("features", "statistics", "image", "region", "role")
        arrays: dict[str, Any] = {key: np.load(folder / f"{key}.npy") for key in keys}
        return cls(**arrays, name=tuple(json.loads((folder / "name.json").read_text("utf-8"))))


@dataclass(frozen=True)
class FeaturePlan:
    """How many samples to take."""

    size: int = 224
    """Side of the encoder's input."""

    views: int = 2
    """Views of each photo: the middle, then random ones."""

    regions_per_image: int = 8
    """Most labelled regions of a photo; which ones is drawn."""

    seed: int = 0
    """Seed of all draws; a photo's draws depend on it and the photo's index only."""

    shard: int = 0
    """Which part of the photos to do."""

    shards: int = 1
    """Number of parts; photos are dealt out in turn."""


def collect_features(
    data: Path,
    regions: Sequence[Region],
    encode: Encode,
    head: ClassHead | None,
    plan: FeaturePlan,
    say: Say = print,
) -> FeatureSet:
    """Features of the samples of all photos that ``regions`` name."""
    by_image: dict[str, list[int]] = defaultdict(list)
    for index, region in enumerate(regions):
        by_image[region.image].append(index)
    images = sorted(by_image)
    todo = range(plan.shard, len(images), plan.shards)
    rows: list[tuple[Floats, Floats, int, Sample]] = []
    started = perf_counter()
    for begin in range(0, len(todo), 16):
        part = todo[begin : begin + 16]
        for view in range(plan.views):
            loaded = [_load(data, regions, by_image[images[i]], i, view, plan) for i in part]
            rows.extend(_encode_part(loaded, part, encode, head))
        if begin % 512 == 0:
            _progress(say, begin + len(part), len(todo), perf_counter() - started)
    return feature_set(rows)


def _progress(say: Say, done: int, total: int, seconds: float) -> None:
    rate = done / seconds
    say(f"features: {done}/{total} photos, {rate:.1f}/s, {(total - done) / rate:.0f} s left")


@dataclass(frozen=True)
class _Loaded:
    frame: NDArray[np.uint8]
    samples: list[Sample]
    wants_class: bool
    rng: np.random.Generator


def _load(
    data: Path,
    regions: Sequence[Region],
    indices: list[int],
    image: int,
    view: int,
    plan: FeaturePlan,
) -> _Loaded:
    rng = np.random.default_rng((plan.seed, image, view))
    first = regions[indices[0]]
    cut = (centre_view if view == 0 else lambda w, h: random_view(w, h, rng))(
        first.width, first.height
    )
    with Image.open(data / first.image) as photo:
        frame = cut_image(photo.convert("RGB"), cut, plan.size)
    if len(indices) > plan.regions_per_image:
        indices = [int(i) for i in rng.choice(indices, plan.regions_per_image, replace=False)]
    samples = [
        s for i in indices for s in _region_samples(regions[i], i, cut, view, plan.size, rng)
    ]
    wants_class = any(regions[i].source in CLASS_SOURCES for i in indices)
    return _Loaded(frame, samples, wants_class, rng)


def _region_samples(
    region: Region, index: int, cut: View, view: int, size: int, rng: np.random.Generator
) -> Iterator[Sample]:
    mask = cut_mask(region_mask(region), cut, size)
    if mask.mean() < SMALLEST:
        return
    if view == 0 or region.kind == "whole":
        yield Sample(mask, EXACT, index)
    blob = blob_of(mask, rng) if region.kind != "whole" else random_blob(size, rng)
    if blob.mean() >= SMALLEST / 2:
        yield Sample(blob, BLOB, index)
    if view == 0 and region.kind == "mask" and region.source in OUTLINE_SOURCES:
        edge = edge_of(mask, np.random.default_rng((index, size)))
        if edge.mean() >= SMALLEST:
            yield Sample(edge, EDGE, index)


def edge_of(mask: Mask, rng: np.random.Generator) -> Mask:
    """A stretch of a region's outline, some pixels to either side: what edge detectors mark.

    Only where the outline runs inside the frame; empty where there is none.
    """
    width = int(rng.integers(3, 9))
    plane = mask.astype(np.float32)
    near = _box_sum(plane, width)
    band = (near > 0.02) & (near < 0.98)
    band[:width], band[-width:], band[:, :width], band[:, -width:] = (False,) * 4
    part = random_blob(mask.shape[0], rng) if rng.random() < 0.5 else np.ones_like(band)
    return band & part if (band & part).mean() >= SMALLEST else band


def _box_sum(plane: Floats, reach: int) -> Floats:
    """Mean of a plane over the square of ``reach`` pixels to each side."""
    for axis in (0, 1):
        padded = np.pad(
            plane, [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)], "edge"
        )
        total = padded.cumsum(axis)
        side = 2 * reach + 1
        upper, lower = (total[side:], total[:-side]) if axis == 0 else (
            total[:, side:], total[:, :-side])  # fmt: skip
        plane = (upper - lower) / side
    return plane


def _encode_part(
    part: list[_Loaded], images: range, encode: Encode, head: ClassHead | None
) -> Iterator[tuple[Floats, Floats, int, Sample]]:
    pyramid = encode(np.stack([item.frame for item in part]))
    for offset, item in enumerate(part):
        maps = [level[offset] for level in pyramid]
        pixel = pixels.pixel_maps(item.frame)
        samples = [*item.samples, *_pixel_samples(pixel, item)]
        if head is not None and item.wants_class:
            samples += class_samples(maps[-1], head, item.frame.shape[0])
        if not samples:
            continue
        masks = np.stack([sample.mask for sample in samples])
        halves = shrink(masks, pixel.light.shape[0])
        pooled = pool(maps, halves)
        statistics = pixels.statistics(pixel, halves)
        for row, sample in enumerate(samples):
            # The masks are not needed any more, and all of them would not fit into memory.
            light = Sample(np.zeros(0, bool), sample.role, sample.region, sample.name)
            yield pooled[row], statistics[row], images[offset], light


def _pixel_samples(pixel: pixels.PixelMaps, item: _Loaded) -> Iterator[Sample]:
    """A colour, and edges or light: samples named by pixels alone."""
    size = item.frame.shape[0]
    second = pixels.edge_mask if item.rng.random() < 0.6 else pixels.light_mask
    for kind, find in (("color", pixels.colour_mask), ("", second)):
        found = find(pixel, item.rng)
        if found is None:
            continue
        mask = found[1].repeat(size // len(found[1]), 0).repeat(size // len(found[1]), 1)
        area = random_blob(size, item.rng) if item.rng.random() < 0.5 else np.ones_like(mask)
        if (mask & area).mean() >= SMALLEST:
            yield Sample(mask & area, PIXELS, name=f"{kind}{' ' if kind else ''}{found[0]}")


def class_samples(last: Floats, head: ClassHead, size: int) -> list[Sample]:
    """The region of the backbone's own class in a photo and, opposite, the background.

    ``last`` is the map of the last level (C,h,w). Nothing is returned when the backbone is unsure.
    """
    weight, bias = head.weight.numpy(), head.bias.numpy()
    logits = weight @ last.mean((1, 2)) + bias
    odds = np.exp(logits - logits.max())
    best = int(odds.argmax())
    if 1 / odds.sum() < CLASS_CONFIDENCE:
        return []
    heat = np.maximum(np.einsum("c,chw->hw", weight[best], last), 0)
    found = [Sample(enlarge(heat, size, CAM_THRESHOLD), CLASS, name=str(best))]
    away = ~enlarge(heat, size, 0.15)
    return [*found, Sample(away, BACKGROUND)] if away.mean() > 0.15 else found


def shrink(masks: NDArray[Any], side: int) -> Floats:
    """Mean of masks (M,S,S) over the pixels that each cell of (side, side) covers."""
    count, size = masks.shape[0], masks.shape[1]
    step = size // side
    if step == 1:
        return np.asarray(masks, dtype=np.float32)
    total = np.zeros((count, side, side), dtype=np.float32)
    for row in range(step):
        for column in range(step):
            total += masks[:, row::step, column::step]
    return total / np.float32(step * step)


def pool(maps: Sequence[Floats], masks: NDArray[Any]) -> Floats:
    """Masked averages of one photo's maps (C,h,w) under masks (M,S,S): float32 (M,F).

    The maps must not grow from one level to the next.
    """
    columns, weights = [], masks
    for level in maps:
        weights = shrink(weights, level.shape[1])
        flat = weights.reshape(len(masks), -1)
        share = flat / np.maximum(flat.sum(1, keepdims=True), 1e-12)
        columns.append(share @ level.reshape(level.shape[0], -1).T)
    return np.concatenate(columns, axis=1)


def feature_set(rows: Sequence[tuple[Floats, Floats, int, Sample]]) -> FeatureSet:
    """Rows of features, statistics, photo and sample as arrays."""
    samples = [row[3] for row in rows]
    return FeatureSet(
        np.stack([row[0] for row in rows]).astype(np.float16),
        np.stack([row[1] for row in rows]).astype(np.float16),
        np.array([row[2] for row in rows], dtype=np.int32),
        np.array([s.region for s in samples], dtype=np.int32),
        np.array([s.role for s in samples], dtype=np.int8),
        tuple(s.name for s in samples),
    )
