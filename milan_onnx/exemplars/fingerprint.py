"""A fingerprint of every unit: its largest activations on photos that all units share.

Two units of two models compute the same where their fingerprints correlate, whatever their numbers
are. So a run that keeps them, a kibibyte a unit, can be compared with a later one without either
model. The photos are of both halves of the probe images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milan_onnx.exemplars.sample import Slots
from milan_onnx.exemplars.state import Arrays, State, filling, flat

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

PHOTOS = 256
"""Photos of a fingerprint."""


class Fingerprints:
    """The fingerprints of one layer's units, as they grow."""

    def __init__(self, units: int, photos: int = PHOTOS) -> None:
        self._slots = Slots(photos)
        self._values = np.empty((photos, units), np.float32)

    def add(self, ids: Ids, ranks: Ids, maxima: Floats) -> None:
        """Count images: ids and ranks (B,), and each unit's largest activation (B, U)."""
        slots, photos = self._slots.admit(ids, ranks)
        if slots.size:
            self._values[slots] = maxima[photos]

    def merge(self, other: Fingerprints) -> None:
        """Count the images of another scan of the layer."""
        self.add(*other._slots.photos(), other._values[other._slots.filled()])

    def state(self) -> Arrays:
        """The photos, by rank, and what is known of them."""
        ids, ranks = self._slots.photos()
        return {"ids": ids, "ranks": ranks, "values": self._values[self._slots.filled()]}

    def load(self, state: State) -> None:
        """Go on from a state. Raises ValueError where it does not fit."""
        values = filling(state, "values", self._values)
        self._slots.load(flat(state, "ids", len(values)), flat(state, "ranks", len(values)))
        self._values[: len(values)] = values

    def result(self) -> tuple[Ids, Floats]:
        """Image ids (S,) by rank, and the fingerprints (U, S)."""
        ids, _ = self._slots.photos()
        return ids, np.ascontiguousarray(self._values[self._slots.filled()].T)
