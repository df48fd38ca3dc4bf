"""A random sample of photos that all units share: those of smallest rank, a bottom-k sketch.

Ranks come from a hash of the content (`milan_onnx.exemplars.halves`), so it is a uniform sample
without replacement which depends on no order, costs one comparison a photo once it is full, and
merges exactly. Copies of a photo share its rank and rank by their ids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milan_onnx.exemplars.topk import NO_IMAGE

Ids = NDArray[np.int64]
NOTHING: Ids = np.empty(0, np.int64)


class Slots:
    """Which photos are in the sample, and in which slot.

    Slots are unordered while photos come, so that a newcomer moves its own values only.
    """

    def __init__(self, size: int) -> None:
        """For at most ``size`` photos."""
        self._ranks = np.full(size, NO_IMAGE, np.int64)
        self._ids = np.full(size, NO_IMAGE, np.int64)
        self._bar = NO_IMAGE if size else -1

    def admit(self, ids: Ids, ranks: Ids) -> tuple[Ids, Ids]:
        """Let photos (n,) compete: the slots of those that enter (m,), and which they are (m,)."""
        if not (ranks <= self._bar).any():
            return NOTHING, NOTHING
        size = len(self._ids)
        order = np.lexsort((np.append(self._ids, ids), np.append(self._ranks, ranks)))
        stays = np.zeros(size + len(ids), bool)
        stays[order[:size]] = True
        # There are as many newcomers as losers, so the two lists pair up.
        losers, newcomers = np.flatnonzero(~stays[:size]), np.flatnonzero(stays[size:])
        self._ids[losers], self._ranks[losers] = ids[newcomers], ranks[newcomers]
        self._bar = int(self._ranks.max())
        return losers, newcomers

    def filled(self) -> Ids:
        """The slots that hold a photo, by rank."""
        order = np.lexsort((self._ids, self._ranks))
        return np.asarray(order[self._ids[order] != NO_IMAGE])

    def load(self, ids: Ids, ranks: Ids) -> None:
        """Hold these photos (S,), in these slots. Raises ValueError where they are too many."""
        if not len(ids) == len(ranks) <= len(self._ids):
            raise ValueError(f"{len(ids)} photos do not fit a sample of {len(self._ids)}")
        self._ids[: len(ids)], self._ranks[: len(ids)] = ids, ranks
        self._bar = int(self._ranks.max(initial=-1))

    def photos(self) -> tuple[Ids, Ids]:
        """Ids and ranks of the photos (S,), by rank."""
        filled = self.filled()
        return self._ids[filled], self._ranks[filled]
