"""Virtual units: what a unit that detects a concept would show, drawn from labelled photos.

A concept is a label, pooled with the labels that the table of names calls the same (by their first
own name); a label that the table does not know stands for itself. It takes part where at least
three photos of the split show it inside the frame. Each concept gets equally many units, and no
draw depends on another: a unit is drawn from the seed, its concept's number and its own.

A unit has up to fifteen regions: of them 0 to 3 (drawn, in proportion for smaller units) are
distractors, regions of photos that do not show the concept; the others show it, a photo at most
once while there are enough photos. Half of the masks are exact, half as a unit would mark them
(`milan_onnx.regions.blob_of`). Of a label for the whole photo it is half the whole frame and half
a patch anywhere, since that is all that is known of where it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import ProbeError
from milan_onnx.probe import Unusable, decode
from milan_onnx.progress import Reporter
from milan_onnx.regions import (
    COLOUR_LABEL,
    SMALLEST,
    NameTable,
    Region,
    blob_of,
    centre_view,
    cut_image,
    cut_mask,
    random_blob,
    region_mask,
)
from milan_onnx.runtime import Encoder
from milan_onnx.runtime.encoding import Floats, Use, encode

Mask = NDArray[np.bool_]

FEWEST_PHOTOS = 3
DISTRACTORS = 3
"""Most of fifteen regions that do not show the concept."""
OF = 15


@dataclass(frozen=True)
class Shown:
    """A region as the frame shows it."""

    region: Region
    """The region."""

    bits: NDArray[np.uint8]
    """Its mask in the frame, packed."""

    def mask(self, size: int) -> Mask:
        """Its mask (size, size)."""
        return np.unpackbits(self.bits, count=size * size).reshape(size, size).astype(np.bool_)


@dataclass(frozen=True)
class Concept:
    """Labels that mean the same."""

    name: str
    """Their first own name, or the label itself."""

    labels: tuple[str, ...]
    """The labels."""

    regions: tuple[int, ...]
    """The regions that show it, in the order of the pool."""


@dataclass(frozen=True)
class Pool:
    """What virtual units are drawn from."""

    shown: tuple[Shown, ...]
    """All regions of the split that the frame shows."""

    concepts: tuple[Concept, ...]
    """The concepts that take part, by name."""

    size: int
    """Side of the frame in pixels."""

    out_of_view: int
    """Regions that the centre square cuts away, or leaves too small."""

    too_few: tuple[Concept, ...]
    """Concepts that fewer than three photos show."""


@dataclass(frozen=True)
class VirtualUnit:
    """A unit that is made of regions."""

    concept: str
    """What it detects."""

    source: str
    """The collection that most of its regions come from."""

    regions: tuple[int, ...]
    """Its exemplars, as places in the pool."""

    names: tuple[str, ...]
    """What it may be called: names of the thing itself, the concept's first."""

    general: tuple[str, ...]
    """More general names of it."""

    key: tuple[int, ...]
    """Seed of the draws of its masks."""


def make_pool(regions: Sequence[Region], table: NameTable, size: int) -> Pool:
    """The regions of a split in frames of a size. Raises ProbeError where a mask is damaged."""
    shown = [s for s in (_in_frame(region, size) for region in regions) if s is not None]
    places: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(shown):
        places[concept_name(item.region.label, table)].append(place)
    concepts = [
        Concept(name, tuple(sorted({shown[p].region.label for p in found})), tuple(found))
        for name, found in sorted(places.items())
    ]
    photos = {c.name: len({shown[p].region.image for p in c.regions}) for c in concepts}
    return Pool(
        tuple(shown),
        tuple(c for c in concepts if photos[c.name] >= FEWEST_PHOTOS),
        size,
        len(regions) - len(shown),
        tuple(c for c in concepts if photos[c.name] < FEWEST_PHOTOS),
    )


def _in_frame(region: Region, size: int) -> Shown | None:
    mask = cut_mask(region_mask(region), centre_view(region.width, region.height), size)
    return Shown(region, np.packbits(mask)) if mask.mean() >= SMALLEST else None


def concept_name(label: str, table: NameTable) -> str:
    """The name under which a label is pooled: its first own name, or itself."""
    own = table.of_label(label).own
    return own[0] if own else label


