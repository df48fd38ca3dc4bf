"""Described units: what annotators said of a unit, and what of its exemplars is needed to learn it.

There are two kinds of source, a file of described units (`milan_onnx.annotations.described`) and a
folder of MILANNOTATIONS (`milan_onnx.annotations.milannotations`); the rest sees neither.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Photo = Hashable
"""Names a frame; exemplars that share it are encoded together."""


@dataclass(frozen=True)
class Annotation:
    """What one annotator said of a unit."""

    description: str
    """What the exciting regions have in common; never empty."""

    also: str = ""
    """A second true way to say it; empty where none was given."""

    coherence: int | None = None
    """How many regions share it: 3 nearly all, 2 most, 1 about half, 0 none; None: not asked."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """The ways to say it."""
        return (self.description, self.also) if self.also else (self.description,)


@dataclass(frozen=True)
class AnnotatedUnit:
    """A unit that annotators described."""

    network: str
    """Name of the network; of MILANNOTATIONS ARCH/DATASET."""

    layer: str
    """Name of the layer: its module, or its folder."""

    unit: int
    """Number of the unit."""

    annotations: tuple[Annotation, ...]
    """At least one, in the order of the source."""

    exemplars: int
    """K, how many there are."""

    tensor: str = ""
    """Name of the layer's tensor in an ONNX graph; empty where it is not told."""

    split: str = ""
    """What the unit may be used for, such as ``train``; empty where the source has no split."""

    line: int = 0
    """Line of the source that describes it; 0 where there are several."""

    @property
    def key(self) -> str:
        """Names the unit in splits and caches."""
        return f"{self.network}/{self.layer}/{self.unit}"

    @property
    def phrases(self) -> tuple[str, ...]:
        """All that was said of it: the first annotator's description, also, the second's ..."""
        return tuple(text for said in self.annotations for text in said.phrases)

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The first thing that each annotator said."""
        return tuple(said.description for said in self.annotations)

    @property
    def coherence(self) -> float | None:
        """Mean over the annotators; None where they were not asked."""
        found = [said.coherence for said in self.annotations if said.coherence is not None]
        return sum(found) / len(found) if found else None


class AnnotatedUnits(Protocol):
    """A source of described units. Units are named by their place in ``units``."""

    @property
    def units(self) -> Sequence[AnnotatedUnit]:
        """All units."""

    def photo(self, unit: int, rank: int) -> Photo:
        """Names the frame of an exemplar, 0 the best; equal names are equal frames."""

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """Frames uint8 (size, size, 3), in the order asked for.

        Raises BadInput naming all of the photos that cannot be used.
        """

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """The exciting region of an exemplar on its frame: bool (size, size)."""

    def digest(self, units: Sequence[int]) -> str:
        """Hash of what some units' features are made of, but for the pixels of photos."""
