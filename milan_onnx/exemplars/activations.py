"""What a scan asks of one layer's activations of a batch of images, wherever they are held.

Of all activations only a few per cent are ever looked at: each image's maximum for each unit says
which units' maps can hold anything new. So statistics ask for maxima, and for the rest of the few
(image, unit) pairs that they need, and activations can stay where the network put them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

MOST = 0.75
"""Share of units from which on a whole image is searched, and not its units' rows apart."""


@dataclass(frozen=True)
class Passed:
    """Activations that passed their units' bars."""

    units: Ids
    """Units that have such (m,), ascending."""

    counts: Ids
    """How many each has (m,)."""

    values: Floats
    """They, unit by unit (n,)."""


class Activations(Protocol):
    """float32 (B, U, h, w), asked for in parts."""

    maxima: Floats
    """The largest over the positions (B, U)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, U, h, w)."""

    def above(self, bars: Floats) -> Iterable[Passed]:
        """At least the activations above bars (U,), part by part; ``bars`` may rise meanwhile."""

    def lowest(self, units: Ids) -> Floats:
        """The smallest over the images and positions, of units (m,): (m,)."""

    def sums(self, images: Ids, units: Ids) -> Floats:
        """The sum over positions of n images' (places in the batch) units: (n,)."""

    def maps(self, images: Ids, units: Ids) -> Iterable[Floats]:
        """The maps (h * w,) of n images' units, one by one."""


class HostActivations:
    """Activations in memory."""

    def __init__(self, values: Floats, bars: Floats | None = None) -> None:
        """Of float32 (B, U, h, w). Given ``bars`` (U,), what is above them is found at once: image
        by image, while its activations are in the processor's cache."""
        images, units, height, width = values.shape
        self.shape = (images, units, height, width)
        self._flat = np.ascontiguousarray(values).reshape(images, units, height * width)
        self.maxima: Floats = np.empty((images, units), np.float32)
        self._found: list[Passed] | None = None if bars is None else []
        for image, maxima in zip(self._flat, self.maxima, strict=True):
            image.max(axis=1, out=maxima, initial=-np.inf)
            if self._found is not None and bars is not None:
                self._found += _above(image, maxima, bars)

    def above(self, bars: Floats) -> Iterable[Passed]:
        if self._found is not None:
            return self._found
        pairs = zip(self._flat, self.maxima, strict=True)
        return (part for image, maxima in pairs for part in _above(image, maxima, bars))

    def lowest(self, units: Ids) -> Floats:
        some = self._flat if len(units) == self.shape[1] else self._flat[:, units]
        return np.asarray(some.min(axis=(0, 2)), dtype=np.float32)

    def sums(self, images: Ids, units: Ids) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # infinite sums are equal sums
            sums = np.array([found.sum() for found in self.maps(images, units)], np.float32)
        return np.nan_to_num(sums, posinf=np.inf, neginf=-np.inf)

    def maps(self, images: Ids, units: Ids) -> Iterable[Floats]:
        flat = self._flat
        return (flat[pair] for pair in zip(images.tolist(), units.tolist(), strict=True))


def _above(image: Floats, maxima: Floats, bars: Floats) -> list[Passed]:
    """What passes in one image's maps (U, P) with maxima (U,): one part, or none."""
    units = np.flatnonzero(maxima > bars)
    if not units.size:
        return []
    if len(units) < MOST * len(image):
        image = image[units]
    else:
        units = np.arange(len(image))
    index = np.flatnonzero(image > bars[units, None])
    edges = np.searchsorted(index, np.arange(len(units) + 1) * image.shape[1])
    return [Passed(units, np.diff(edges), image.reshape(-1)[index])]
