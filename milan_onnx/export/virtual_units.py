"""Virtual units: training examples without annotated units.

A concept, fifteen regions that show it with some that do not, and a phrase for it: what a unit
that detects the concept would look like to the captioner. MILANNOTATIONS, the paper's training
set, is not needed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import ProbeError
from milan_onnx.export import phrases, pixels
from milan_onnx.export.features import (
    BACKGROUND,
    BLOB,
    CLASS,
    DRAWN,
    EDGE,
    EXACT,
    PIXELS,
    UNIT,
    FeatureSet,
)
from milan_onnx.regions import COLOUR_LABEL, Names, NameTable, Region, mask_shape, region_mask

Ints = NDArray[np.int64]
ROLES = frozenset({EXACT, BLOB, CLASS, BACKGROUND, PIXELS, EDGE, DRAWN})
"""Samples that virtual units are made of."""
# A patch anywhere in such photos shows what the whole is labelled with.
UNIFORM_SOURCES = frozenset({"dtd10", "grocery"})
# Outlines that follow single things; of people and clothing they say little.
SHAPE_SOURCES = frozenset(
    {"coco", "composites", "emoji", "openclipart", "synth_patterns", "tuxstamps", "toy"}
)
COLOUR_SHARE = 0.55
DRAWINGS = "drawn"
FEW = 6
"""Samples that a source must have to fill a unit alone."""
COLOUR_PAIRS = 0.4
"""Share of the pairs that are of colours."""
MOSTLY = 0.6
"""Share of a unit's regions from which on it is called by their own name: a unit of five terriers
and three spaniels is one of terriers, one of three terriers and five spaniels one of dogs."""
# A colour before these misleads (people and their skin) or is not English ("red the sky").
UNCOLOURED = frozenset(
    {"people", "skin", "faces", "body", "the", "nature", "smooth", "grainy", *pixels.COLOURS}
)
# Fits most of what is drawn, so that it crowds out what says more.
COMMON = {"smooth": 0.3}
# True of too much to be said: "patterns" of every texture, "symbols" of every second emoji.
UNSAID = frozenset({"patterns", "symbols"})


@dataclass(frozen=True)
class Mix:
    """Share of each kind of concept among the virtual units."""

    name: float = 0.34
    """Own names of labels and classes."""

    general: float = 0.25
    """More general names: animals, vehicles, food."""

    coloured: float = 0.12
    """A name with a colour: brown dogs."""

    colour: float = 0.11
    """A colour alone."""

    pixels: float = 0.08
    """Lines of one direction, light and dark, smoothness, outlines."""

    shape: float = 0.03
    """Round, rectangular, long and thin."""

    background: float = 0.03
    """What surrounds the thing a photo is of, with or without a colour."""

    pair: float = 0.06
    """Two names joined by "and"."""


@dataclass(frozen=True)
class Concept:
    """Something that units may detect."""

    kind: str
    """A field of Mix."""

    wording: tuple[str, ...]
    """Ways to say it; one is drawn for each unit."""

    rows: Ints
    """Samples that show it."""

    weights: NDArray[np.float64]
    """Probability of each, so that no source and no photo dominates."""

    size: float
    """How often it is drawn among its kind."""

    drawn: bool = False
    """Whether most of its samples are of drawings."""

    sources: tuple[Ints, ...] = ()
    """Places in ``rows`` of each source that has at least FEW of them, drawings first."""


@dataclass(frozen=True)
class VirtualUnit:
    """One training example."""

    rows: Ints
    """Samples (K,)."""

    phrase: str
    """What it should be called."""

    kind: str
    """A field of Mix."""

    accepted: frozenset[str]
    """What it may be called without being wrong."""


class DrawnUnit(Protocol):
    """A real unit with a name."""

    def draw(self, count: int, rng: np.random.Generator) -> VirtualUnit:
        """A training example with ``count`` of its exemplars."""


@dataclass(frozen=True)
class SampleNames:
    """What is known of each sample, in the order of a FeatureSet."""

    names: list[Names]
    """What the region is called; empty where only its pixels are known."""

    colour: list[str]
    """Its dominant colour, or nothing."""

    look: list[str]
    """vertical, horizontal, diagonal, light, dark, smooth, outline, or nothing."""

    shape: list[str]
    """round, rectangular, long, or nothing."""

    source: list[str]
    """Collection of the photo."""

    train: NDArray[np.bool_]
    """Whether it may be trained on."""


def name_samples(features: FeatureSet, regions: Sequence[Region], table: NameTable) -> SampleNames:
    """Work out what each sample may be called."""
    images = sorted({region.image for region in regions})
    first = {region.image: region for region in reversed(regions)}
    held_out = {region.image for region in regions if region.split != "train"}
    owners = [first[images[i]] if i < len(images) else None for i in features.image]
    names = [_names_of(features, row, regions, owner, table) for row, owner in enumerate(owners)]
    share = features.statistics.astype(np.float32)
    shapes = _shapes(features, regions)
    count = range(len(names))
    return SampleNames(
        names,
        [_colour_of(features, row, regions, share[row]) for row in count],
        [_look_of(features, row, share[row], shapes) for row in count],
        [shapes.get(int(features.region[row]), "") for row in count],
        [owner.source if owner else DRAWINGS for owner in owners],
        np.array([owner is None or owner.image not in held_out for owner in owners]),
    )


def _names_of(
    features: FeatureSet,
    row: int,
    regions: Sequence[Region],
    owner: Region | None,
    table: NameTable,
) -> Names:
    if owner is None:
        own, general = (part.split(";") for part in features.name[row].split("\t"))
        return Names(tuple(filter(None, own)), tuple(filter(None, general)))
    role, index = int(features.role[row]), int(features.region[row])
    if role == CLASS:
        return table.of_class(int(features.name[row]))
    if role == UNIT:
        return _names_of_mask(features.name[row], index, regions, owner, table)
    if role == EDGE:
        return Names()
    if role == BACKGROUND:
        return Names((phrases.BACKGROUND,))
    if index < 0:
        return Names()
    region = regions[index]
    if role == BLOB and region.kind == "whole" and owner.source not in UNIFORM_SOURCES:
        return Names()
    return table.of_label(region.label)


def _names_of_mask(
    name: str, index: int, regions: Sequence[Region], owner: Region, table: NameTable
) -> Names:
    """Names of a unit's mask: of its region and of the class that the backbone sees there."""
    if name == phrases.BACKGROUND:
        return Names((phrases.BACKGROUND,))
    there = table.of_class(int(name)) if name else Names()
    if index < 0:
        return there
    loose = regions[index].kind == "whole" and owner.source not in UNIFORM_SOURCES
    if loose and not name:
        return Names()
    label = table.of_label(regions[index].label)
    own = tuple(dict.fromkeys((*label.own, *there.own)))
    return Names(own, tuple(dict.fromkeys((*label.general, *there.general))))