def draw_units(
    pool: Pool, table: NameTable, count: int, exemplars: int, seed: int
) -> list[VirtualUnit]:
    """``count`` units, spread evenly over the concepts; which get one more is drawn."""
    order = np.random.default_rng((seed, 0)).permutation(len(pool.concepts))
    photos = sorted({item.region.image for item in pool.shown})
    by_photo: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(pool.shown):
        by_photo[item.region.image].append(place)
    units = []
    for turn, number in enumerate(order.tolist()):
        concept = pool.concepts[number]
        own = {pool.shown[place].region.image for place in concept.regions}
        others = [by_photo[photo] for photo in photos if photo not in own]
        for index in range(count // len(order) + (turn < count % len(order))):
            key = (seed, 1, number, index)
            units.append(_unit(pool, table, concept, others, exemplars, key))
    return units


def _unit(
    pool: Pool,
    table: NameTable,
    concept: Concept,
    others: Sequence[Sequence[int]],
    exemplars: int,
    key: tuple[int, ...],
) -> VirtualUnit:
    rng = np.random.default_rng(key)
    size = min(exemplars, len(concept.regions))
    odd = min(int(rng.integers(0, size * DISTRACTORS // OF + 1)), len(others))
    showing = _spread(pool, concept.regions, rng)[: size - odd]
    photos = rng.choice(len(others), odd, replace=False).tolist() if odd else []
    distractors = [int(rng.choice(others[photo])) for photo in photos]
    regions = rng.permutation([*showing, *distractors]).tolist()
    shown = [pool.shown[place].region for place in showing]
    source = Counter(region.source for region in shown).most_common(1)[0][0]
    labels = Counter(region.label for region in shown)
    names = _names(concept, labels, table)
    return VirtualUnit(concept.name, source, tuple(regions), *names, key)


def _spread(pool: Pool, regions: Sequence[int], rng: np.random.Generator) -> list[int]:
    """The regions in random order, but first one of each photo, then the second of each."""
    drawn = rng.permutation(regions).tolist()
    photos = [pool.shown[place].region.image for place in drawn]
    turn = {photo: rng.random() for photo in dict.fromkeys(photos)}
    seen: Counter[str] = Counter()
    keys = []
    for photo in photos:
        keys.append((seen[photo], turn[photo]))
        seen[photo] += 1
    return [place for _, place in sorted(zip(keys, drawn, strict=True))]


def _names(
    concept: Concept, labels: Mapping[str, int], table: NameTable
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and more general names that hold for at least half of the regions that show the
    concept."""
    own: Counter[str] = Counter()
    general: Counter[str] = Counter()
    for label, count in sorted(labels.items()):
        own.update(dict.fromkeys(names_of(label, table), count))
        general.update(dict.fromkeys(table.of_label(label).general, count))
    half = sum(labels.values()) / 2
    names = tuple(dict.fromkeys([concept.name, *(n for n in own if own[n] >= half)]))
    wider = tuple(n for n in general if general[n] >= half and n not in names)
    return names, wider


def names_of(label: str, table: NameTable) -> tuple[str, ...]:
    """What a region of a label may be called itself: its own names, colours said as people do."""
    if label.startswith(COLOUR_LABEL):
        colour = label.removeprefix(COLOUR_LABEL)
        return label, f"{colour} areas", f"{colour} objects"
    return tuple(dict.fromkeys([*table.of_label(label).own, label]))


def virtual_features(
    data: Path,
    pool: Pool,
    units: Sequence[VirtualUnit],
    encoder: Encoder,
    workers: int,
    say: Reporter,
) -> list[Floats]:
    """Features float32 (K, F) of each unit.

    Raises ProbeError naming a photo that cannot be read or has another size than its regions say.
    """
    uses: dict[str, list[Use]] = defaultdict(list)
    for unit, drawn in enumerate(units):
        for rank, place in enumerate(drawn.regions):
            uses[pool.shown[place].region.image].append((unit, rank))
    first = {item.region.image: item.region for item in reversed(pool.shown)}
    frames = ((photo, region_frame(data, first[photo], pool.size)) for photo in sorted(uses))

    def masks(some: Sequence[Use]) -> Mask:
        return np.stack([exemplar_mask(pool, units[unit], rank) for unit, rank in some])

    exemplars = [len(unit.regions) for unit in units]
    return encode(frames, uses, masks, exemplars, encoder, workers, say)


def region_frame(data: Path, region: Region, size: int) -> NDArray[np.uint8]:
    """The centre square of a region's photo: uint8 (size, size, 3).

    Raises ProbeError naming a photo that cannot be read or has another size than its regions say.
    """
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


def exemplar_mask(pool: Pool, unit: VirtualUnit, rank: int) -> Mask:
    """The mask (S, S) of a unit's exemplar; never empty."""
    item = pool.shown[unit.regions[rank]]
    exact = item.mask(pool.size)
    rng = np.random.default_rng((*unit.key, rank))
    if rng.random() < 0.5:
        return exact
    whole = item.region.kind == "whole"
    blob = random_blob(pool.size, rng) if whole else blob_of(exact, rng)
    return blob if blob.mean() >= SMALLEST / 2 else exact
