"""Further described units for training, whose names are known and not written by eye.

    mirrored  the described units in mirrored photos, with left and right exchanged in what is said
    labels    virtual units: regions of labelled photos that show one thing, and some that do not
    classes   units of the encoder's own classifier, named by their class

They have what described units have (`milan_onnx.annotations.AnnotatedUnits`), so that features and
training are the same. docs/training-log.md says what each is worth on described units.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.annotations import AnnotatedUnit, AnnotatedUnits, Annotation, DescribedUnits
from milan_onnx.annotations.units import Frame, Mask, Photo
from milan_onnx.annotations.virtual import (
    Pool,
    VirtualUnit,
    draw_units,
    exemplar_mask,
    make_pool,
    region_frame,
)
from milan_onnx.export.backbones import ClassHead
from milan_onnx.files import sha256_bytes
from milan_onnx.geometry import Geometry
from milan_onnx.progress import Reporter
from milan_onnx.regions import NameTable, read_regions
from milan_onnx.runtime import Encoder, in_order
from milan_onnx.runtime.encoding import batches


class MirroredUnits:
    """Described units as they would be if their photos had been taken in a mirror."""

    def __init__(self, source: AnnotatedUnits) -> None:
        self._source = source

    @cached_property
    def units(self) -> Sequence[AnnotatedUnit]:
        """The same units, with left and right exchanged in all phrases."""
        return [
            replace(unit, annotations=tuple(map(_mirrored, unit.annotations)))
            for unit in self._source.units
        ]

    def photo(self, unit: int, rank: int) -> Photo:
        """The photo itself."""
        return self._source.photo(unit, rank)

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """Mirrored frames uint8 (size, size, 3)."""
        for photo, frame in self._source.frames(photos, size):
            yield photo, np.ascontiguousarray(frame[:, ::-1])

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """Mirrored masks bool (size, size)."""
        return np.ascontiguousarray(self._source.mask(unit, rank, size)[:, ::-1])

    def digest(self, units: Sequence[int]) -> str:
        """Hash of what the units are made of."""
        return f"mirrored {self._source.digest(units)}"


def _mirrored(said: Annotation) -> Annotation:
    other = {"left": "right", "right": "left"}
    description, also = (
        re.sub(r"\b(left|right)\b", lambda found: other[found[0]], text)
        for text in (said.description, said.also)
    )
    return Annotation(description, also, said.coherence)


class VirtualUnits:
    """Virtual units of the labelled photos of a split."""

    def __init__(
        self, data: Path, count: int, exemplars: int, seed: int, size: int, split: str = "train"
    ) -> None:
        """``count`` units with at most ``exemplars`` regions each; ``size`` of frames in pixels.

        Raises ProbeError for regions that cannot be used.
        """
        table = NameTable.read()
        regions = [region for region in read_regions(data) if region.split == split]
        self._data, self._pool = data, make_pool(regions, table, size)
        self._drawn = draw_units(self._pool, table, count, exemplars, seed)
        self._first = {item.region.image: item.region for item in reversed(self._pool.shown)}

    @cached_property
    def units(self) -> Sequence[AnnotatedUnit]:
        """All units; a more general name is the second way to say it."""
        return [_labelled(number, unit, self._pool) for number, unit in enumerate(self._drawn)]

    def photo(self, unit: int, rank: int) -> Photo:
        """Path of an exemplar's photo."""
        return self._pool.shown[self._drawn[unit].regions[rank]].region.image

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """The middle squares of photos, uint8 (size, size, 3)."""
        for photo in photos:
            yield photo, region_frame(self._data, self._first[str(photo)], size)

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """An exemplar's region, bool (size, size), as large as the frames."""
        assert size == self._pool.size
        return exemplar_mask(self._pool, self._drawn[unit], rank)

    def digest(self, units: Sequence[int]) -> str:
        """Hash of what the units are drawn from."""
        facts = [
            (self._drawn[u].concept, self._drawn[u].regions, self._drawn[u].key) for u in units
        ]
        return sha256_bytes(json.dumps(facts).encode())


def _labelled(number: int, unit: VirtualUnit, pool: Pool) -> AnnotatedUnit:
    """A virtual unit with its names."""
    said = unit.names[0] if unit.names else unit.concept
    also = unit.general[0] if unit.general else ""
    return AnnotatedUnit(
        "labels", unit.concept, number, (Annotation(said, also, 3),), len(unit.regions)
    )