def _shapes(features: FeatureSet, regions: Sequence[Region]) -> dict[int, str]:
    """Shapes of regions that stand alone in a photo or are cut out exactly."""
    present = [int(i) for i in np.unique(features.region) if i >= 0]
    exact = [i for i in present if regions[i].kind == "mask" and regions[i].source in SHAPE_SOURCES]
    plain = [i for i in exact if regions[i].label not in ("person", "human face")]
    shapes = {i: mask_shape(region_mask(regions[i])) for i in plain}
    return {i: shape for i, shape in shapes.items() if shape}


def _colour_of(
    features: FeatureSet, row: int, regions: Sequence[Region], share: NDArray[np.float32]
) -> str:
    if features.name[row].startswith("color "):
        return features.name[row].removeprefix("color ")
    index = int(features.region[row])
    if index >= 0 and regions[index].label.startswith(COLOUR_LABEL):
        return regions[index].label.removeprefix(COLOUR_LABEL)
    if int(features.role[row]) == EDGE:
        return ""
    black, white = (float(share[pixels.COLOURS.index(c)]) for c in ("black", "white"))
    if min(black, white) > 0.25 and black + white > 0.7:
        return phrases.TWO_TONES
    best = int(share[: len(pixels.COLOURS)].argmax())
    return pixels.COLOURS[best] if share[best] > COLOUR_SHARE else ""


def _look_of(
    features: FeatureSet, row: int, share: NDArray[np.float32], shapes: Mapping[int, str]
) -> str:
    name = features.name[row]
    if (
        features.role[row] == DRAWN
    ):  # its names say what it shows; plain colours are no "smooth areas"
        return ""
    if features.role[row] == EDGE:
        round_ = shapes.get(int(features.region[row])) == "round"
        return "round outline" if round_ else "outline"
    if name in phrases.EDGE_PHRASES or name in phrases.LIGHT_PHRASES:
        return name
    strength, agreement, angle = pixels.edge_direction(share)
    if strength < 0.012:  # plain white and black have better names
        return "smooth" if share[[0, 1]].sum() < COLOUR_SHARE else ""
    if strength < 0.06 or agreement < 0.65:
        return ""
    for direction, low, high in (("vertical", 0, 12), ("diagonal", 33, 57), ("horizontal", 78, 91)):
        if low <= abs(angle) < high:
            return direction
    return ""


