"""The running statistics of the original's exemplar search: top k, and a KLL quantile sketch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


class RunningTopK:
    """The k largest values of each unit with their positions in the stream."""

    def __init__(self, k: int) -> None:
        self.k, self.count = k, 0
        self.values: Tensor | None = None
        self.places: Tensor | None = None
        self.filled = 0

    def add(self, data: Tensor) -> None:
        """Count values (B, units)."""
        if self.values is None:
            self.values = torch.zeros(data.shape[1], 5 * self.k)
            self.places = torch.zeros(data.shape[1], 5 * self.k, dtype=torch.long)
        size = min(self.k, len(data))
        values, places = data.topk(size, dim=0, sorted=False)
        if self.filled + size > self.values.shape[1]:
            self._compress()
        into = slice(self.filled, self.filled + size)
        self.values[:, into], self.places[:, into] = values.t(), places.t() + self.count
        self.filled += size
        self.count += len(data)

    def _compress(self) -> None:
        values, chosen = self.values[:, : self.filled].topk(self.k, dim=1, sorted=False)
        places = self.places.gather(1, chosen)
        self.values[:, : self.k], self.places[:, : self.k] = values, places
        self.filled = self.k

    def result(self) -> tuple[Tensor, Tensor]:
        """Values and places (units, k), descending."""
        values, chosen = self.values[:, : self.filled].topk(self.k, dim=1, sorted=True)
        return values, self.places.gather(1, chosen)


class RunningQuantile:
    """A KLL sketch: a stack of buffers; a full one is sorted, and every other value moves up.

    The top buffer holds ``resolution`` values a unit, each below it two thirds of it, at least
    ``floor``: as the stack grows, values enter 128 at a time.
    """

    def __init__(self, resolution: int = 8192, floor: int = 128) -> None:
        self.resolution, self.floor = resolution, floor
        self.levels: list[list[Tensor]] = [[]]
        self.fill = [0]
        self.extremes: Tensor | None = None

    def add(self, data: Tensor) -> None:
        """Count values (samples, units)."""
        done = 0
        while done < len(data):
            free = self._capacity(0) - self.fill[0]
            if free <= 0:
                self._compact(0)
                continue
            self._push(0, data[done : done + free].t())
            done += free

    def _capacity(self, level: int) -> int:
        below_top = len(self.levels) - 1 - level
        return max(self.floor, -8 * (-math.ceil(self.resolution * 0.67**below_top) // 8))

    def _push(self, level: int, values: Tensor) -> None:
        self.levels[level].append(values)
        self.fill[level] += values.shape[1]

    def _compact(self, level: int) -> None:
        parts = self.levels[level]
        ordered = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).sort(dim=1)[0]
        self.levels[level], self.fill[level] = [], 0
        if level == 0:
            self._note_extremes(ordered)
        if level + 1 == len(self.levels):
            self.levels.append([])
            self.fill.append(0)
        even = ordered.shape[1] // 2 * 2
        if even < ordered.shape[1]:
            self._push(level, ordered[:, even:])
        self._push(level + 1, ordered[:, int(torch.randint(2, (1,))) : even : 2])
        if self.fill[level + 1] >= self._capacity(level + 1):
            self._compact(level + 1)

    def _note_extremes(self, ordered: Tensor) -> None:
        low, high = ordered[:, 0], ordered[:, -1]
        if self.extremes is None:
            self.extremes = torch.stack((low, high))
            return
        self.extremes[0] = torch.minimum(self.extremes[0], low)
        self.extremes[1] = torch.maximum(self.extremes[1], high)

    def quantile(self, level: float) -> np.ndarray:
        """The quantile of each unit (units,)."""
        for part in self.levels[0]:
            self._note_extremes(part.sort(dim=1)[0])
        assert self.extremes is not None
        parts = [part for level in self.levels for part in level]
        values = torch.cat([*parts, self.extremes.t()], dim=1)
        counts = [torch.full((fill,), float(2**i)) for i, fill in enumerate(self.fill)]
        weights = torch.cat([*counts, torch.zeros(2)])
        ordered, order = values.sort(dim=1)
        weight = weights[order]
        middle = weight.cumsum(1) - weight / 2
        middle /= weight.sum(1, keepdim=True)
        return np.array(
            [np.interp(level, m.numpy(), v.numpy()) for m, v in zip(middle, ordered, strict=True)],
            np.float32,
        )
