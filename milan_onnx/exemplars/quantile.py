"""The activation quantile of every unit, over all positions of all probe images.

The quantile is an order statistic: with N activations of a unit and level q, the ⌈qN⌉-th smallest
(NumPy's ``inverted_cdf``), that is the (N - ⌈qN⌉ + 1)-th largest. MILAN (section 3) thresholds
exemplars at q = 0.99 of all spatial activations.

`TailQuantile` is exact. It needs the largest ⌊(1-q)N⌋ + 1 activations of a unit only, so it keeps
a buffer of them; the smallest kept one is a bar that later activations must pass. A full buffer
is pruned back to the tail, the bar rises, and in the long run about one activation in twenty is
touched again. Activations equal to the bar need not enter, so a saturated unit (a ReLU6 with more
than one per cent of sixes) or a dead one costs nothing more.

`HistogramQuantile` has bounded memory for when the tail would not fit: counts of the upper
19 bits of the float32 (a float16's mantissa, 1,024 bins an octave, without its narrow range) with
the extremes of each bin, of the tail only. It is exact where a bin holds one distinct value, as
where a unit saturates.

Both give the same state whatever the order, the batches and the shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from milan_onnx.exemplars.activations import Activations, Passed
from milan_onnx.exemplars.state import Arrays, State, fitting, flat, number

Floats = NDArray[np.float32]
Method = Literal["tail", "histogram", "given"]

BIN_SHIFT = 13
BIN_BITS = 32 - BIN_SHIFT
PENDING_ROWS = 1 << 16
LONG = 128
"""Newcomers a unit from which on they are copied unit by unit."""
BLOCK = 128
"""Units counted together in a histogram: bounds the memory for sorting."""


class Quantile(Protocol):
    """What a scan asks of a quantile statistic."""

    method: Method

    def add(self, activations: Activations) -> None:
        """Count a batch's activations."""

    def bars(self) -> Floats:
        """What activations of each unit must be above to count, whatever is still to come (U,); its
        quantile will not be below either."""

    def merge(self, other: Quantile) -> None:
        """Count what another statistic of the same kind and settings counted."""

    def value(self) -> Floats:
        """The quantile of each unit: float32 (U,); NaN before any activation."""

    def settle(self) -> None:
        """Drop what cannot matter, and order the rest: then the state depends on nothing but what
        was counted."""

    def state(self) -> Arrays:
        """What is kept."""

    def load(self, state: State) -> None:
        """Go on from a state. Raises ValueError where it does not fit."""