# --- classes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassPlan:
    """Which units of the encoder's classifier are trained on."""

    variants: int = 3
    """Units of each class: the first of all photos, the others of a half of them each."""

    exemplars: int = 15
    """K."""

    least: float = 0.25
    """Mean probability of the class over the exemplars below which they show something else."""


class ClassUnits:
    """Units of the classifier: the whole photos that excite a class most, called by its name."""

    def __init__(
        self, photos: DescribedUnits, odds: NDArray[np.float32], plan: ClassPlan, seed: int
    ) -> None:
        """``odds``: probabilities (photos, classes) of the photos of `class_photos`."""
        self._source, self._photos = photos, class_photos(photos)
        self._chosen = list(_class_exemplars(odds, plan, seed))

    @cached_property
    def units(self) -> Sequence[AnnotatedUnit]:
        """Units whose class has a name."""
        return [
            AnnotatedUnit(
                "classes",
                f"{number}",
                number,
                (Annotation(name, "", 3),),
                len(photos),
                split="train",
            )
            for number, (name, photos) in enumerate(self._chosen)
        ]

    def photo(self, unit: int, rank: int) -> Photo:
        """Path of an exemplar's photo."""
        return self._photos[self._chosen[unit][1][rank]]

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """Frames uint8 (size, size, 3)."""
        return class_frames(self._source, [str(photo) for photo in photos], size)

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """The whole frame."""
        return np.ones((size, size), np.bool_)

    def digest(self, units: Sequence[int]) -> str:
        """Hash of names and photos of some units."""
        facts = [(self._chosen[unit][0], self._chosen[unit][1]) for unit in units]
        return sha256_bytes(json.dumps([self._photos, facts]).encode())


def class_photos(source: DescribedUnits) -> list[str]:
    """All photos that described units show, in order, but for those whose labels are held out."""
    held_out = {r.image for r in read_regions(source.images) if r.split != "train"}
    units = range(len(source.units))
    ranks = ((u, rank) for u in units for rank in range(source.units[u].exemplars))
    return sorted({source.exemplar(*place).image for place in ranks} - held_out)


def class_frames(
    source: DescribedUnits, photos: Sequence[str], size: int
) -> Iterator[tuple[Photo, Frame]]:
    """Photos as classifiers see them: shorter side 8/7 of the frame's, its middle."""
    view = Geometry(crop=(size, size), resize=size * 8 // 7)
    framed = source.frames([(photo, view) for photo in photos], size)
    for photo, (_, frame) in zip(photos, framed, strict=True):
        yield photo, frame


def class_odds(
    source: DescribedUnits, encoder: Encoder, head: ClassHead, workers: int, say: Reporter
) -> NDArray[np.float32]:
    """Probabilities float32 (photos, classes) that the backbone's own classifier gives."""
    photos = class_photos(source)
    weight, bias = head.weight.numpy(), head.bias.numpy()

    def work(batch: Sequence[tuple[Photo, Frame]]) -> NDArray[np.float32]:
        last = encoder.maps(np.stack([frame for _, frame in batch]))[-1]
        logits = last.mean((2, 3)) @ weight.T + bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(odds / odds.sum(1, keepdims=True), np.float32)

    found = []
    with say.stage("classes", len(photos), "photos") as meter:
        frames = class_frames(source, photos, encoder.image_size)
        for _, odds in in_order(work, batches(frames), workers):
            found.append(odds)
            meter(len(odds))
    return np.concatenate(found)


def _class_exemplars(
    odds: NDArray[np.float32], plan: ClassPlan, seed: int
) -> Iterator[tuple[str, list[int]]]:
    """Name and photos of each unit."""
    table = NameTable.read()
    for number in range(odds.shape[1]):
        names = table.of_class(number).own
        for variant in range(plan.variants if names else 0):
            rng = np.random.default_rng((seed, number, variant))
            seen = rng.random(len(odds)) < (0.5 if variant else 1.0)
            score = np.where(seen, odds[:, number], -1.0)
            best = np.argsort(-score, kind="stable")[: plan.exemplars]
            if score[best].mean() >= plan.least:
                yield names[0], best.tolist()
