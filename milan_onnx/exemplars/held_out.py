"""What a scan keeps of the held-out half: photos on which a description is put to the test.

For every unit its ``top`` most active photos, and ``sample`` photos that all units share (see
`milan_onnx.exemplars.sample`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.exemplars.activations import Activations
from milan_onnx.exemplars.halves import Halves
from milan_onnx.exemplars.sample import Slots
from milan_onnx.exemplars.state import Arrays, State, filling, flat, number, part, within
from milan_onnx.exemplars.topk import NO_IMAGE, TopK

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

NOBODY = -1
"""Instead of an image id, where a slot holds no photo."""
LEAST_SAMPLE = 8


@dataclass(frozen=True)
class HeldOutOptions:
    """How much is kept of the held-out half."""

    top: int = 12
    """Most active photos kept a unit."""

    sample: int = 24
    """Photos of the random sample."""

    memory: int = 128 << 20
    """Bytes for a layer's maps of the sample; of larger maps it holds fewer photos, at least 8."""

    def sample_size(self, values: int) -> int:
        """Photos of the sample in a layer that gives ``values`` activations a photo."""
        return min(self.sample, max(LEAST_SAMPLE, self.memory // (4 * values)))


@dataclass(frozen=True)
class HeldOut:
    """Held-out photos of every unit of a layer, in S slots: its own most active, then the sample.

    A photo of the sample that is among a unit's most active has only the first of its slots.
    """

    ids: Ids
    """Image ids (U, S); -1 where a slot holds no photo."""

    activations: Floats
    """Largest activation of the unit in each of these photos (U, S)."""

    top: int
    """Slots of the unit's own most active photos; the others are the sample's."""

    top_maps: Floats
    """Activation maps of the former (U, top, h, w)."""

    sample_maps: Floats
    """Activation maps of the sample (S - top, U, h, w)."""

    images: int
    """Photos of the held-out half."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.top_maps.shape[2], self.top_maps.shape[3]

    def maps(self, units: Ids, slots: Ids) -> Floats:
        """Activation maps float32 (n, h, w) of slots (n,) of units (n,)."""
        maps = np.empty((len(units), *self.top_maps.shape[2:]), np.float32)
        own = slots < self.top
        maps[own] = self.top_maps[units[own], slots[own]]
        maps[~own] = self.sample_maps[slots[~own] - self.top, units[~own]]
        return maps


class Sample:
    """The photos of smallest rank, with all units' maximum and map on each."""

    def __init__(self, size: int, units: int, positions: int) -> None:
        self._slots = Slots(size)
        self._scores = np.empty((size, units), np.float32)
        self._maps = np.empty((size, units, positions), np.float32)

    def add(self, ids: Ids, ranks: Ids, activations: Activations, rows: Ids) -> None:
        """Offer photos ``rows`` of B: ids and ranks (B,), and their activations."""
        units = np.arange(activations.shape[1])

        def maps(photo: int) -> Iterable[Floats]:
            return activations.maps(rows[photo].repeat(len(units)), units)

        self._offer(ids[rows], ranks[rows], activations.maxima[rows], maps)

    def merge(self, other: Sample) -> None:
        """Offer the photos that the sample of other images kept."""
        filled = other._slots.filled()

        def maps(photo: int) -> Iterable[Floats]:
            found: Iterable[Floats] = other._maps[filled[photo]]
            return found

        self._offer(*other._slots.photos(), other._scores[filled], maps)

    def state(self) -> Arrays:
        """The photos, by rank, and what is known of them."""
        filled = self._slots.filled()
        ids, ranks = self._slots.photos()
        kept: Arrays = {"scores": self._scores[filled], "maps": self._maps[filled]}
        return kept | {"ids": ids, "ranks": ranks}

    def load(self, state: State) -> None:
        """Go on from a state. Raises ValueError where it does not fit."""
        maps = filling(state, "maps", self._maps)
        scores = filling(state, "scores", self._scores)
        self._slots.load(flat(state, "ids", len(maps)), flat(state, "ranks", len(maps)))
        self._scores[: len(scores)], self._maps[: len(maps)] = scores, maps

    def result(self) -> tuple[Ids, Floats, Floats]:
        """Ids (S,), maxima (S, U) and maps (S, U, P), by rank."""
        filled = self._slots.filled()
        return self._slots.photos()[0], self._scores[filled], self._maps[filled]

    def _offer(
        self, ids: Ids, ranks: Ids, scores: Floats, maps: Callable[[int], Iterable[Floats]]
    ) -> None:
        """Photos (n,), their maxima (n, U), and all units' maps (P,) of any of them."""
        slots, newcomers = self._slots.admit(ids, ranks)
        for slot, photo in zip(slots.tolist(), newcomers.tolist(), strict=True):
            self._scores[slot] = scores[photo]
            for unit, found in enumerate(maps(photo)):
                self._maps[slot, unit] = found


class HeldOutScan:
    """The statistics of the held-out half in one layer, as they grow."""

    def __init__(self, units: int, grid: tuple[int, int], options: HeldOutOptions) -> None:
        """For activations of ``units`` on a ``grid`` (h, w)."""
        positions = grid[0] * grid[1]
        self.grid = grid
        self.topk = TopK(units, options.top, positions)
        self.sample = Sample(options.sample_size(units * positions), units, positions)
        self.images = 0

    def add(self, ids: Ids, activations: Activations, sides: Halves) -> None:
        """Count those of B images that are held out; arguments as of `TopK.add`."""
        rows = np.flatnonzero(sides.held_out)
        self.images += len(rows)
        if rows.size:
            self.topk.add(ids, activations, rows)
            self.sample.add(ids, sides.ranks, activations, rows)

    def merge(self, other: HeldOutScan) -> None:
        """Count what the scan of other images counted."""
        self.topk.merge(other.topk)
        self.sample.merge(other.sample)
        self.images += other.images

    def state(self) -> Arrays:
        """All that was kept."""
        images = {"images": np.int64(self.images).reshape(1)}
        return within("topk", self.topk.state()) | within("sample", self.sample.state()) | images

    def load(self, state: State) -> None:
        """Go on from a state. Raises ValueError where it does not fit."""
        self.topk.load(part("topk", state))
        self.sample.load(part("sample", state))
        self.images = number(state, "images")

    def result(self) -> HeldOut:
        """The held-out photos, once all images are counted."""
        ids, activations, maps = self.topk.ranked()
        units, top = ids.shape
        sample, scores, sample_maps = self.sample.result()
        shared = np.broadcast_to(sample, (units, len(sample)))
        twice = (shared[:, :, None] == ids[:, None, :]).any(axis=2)
        return HeldOut(
            ids=np.concatenate(
                (np.where(ids == NO_IMAGE, NOBODY, ids), np.where(twice, NOBODY, shared)), axis=1
            ),
            activations=np.concatenate((activations, scores.T), axis=1),
            top=top,
            top_maps=maps.reshape(units, top, *self.grid),
            sample_maps=sample_maps.reshape(-1, units, *self.grid),
            images=self.images,
        )
