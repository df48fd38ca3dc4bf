"""The k images that excite each unit most, with their activation maps, in one pass.

An image's score for a unit is the largest activation over its positions (MILAN section 3).
Images are ranked by score, equal scores by the larger sum over positions (a saturated ReLU6 has
hundreds of equal maxima; the image with more of it is the better exemplar), equal sums by the
smaller image id: a total order, so the result does not depend on order, batches or shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from milan_onnx.exemplars.activations import Activations
from milan_onnx.exemplars.state import Arrays, State, fitting

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

NO_IMAGE = np.iinfo(np.int64).max


class TopK:
    """The k best images of each unit, and their maps (U, k, P)."""

    def __init__(self, units: int, k: int, positions: int) -> None:
        self.k = k
        # Slots are unordered while the scan runs, so that a newcomer moves one map, not k.
        self._scores = np.full((units, k), -np.inf, np.float32)
        self._sums = np.full((units, k), -np.inf, np.float32)
        self._ids = np.full((units, k), NO_IMAGE, np.int64)
        self._maps = np.zeros((units, k, positions), np.float32)

    def add(self, ids: Ids, activations: Activations, rows: Ids | None = None) -> None:
        """Rank more images: ids (B,) and their activations; ``rows``: which of them, None: all."""
        rows = np.arange(len(ids)) if rows is None else rows
        scores = activations.maxima[rows]
        candidates = scores >= self._scores.min(axis=1)
        units = np.flatnonzero(candidates.any(axis=0))
        if not units.size:
            return
        # What is no candidate for a full list loses against all that is in it.
        unit, image = np.nonzero(candidates[:, units].T)
        offered, sums = np.full((2, units.size, rows.size), -np.inf, np.float32)
        offered[unit, image] = scores[image, units[unit]]
        sums[unit, image] = activations.sums(rows[image], units[unit])
        numbers = np.broadcast_to(ids[rows], offered.shape)

        def maps(units: Ids, images: Ids) -> Iterable[Floats]:
            return activations.maps(rows[images], units)

        self._admit(units, offered, sums, numbers, maps)

    def merge(self, other: TopK) -> None:
        """Rank the images that another scan of the same layer, over other images, kept."""
        units = np.arange(len(self._ids))

        def maps(units: Ids, slots: Ids) -> Iterable[Floats]:
            return other._maps[units, slots]

        self._admit(units, other._scores, other._sums, other._ids, maps)

    def _admit(
        self,
        units: Ids,
        scores: Floats,
        sums: Floats,
        ids: Ids,
        maps: Callable[[Ids, Ids], Iterable[Floats]],
    ) -> None:
        """Let images (T,n) compete for the slots of units (T,); ``maps`` of units' images."""
        all_scores = np.concatenate((self._scores[units], scores), axis=1)
        all_sums = np.concatenate((self._sums[units], sums), axis=1)
        all_ids = np.concatenate((self._ids[units], ids), axis=1)
        stays = np.zeros(all_scores.shape, bool)
        winners = ranking(all_scores, all_sums, all_ids)[:, : self.k]
        np.put_along_axis(stays, winners, True, axis=1)
        # A row has as many newcomers as losers, so the two lists pair up.
        row, slot = np.nonzero(~stays[:, : self.k])
        newcomer = np.nonzero(stays[:, self.k :])[1]
        self._scores[units[row], slot] = scores[row, newcomer]
        self._sums[units[row], slot] = sums[row, newcomer]
        self._ids[units[row], slot] = ids[row, newcomer]
        places = zip(units[row].tolist(), slot.tolist(), strict=True)
        for place, found in zip(places, maps(units[row], newcomer), strict=True):
            self._maps[place] = found

    def state(self) -> Arrays:
        """What is kept, best first."""
        order = ranking(self._scores, self._sums, self._ids)
        return {
            "ids": np.take_along_axis(self._ids, order, axis=1),
            "scores": np.take_along_axis(self._scores, order, axis=1),
            "sums": np.take_along_axis(self._sums, order, axis=1),
            "maps": np.take_along_axis(self._maps, order[:, :, None], axis=1),
        }

    def load(self, state: State) -> None:
        """Go on from a state. Raises ValueError where it does not fit."""
        self._ids = fitting(state, "ids", self._ids)
        self._scores = fitting(state, "scores", self._scores)
        self._sums = fitting(state, "sums", self._sums)
        self._maps = fitting(state, "maps", self._maps)

    def ranked(self) -> tuple[Ids, Floats, Floats]:
        """Image ids (U,k), scores (U,k) and maps (U,k,P), best first."""
        kept = self.state()
        return kept["ids"], kept["scores"], kept["maps"]


def ranking(scores: Floats, sums: Floats, ids: Ids) -> Ids:
    """Indices along the last axis from best to worst."""
    return np.asarray(np.lexsort((ids, -sums, -scores), axis=-1), dtype=np.int64)
