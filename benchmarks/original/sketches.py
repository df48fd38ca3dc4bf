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
    """A KLL sketch: a stack of buffers; a full one is sorted, and every other value moves up."""

    def __init__(self, resolution: int = 8192, floor: int = 128) -> None:
        self.resolution, self.floor = resolution, floor
        self.levels: list[Tensor] = []
        self.fill: list[int] = []
        self.sampled = 1.0
        self.extremes: Tensor | None = None

    def add(self, data: Tensor) -> None:
        """Count values (samples, units)."""
        if not self.levels:
            self.levels, self.fill = [torch.zeros(data.shape[1], self.resolution)], [0]
        if self.sampled < 1:
            data = data[torch.rand(len(data)) < self.sampled]
        done = 0
        while done < len(data):
            free = self.levels[0].shape[1] - self.fill[0]
            if free == 0:
                self._shift()
                continue
            chunk = data[done : done + free]
            self.levels[0][:, self.fill[0] : self.fill[0] + len(chunk)] = chunk.t()
            self.fill[0] += len(chunk)
            done += len(chunk)

    def _shift(self) -> None:
        """Make room in the lowest buffer: sort it, keep every other value one level up."""
        level = 0
        while self._room(level) < (-(-self.levels[level - 1].shape[1] // 2) if level else 1):
            if level + 1 == len(self.levels):
                self._grow()
                return
            full = self.levels[level][:, : self.fill[level]].sort(dim=1)[0]
            if level == 0:
                self._note_extremes(full)
            offset = int(torch.randint(2, (1,)))
            kept = full[:, offset::2]
            self.levels[level + 1][
                :, self.fill[level + 1] : self.fill[level + 1] + kept.shape[1]
            ] = kept
            self.fill[level + 1] += kept.shape[1]
            self.fill[level] = 0
            level += 1

    def _room(self, level: int) -> int:
        return self.levels[level].shape[1] - self.fill[level]

    def _grow(self) -> None:
        capacity = math.ceil(self.resolution * 0.67 ** len(self.levels))
        if capacity < 2:
            self.fill[0], self.sampled = 0, self.sampled / 2
            return
        capacity = max(self.floor, -8 * (-capacity // 8))
        self.levels.insert(0, torch.zeros(len(self.levels[0]), capacity))
        self.fill.insert(0, 0)

    def _note_extremes(self, ordered: Tensor) -> None:
        low, high = ordered[:, 0], ordered[:, -1]
        if self.extremes is None:
            self.extremes = torch.stack((low, high))
            return
        self.extremes[0] = torch.minimum(self.extremes[0], low)
        self.extremes[1] = torch.maximum(self.extremes[1], high)

    def quantile(self, level: float) -> np.ndarray:
        """The quantile of each unit (units,)."""
        if self.fill[0]:
            self._note_extremes(self.levels[0][:, : self.fill[0]].sort(dim=1)[0])
        assert self.extremes is not None
        parts = [stack[:, :fill] for stack, fill in zip(self.levels, self.fill, strict=True)]
        values = torch.cat([*parts, self.extremes.t()], dim=1)
        weights = torch.cat(
            [torch.full((fill,), float(2**i)) for i, fill in enumerate(self.fill)]
            + [torch.zeros(2)]
        )
        ordered, order = values.sort(dim=1)
        weight = weights[order]
        middle = weight.cumsum(1) - weight / 2
        middle /= weight.sum(1, keepdim=True)
        return np.array(
            [np.interp(level, m.numpy(), v.numpy()) for m, v in zip(middle, ordered, strict=True)],
            np.float32,
        )