@lru_cache(maxsize=64)
def tail_rank(level: float, count: int) -> int:
    """How many of ``count`` values are at or above their quantile, ties counted apart."""
    exact = Fraction(str(level)) * count
    return count - int(-(-exact.numerator // exact.denominator)) + 1


def tail_slack(positions: int, images: int, level: float) -> int:
    """Room beside the tail in a unit's buffer: at least one image, and half the tail again."""
    return max(tail_rank(level, images * positions) // 2, positions)


def tail_bytes(units: int, positions: int, images: int, level: float) -> int:
    """Memory that the exact statistic may take for a layer of (units, positions)."""
    tail = tail_rank(level, images * positions)
    return 4 * units * (tail + tail_slack(positions, images, level))


class TailQuantile:
    """Exact quantile from a buffer of each unit's largest activations."""

    method: Method = "tail"

    def __init__(self, units: int, level: float, max_count: int, slack: int) -> None:
        """For at most ``max_count`` activations a unit; ``slack`` is room for one image or more."""
        self.level = level
        self.max_count = max_count
        self.tail = tail_rank(level, max_count)
        self.slack = slack
        self.count = 0
        self._bar = np.full(units, -np.inf, np.float32)
        self._fill = np.zeros(units, np.int64)
        self._buffer = np.empty((units, self.tail + slack), np.float32)

    def add(self, activations: Activations) -> None:
        """Count a batch's activations, of at most ``slack`` positions."""
        images, _, height, width = activations.shape
        self.count += images * height * width
        for passed in activations.above(self._bar):
            self._append(passed)

    def bars(self) -> Floats:
        return self._bar

    def _append(self, passed: Passed) -> None:
        units, counts = passed.units, passed.counts
        capacity = self._buffer.shape[1]
        for full in units[self._fill[units] + counts > capacity]:
            self._prune(int(full))
        first, fill = np.cumsum(counts) - counts, self._fill[units]
        if len(passed.values) > LONG * len(units):
            for unit, start, begin, count in np.stack((units, fill, first, counts), 1).tolist():
                self._buffer[unit, start : start + count] = passed.values[begin : begin + count]
        else:
            place = np.arange(len(passed.values))
            place += (units * capacity + fill - first).repeat(counts)
            self._buffer.reshape(-1)[place] = passed.values
        self._fill[units] += counts

    def _prune(self, unit: int) -> None:
        fill = int(self._fill[unit])
        if fill <= self.tail:
            return
        row = self._buffer[unit, :fill]
        row.partition(fill - self.tail)
        kept = row[fill - self.tail :]
        self._bar[unit] = kept.min()
        self._buffer[unit, : self.tail] = kept.copy()
        self._fill[unit] = self.tail

    def merge(self, other: Quantile) -> None:
        """Count what another tail of the same level and ``max_count`` counted."""
        if not isinstance(other, TailQuantile) or other.tail != self.tail:
            raise ValueError("tails of different level or size cannot be merged")
        self.count += other.count
        width = int(other._fill.max(initial=0))
        for start in range(0, width, self.slack):
            some = other._buffer[:, start : min(width, start + self.slack)]
            filled = np.arange(start, start + some.shape[1]) < other._fill[:, None]
            passes = filled & (some > self._bar[:, None])
            counts = np.count_nonzero(passes, axis=1)
            units = np.flatnonzero(counts)
            if units.size:
                self._append(Passed(units, counts[units], some[passes]))

    def _filled(self, fill: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
        """The columns of the buffer that so many of each unit (U,) take, and where they are."""
        width = int(fill.max(initial=0))
        return self._buffer[:, :width], np.arange(width) < fill[:, None]

    def _kept(self, unit: int) -> Floats:
        return self._buffer[unit, : self._fill[unit]]

    def value(self) -> Floats:
        """The quantile of each unit: float32 (U,); NaN before any activation."""
        if self.count == 0:
            return np.full(len(self._fill), np.nan, np.float32)
        rank = tail_rank(self.level, self.count)
        values = np.full(len(self._fill), -np.inf, np.float32)
        for unit in np.flatnonzero(self._fill >= rank):
            kept = self._kept(int(unit))
            values[unit] = np.partition(kept, kept.size - rank)[kept.size - rank]
        return values + np.float32(0)  # the two zeros tie: always the positive one

    def settle(self) -> None:
        for unit in range(len(self._fill)):
            self._prune(unit)
            kept = self._kept(unit)
            kept += np.float32(0)  # one zero, not two
            kept.sort()
            if len(kept) == self.tail:
                self._bar[unit] = kept[0]

    def state(self) -> Arrays:
        """How many were seen, how many are kept of each unit (U,), and they, unit by unit."""
        count, part = np.int64(self.count).reshape(1), self._filled(self._fill)
        return {"count": count, "fill": self._fill.copy(), "values": part[0][part[1]]}

    def load(self, state: State) -> None:
        fill = fitting(state, "fill", self._fill)
        if fill.min(initial=0) < 0 or fill.max(initial=0) > self._buffer.shape[1]:
            raise ValueError("fill is out of range")
        part, filled = self._filled(fill)
        part[filled] = fitting(state, "values", np.empty(int(fill.sum()), np.float32))
        self._fill, self.count = fill, number(state, "count")
        for unit in np.flatnonzero(fill >= self.tail).tolist():
            self._bar[unit] = np.partition(self._kept(unit), -self.tail)[-self.tail]


class HistogramQuantile:
    """Quantile from counts of float32 patterns, the tail's bins only."""

    method: Method = "histogram"

    def __init__(self, units: int, level: float, max_count: int) -> None:
        """For at most ``max_count`` activations a unit."""
        self._blocks = [
            _Histogram(min(BLOCK, units - first), level, max_count)
            for first in range(0, units, BLOCK)
        ]

    @property
    def count(self) -> int:
        """Activations a unit that were counted."""
        return self._blocks[0].count

    def add(self, activations: Activations) -> None:
        """Count a batch's activations."""
        images, _, height, width = activations.shape
        for block in self._blocks:
            block.count += images * height * width
        for passed in activations.above(self.bars()):
            edges = np.append(0, np.cumsum(passed.counts))
            for index, block in enumerate(self._blocks):
                begin, end = np.searchsorted(passed.units, (index * BLOCK, (index + 1) * BLOCK))
                unit = (passed.units[begin:end] - index * BLOCK).repeat(passed.counts[begin:end])
                block.add(unit, passed.values[edges[begin] : edges[end]])

    def bars(self) -> Floats:
        # Its bars are the smallest of a pattern, and what equals them counts.
        bars = np.concatenate([block.bar for block in self._blocks])
        return np.asarray(np.nextafter(bars, np.float32(-np.inf)), dtype=np.float32)

    def merge(self, other: Quantile) -> None:
        """Count what another histogram of the same level and ``max_count`` counted."""
        if not isinstance(other, HistogramQuantile):
            raise ValueError("a histogram merges only with a histogram")
        for mine, theirs in zip(self._blocks, other._blocks, strict=True):
            mine.merge(theirs)

    def value(self) -> Floats:
        """The quantile of each unit: float32 (U,); NaN before any activation."""
        return np.concatenate([block.value() for block in self._blocks])

    def settle(self) -> None:
        for block in self._blocks:
            block.settled()

    def state(self) -> Arrays:
        """The bins of the tail by unit and pattern, and how many activations were seen."""
        parts = [block.settled() for block in self._blocks]
        keys = [p.keys + ((index * BLOCK) << BIN_BITS) for index, p in enumerate(parts)]
        return {
            "count": np.int64(self.count).reshape(1),
            "keys": np.concatenate(keys),
            "counts": np.concatenate([p.counts for p in parts]),
            "lowest": np.concatenate([p.lowest for p in parts]),
            "highest": np.concatenate([p.highest for p in parts]),
        }

    def load(self, state: State) -> None:
        keys = flat(state, "keys", state["keys"].size)
        size = np.empty(keys.size, np.float32)
        bins = _Bins(
            keys,
            flat(state, "counts", keys.size),
            fitting(state, "lowest", size),
            fitting(state, "highest", size),
        )
        block = (keys >> BIN_BITS) // BLOCK
        units = sum(block.units for block in self._blocks)
        if keys.size and not 0 <= keys.min() <= keys.max() < units << BIN_BITS:
            raise ValueError("keys are of units that are not there")
        for index, mine in enumerate(self._blocks):
            mine.load(bins.select(block == index), (index * BLOCK) << BIN_BITS)
            mine.count = number(state, "count")


class _Histogram:
    """The histogram of one block of units."""

    def __init__(self, units: int, level: float, max_count: int) -> None:
        self.units = units
        self.level = level
        self.max_count = max_count
        self.tail = tail_rank(level, max_count)
        self.count = 0
        self.bar = np.full(units, -np.inf, np.float32)
        self._bins = _Bins.empty()
        self._pending: list[_Bins] = []

    def add(self, unit: NDArray[np.int64], values: Floats) -> None:
        keys = unit << BIN_BITS | _pattern(values)
        self._pending.append(_Bins(keys, np.ones(keys.size, np.int64), values, values).collapse())
        waiting = sum(bins.keys.size for bins in self._pending)
        if waiting > max(PENDING_ROWS, self._bins.keys.size):
            self._settle()

    def merge(self, other: _Histogram) -> None:
        if other.tail != self.tail:
            raise ValueError("histograms of different level or size cannot be merged")
        self._pending.extend((other._bins, *other._pending))
        self.count += other.count
        self._settle()

    def _settle(self) -> None:
        """Fold the pending counts in and drop bins that lie wholly below the tail."""
        bins = _Bins.joined([self._bins, *self._pending]).collapse()
        self._pending = []
        above = bins.count_above(self.units)
        self._bins = bins.select(above < self.tail)
        unit = self._bins.keys >> BIN_BITS
        covered = np.zeros(self.units, np.int64)
        np.add.at(covered, unit, self._bins.counts)
        lowest = np.full(self.units, np.int64(1) << BIN_BITS)
        np.minimum.at(lowest, unit, self._bins.keys & ((1 << BIN_BITS) - 1))
        full = covered >= self.tail
        self.bar[full] = _lowest_of_pattern(lowest[full])

    def value(self) -> Floats:
        if self.count == 0:
            return np.full(self.units, np.nan, np.float32)
        self._settle()
        bins, rank = self._bins, tail_rank(self.level, self.count)
        above = bins.count_above(self.units)
        holds = (above < rank) & (above + bins.counts >= rank)
        values = np.full(self.units, -np.inf, np.float32)
        found = bins.select(holds)
        values[found.keys >> BIN_BITS] = found.between(rank - above[holds])
        return values

    def load(self, bins: _Bins, first: int) -> None:
        """Hold these bins; ``first`` is the key of the block's first unit."""
        self._bins = _Bins(bins.keys - first, bins.counts, bins.lowest, bins.highest)
        self._settle()

    def settled(self) -> _Bins:
        """The bins of the tail."""
        self._settle()
        return self._bins


@dataclass(frozen=True)
class _Bins:
    """Counted patterns; ``keys`` is unit and pattern in one int64."""

    keys: NDArray[np.int64]
    """unit << BIN_BITS | pattern."""

    counts: NDArray[np.int64]
    """Activations in the bin."""

    lowest: Floats
    """The smallest of them."""

    highest: Floats
    """The largest of them."""

    @staticmethod
    def empty() -> _Bins:
        none = np.empty(0, np.float32)
        return _Bins(np.empty(0, np.int64), np.empty(0, np.int64), none, none)

    @staticmethod
    def joined(parts: list[_Bins]) -> _Bins:
        return _Bins(
            np.concatenate([p.keys for p in parts]),
            np.concatenate([p.counts for p in parts]),
            np.concatenate([p.lowest for p in parts]),
            np.concatenate([p.highest for p in parts]),
        )

    def collapse(self) -> _Bins:
        """One row a key, sorted by key."""
        if self.keys.size == 0:
            return self
        order = np.argsort(self.keys, kind="stable")
        keys = self.keys[order]
        first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        return _Bins(
            keys[first],
            np.add.reduceat(self.counts[order], first),
            np.minimum.reduceat(self.lowest[order], first),
            np.maximum.reduceat(self.highest[order], first),
        )

    def select(self, which: NDArray[np.bool_]) -> _Bins:
        return _Bins(self.keys[which], self.counts[which], self.lowest[which], self.highest[which])

    def count_above(self, units: int) -> NDArray[np.int64]:
        """For each bin, activations of the same unit in higher bins."""
        unit = self.keys >> BIN_BITS
        total = np.zeros(units, np.int64)
        np.add.at(total, unit, self.counts)
        through_unit = np.cumsum(total)[unit]
        return np.asarray(through_unit - np.cumsum(self.counts), dtype=np.int64)

    def between(self, rank: NDArray[np.int64]) -> Floats:
        """Within each bin the rank-th largest, its values taken as evenly spread."""
        share = (rank - 1) / np.maximum(self.counts - 1, 1)
        with np.errstate(invalid="ignore"):
            spread = self.highest.astype(np.float64) - self.lowest
        # Two patterns of zero share no bin, but a bin may span infinities: inf - inf is no spread.
        spread[~np.isfinite(spread)] = 0.0
        return (self.highest - share * spread).astype(np.float32)


def _pattern(values: Floats) -> NDArray[np.int64]:
    """Upper bits of the float32, mapped so that their order is the values' order."""
    bits = (values + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> BIN_SHIFT).astype(np.int64)


def _lowest_of_pattern(pattern: NDArray[np.int64]) -> Floats:
    """The smallest float32 of a pattern."""
    ordered = (pattern << BIN_SHIFT).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered ^ np.uint32(1 << 31), ~ordered)
    return np.asarray(bits.view(np.float32), dtype=np.float32)