def build_concepts(
    features: FeatureSet,
    known: SampleNames,
    train: bool,
    roles: Collection[int] = ROLES,
    fewest: int = 3,
) -> list[Concept]:
    """All concepts that at least ``fewest`` photos of the split show, in samples of ``roles``."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in np.flatnonzero((known.train == train) & np.isin(features.role, [*roles])):
        for key in concepts_of(features, known, int(row)):
            groups[key].append(int(row))
    concepts = []
    for (kind, text), rows in sorted(groups.items()):
        photos = len({int(features.image[row]) for row in rows})
        if photos >= (1 if kind == "name" and train else fewest):
            concepts.append(_concept(kind, text, rows, photos, features, known))
    return concepts


def concepts_of(features: FeatureSet, known: SampleNames, row: int) -> Iterable[tuple[str, str]]:
    """Kind and text of every concept that a sample shows."""
    names, colour, look = known.names[row], known.colour[row], known.look[row]
    if names.own == (phrases.BACKGROUND,):
        yield "background", phrases.BACKGROUND
        if colour:
            yield "background", f"{colour} {phrases.BACKGROUND}"
    else:
        yield from (("name", name) for name in names.own if name not in UNSAID)
        yield from (("general", name) for name in names.general if name not in UNSAID)
        if colour:
            yield from coloured_names(colour, names)
    if colour:
        objects = bool(names.all) and names.own != (phrases.BACKGROUND,)
        yield "colour", f"{colour} {'objects' if objects else 'areas'}"
    if look:
        yield "pixels", look
    if known.shape[row] and features.role[row] in (EXACT, BLOB):
        yield "shape", known.shape[row]


def coloured_names(colour: str, names: Names) -> Iterable[tuple[str, str]]:
    """Concepts of things in a colour: brown dogs."""
    said = [name for name in names.all if name not in UNSAID]
    plain = [name for name in said[:3] if UNCOLOURED.isdisjoint(name.split())]
    return (("coloured", f"{colour} {name}") for name in plain)


def _concept(
    kind: str,
    text: str,
    rows: list[int],
    photos: int,
    features: FeatureSet,
    known: SampleNames,
) -> Concept:
    sources = Counter(known.source[row] for row in rows)
    images = Counter(int(features.image[row]) for row in rows)
    weights = np.array(
        [
            sources[known.source[row]] ** -0.6 / images[int(features.image[row])] ** 0.5
            for row in rows
        ]
    )
    size = min(photos, 60) ** 0.5 * COMMON.get(text, 1.0)
    drawn = float(np.mean(features.role[rows] == DRAWN)) > 0.5
    weights /= weights.sum()
    return Concept(
        kind,
        wording(kind, text),
        np.array(rows),
        weights,
        float(size),
        drawn,
        _by_source(rows, known),
    )


def _by_source(rows: Sequence[int], known: SampleNames) -> tuple[Ints, ...]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[known.source[row]].append(place)
    names = sorted(places, key=lambda source: (source != DRAWINGS, source))
    return tuple(np.array(places[name]) for name in names if len(places[name]) >= FEW)


def wording(kind: str, text: str) -> tuple[str, ...]:
    """Ways to say a concept."""
    if kind == "pixels":
        looks: Mapping[str, tuple[str, ...]] = {
            **phrases.EDGE_PHRASES,
            **phrases.LIGHT_PHRASES,
            **phrases.OUTLINE_PHRASES,
            "smooth": phrases.SMOOTH_PHRASES,
        }
        return looks[text]
    if kind == "shape":
        return phrases.SHAPE_PHRASES[text]
    if kind == "colour":
        colour, noun = text.rsplit(" ", 1)
        return phrases.colour_phrases(colour, noun == "objects")
    return (text,)


@dataclass(frozen=True)
class UnitPlan:
    """How virtual units are drawn."""

    exemplars: int = 15
    """K: regions of a unit."""

    most_distractors: int = 5
    """Most regions of a unit that do not show the concept."""

    clean: float = 0.35
    """Share of the units without any distractor."""

    mix: Mix = Mix()
    """Kinds of concepts."""

    real: float = 0.25
    """Share of real units, where there are any."""

    drawings: float = 1.0
    """How much more often than others a concept of drawings is taken."""

    one_source: float = 0.0
    """Share of the units whose regions are of one source, as where a probe set is of one kind."""

    drawn_pairs: float = 0.0
    """Share of the pairs that are of two concepts of drawings."""

    siblings: float = 0.2
    """Share of the units of general names that hold many regions of one thing (see MOSTLY)."""


def _odds(sizes: Sequence[float]) -> NDArray[np.float64]:
    weights = np.array(sizes)
    return np.asarray(weights / weights.sum(), np.float64)


class UnitSampler:
    """Draws virtual units."""

    def __init__(
        self,
        concepts: Sequence[Concept],
        known: SampleNames,
        plan: UnitPlan,
        rng: np.random.Generator,
        real: Sequence[DrawnUnit] = (),
        odds: NDArray[np.float64] | None = None,
    ) -> None:
        """``real`` units are drawn with ``odds`` (units,), for ``plan.real`` of the examples."""
        self.real, self.real_odds = real, odds
        if not concepts:
            raise ProbeError("the data show no concept often enough to make virtual units")
        self.known, self.plan, self.rng = known, plan, rng
        self.by_kind: dict[str, list[Concept]] = defaultdict(list)
        for concept in concepts:
            self.by_kind[concept.kind].append(concept)
        self.drawn = [c for c in self.by_kind["name"] if c.drawn]
        self.own = {c.wording[0]: c for c in self.by_kind["name"]}
        self.colours = [c for c in self.by_kind["colour"] if len(c.wording) > 1]
        self.any_rows = np.unique(np.concatenate([concept.rows for concept in concepts]))
        self.odds = {
            kind: _odds([c.size * (plan.drawings if c.drawn else 1.0) for c in group])
            for kind, group in self.by_kind.items()
        }
        kinds = [*self.by_kind, *(["pair"] if "name" in self.by_kind else [])]
        share = np.array([getattr(plan.mix, kind) for kind in kinds])
        self.kinds, self.shares = kinds, share / share.sum()

    def draw(self) -> VirtualUnit:
        """One unit."""
        if self.real and self.rng.random() < self.plan.real:
            return self._real()
        kind = str(self.rng.choice(self.kinds, p=self.shares))
        if kind == "pair" and len(self.colours) > 1 and self.rng.random() < COLOUR_PAIRS:
            return self._two_colours()
        pair = self._two_concepts() if kind == "pair" else None
        if pair is not None:
            return self._pair(*pair)
        concept = self._concept("name" if kind == "pair" else kind)
        if kind == "general" and self.rng.random() < self.plan.siblings:
            return self._siblings(concept)
        odd = self._distractors()
        shown = self._rows(concept, self.plan.exemplars - len(odd))
        phrase = str(self.rng.choice(concept.wording))
        rows = np.concatenate([shown, odd])
        return VirtualUnit(rows, phrase, concept.kind, self._accepted(shown, concept.wording))

    def phrase(self) -> str:
        """The phrase of a unit, without its regions: text for the language model."""
        if self.real and self.rng.random() < self.plan.real:
            return self._real().phrase
        kind = str(self.rng.choice(self.kinds, p=self.shares))
        pair = self._two_concepts() if kind == "pair" else None
        if pair is not None and len(self.colours) > 1 and self.rng.random() < COLOUR_PAIRS:
            return self._two_colours().phrase
        if pair is not None:
            return f"{pair[0].wording[0]} and {pair[1].wording[0]}"
        concept = self._concept("name" if kind == "pair" else kind)
        if kind == "general" and self.rng.random() < self.plan.siblings:
            return self._siblings(concept).phrase
        return str(self.rng.choice(concept.wording))

    def _real(self) -> VirtualUnit:
        chosen = int(self.rng.choice(len(self.real), p=self.real_odds))
        return self.real[chosen].draw(self.plan.exemplars, self.rng)

    def _concept(self, kind: str) -> Concept:
        group = self.by_kind[kind]
        return group[int(self.rng.choice(len(group), p=self.odds[kind]))]

    def _rows(self, concept: Concept, count: int, alone: bool | None = None) -> Ints:
        rows, weights = concept.rows, concept.weights
        if alone is None:
            alone = self._alone()
        if alone and concept.sources:
            # Half of these, where there are any, are drawings.
            first = self.rng.random() < 0.5
            which = 0 if first else int(self.rng.integers(len(concept.sources)))
            places = concept.sources[which]
            rows, weights = rows[places], weights[places] / weights[places].sum()
        enough = len(rows) >= 2 * count
        if enough:  # the same region twice is rare among a real unit's exemplars
            return self.rng.choice(rows, count, p=weights, replace=False)
        return self.rng.choice(rows, count, p=weights)

    def _alone(self) -> bool:
        return bool(self.rng.random() < self.plan.one_source)

    def _distractors(self) -> Ints:
        if self.rng.random() < self.plan.clean:
            return np.zeros(0, dtype=np.int64)
        most = min(self.plan.most_distractors, self.plan.exemplars - 1)
        return self.rng.choice(self.any_rows, int(self.rng.integers(1, most + 1)))

    def _siblings(self, general: Concept) -> VirtualUnit:
        """Regions of one thing among others of its kind: its own name if it is most."""
        anchor = int(self._rows(general, 1)[0])
        said = [name for name in self.known.names[anchor].own if name in self.own]
        special = self.own[said[0]] if said else general
        count = int(self.rng.integers(1, self.plan.exemplars + 1))
        others = self._rows(general, self.plan.exemplars - count)
        rows = np.concatenate([self._rows(special, count), others])
        shown = sum(bool(said) and said[0] in self.known.names[row].own for row in rows.tolist())
        concept = special if shown >= MOSTLY * len(rows) else general
        phrase = str(self.rng.choice(concept.wording))
        return VirtualUnit(rows, phrase, concept.kind, self._accepted(rows, concept.wording))

    def _two_colours(self) -> VirtualUnit:
        """Regions of one colour and regions of another."""
        chosen = self.rng.choice(len(self.colours), 2, replace=False)
        first, second = (self.colours[int(i)] for i in chosen)
        names = [concept.wording[0].split()[0] for concept in (first, second)]
        part = int(self.rng.integers(5, 11) * self.plan.exemplars // 15)
        alone = self._alone()
        rest = self.plan.exemplars - part
        rows = [self._rows(first, part, alone), self._rows(second, rest, alone)]
        texts = [f"{a} and {b} areas" for a, b in (names, names[::-1])]
        said = texts[int(part * 2 < self.plan.exemplars)]
        return VirtualUnit(np.concatenate(rows), said, "pair", frozenset(texts))

    def _two_concepts(self) -> tuple[Concept, Concept] | None:
        """Two concepts that share neither a word nor a region, or none if chance finds none."""
        if len(self.drawn) > 1 and self.rng.random() < self.plan.drawn_pairs:
            return self._two_drawn()
        first = self._concept("name")
        for _ in range(20):
            special = self.rng.random() < 0.5 or "general" not in self.by_kind
            second = self._concept("name" if special else "general")
            apart = set(first.wording[0].split()).isdisjoint(second.wording[0].split())
            if apart and not np.isin(first.rows, second.rows).any():
                return first, second
        return None

    def _two_drawn(self) -> tuple[Concept, Concept] | None:
        """Two concepts of drawings that share no region: checks and dots."""
        for _ in range(20):
            first, second = (
                self.drawn[int(i)] for i in self.rng.choice(len(self.drawn), 2, replace=False)
            )
            if not np.isin(first.rows, second.rows).any():
                return first, second
        return None

    def _pair(self, first: Concept, second: Concept) -> VirtualUnit:
        part = int(self.rng.integers(5, 11) * self.plan.exemplars // 15)
        rows = [self._rows(first, part), self._rows(second, self.plan.exemplars - part)]
        text = f"{first.wording[0]} and {second.wording[0]}"
        turned = f"{second.wording[0]} and {first.wording[0]}"
        accepted = frozenset({text, turned, first.wording[0], second.wording[0]})
        return VirtualUnit(np.concatenate(rows), text, "pair", accepted)

    def _accepted(self, rows: Ints, wording: tuple[str, ...]) -> frozenset[str]:
        """The concept's phrases and what is true of most regions that show it."""
        counts: Counter[str] = Counter()
        for row in rows:
            names, colour = self.known.names[row].all, self.known.colour[row]
            counts.update(names)
            counts.update(phrases.SHAPE_PHRASES.get(self.known.shape[row], ()))
            if colour:
                counts.update(f"{colour} {name}" for name in names)
                counts.update([f"{colour} objects", f"{colour} areas", f"the color {colour}"])
        common = {text for text, count in counts.items() if count >= 0.6 * len(rows)}
        return frozenset({*wording, *common})
