"""The quantile is the order statistic of the full data, whatever the order, batches and shards."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from milan_onnx.exemplars import HistogramQuantile, HostActivations, TailQuantile, tail_rank

Floats = NDArray[np.float32]


def order_statistic(values: Floats, level: float) -> Floats:
    """By sorting everything: values (images, units, positions) to (units,)."""
    per_unit = np.sort(values.transpose(1, 0, 2).reshape(values.shape[1], -1), axis=1)
    rank = math.ceil(round(level * per_unit.shape[1], 9))
    return per_unit[:, rank - 1] + np.float32(0)  # -0.0 and 0.0 tie


def awkward(rng: np.random.Generator, images: int, units: int, positions: int) -> Floats:
    """Units of every kind: plain, rectified, saturated, dead, constant, negative, few values."""
    values = rng.standard_normal((images, units, positions)).astype(np.float32) * 3
    kinds = [
        lambda v: v,
        lambda v: np.maximum(v, 0),
        lambda v: np.clip(v * 4, 0, 6),
        lambda v: v * 0,
        lambda v: v * 0 - 2.5,
        lambda v: v - 50,
        lambda v: np.round(v),
        lambda v: v * np.float32(1e30),
        lambda v: np.where(v > 8, v, 0),
    ]
    for unit in range(units):
        values[:, unit] = kinds[unit % len(kinds)](values[:, unit])
    return values


def feed(stat: TailQuantile | HistogramQuantile, values: Floats, sizes: list[int]) -> None:
    start = 0
    while start < len(values):
        size = sizes[start % len(sizes)]
        stat.add(HostActivations(values[start : start + size, :, :, None]))
        start += size


Case = tuple[int, int, int, float, int, list[int]]

cases = st.tuples(
    st.integers(1, 60),
    st.integers(1, 11),
    st.sampled_from([1, 4, 9, 49]),
    st.sampled_from([0.5, 0.9, 0.99, 0.995]),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 17), min_size=1, max_size=5),
)


@given(cases)
@settings(deadline=None, max_examples=120)
def test_tail_is_the_order_statistic_bit_for_bit(
    case: Case,
) -> None:
    images, units, positions, level, seed, sizes = case
    values = awkward(np.random.default_rng(seed), images, units, positions)
    stat = TailQuantile(units, level, images * positions, slack=positions)
    feed(stat, values, sizes)
    assert stat.value().tobytes() == order_statistic(values, level).tobytes()


@given(cases, st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_more_listed_than_usable_images(case: Case, broken: int) -> None:
    """Broken photos make N smaller than was planned for; the value stays exact."""
    images, units, positions, level, seed, sizes = case
    values = awkward(np.random.default_rng(seed), images, units, positions)
    stat = TailQuantile(units, level, (images + broken) * positions, slack=positions)
    feed(stat, values, sizes)
    assert stat.value().tobytes() == order_statistic(values, level).tobytes()


@pytest.mark.parametrize("kind", ["tail", "histogram"])
@given(case=cases, shards=st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_shards_merge_to_the_same_state(kind: str, case: Case, shards: int) -> None:
    images, units, positions, level, seed, sizes = case
    rng = np.random.default_rng(seed)
    values = awkward(rng, images, units, positions)

    def new() -> TailQuantile | HistogramQuantile:
        if kind == "tail":
            return TailQuantile(units, level, images * positions, slack=positions)
        return HistogramQuantile(units, level, images * positions)

    whole = new()
    feed(whole, values, sizes)
    merged = new()
    for part in np.array_split(values[rng.permutation(images)], shards):
        shard = new()
        if len(part):
            feed(shard, part, sizes[::-1])
        merged.merge(shard)
    whole.settle()
    merged.settle()
    loaded = new()
    loaded.load(merged.state())
    for name, array in whole.state().items():
        np.testing.assert_array_equal(merged.state()[name], array, err_msg=name)
        np.testing.assert_array_equal(loaded.state()[name], array, err_msg=name)
    np.testing.assert_array_equal(loaded.bars(), merged.bars())
    np.testing.assert_array_equal(merged.value(), whole.value())


def test_histogram_rank_error_and_saturation() -> None:
    rng = np.random.default_rng(5)
    values = awkward(rng, 400, 9, 196)
    stat = HistogramQuantile(9, 0.99, 400 * 196)
    feed(stat, values, [16])
    exact, found = order_statistic(values, 0.99), stat.value()
    for unit in range(9):
        data = np.sort(values[:, unit].reshape(-1))
        low = np.searchsorted(data, found[unit], side="left")
        high = np.searchsorted(data, found[unit], side="right")
        wanted = math.ceil(0.99 * data.size)
        error = max(0, low - wanted, wanted - high) / data.size
        assert error <= 1e-4, (unit, error)
    atoms = [2, 3, 4, 6, 8]
    np.testing.assert_array_equal(found[atoms], exact[atoms])


def test_histogram_state_is_bounded() -> None:
    rng = np.random.default_rng(6)
    stat = HistogramQuantile(4, 0.99, 2000 * 196)
    sizes = []
    for _ in range(2000 // 50):
        values = rng.standard_normal((50, 4, 14, 14)).astype(np.float32)
        stat.add(HostActivations(values))
        sizes.append(len(stat.state()["keys"]))
    assert sizes[-1] < 4 * 6000
    assert sizes[-1] <= max(sizes)


def test_a_saturated_unit_costs_no_memory_traffic() -> None:
    stat = TailQuantile(1, 0.99, 100 * 49, slack=49)
    for _ in range(100):
        stat.add(HostActivations(np.full((1, 1, 7, 7), 6, np.float32)))
    assert stat.value()[0] == 6
    assert stat.count == 4900


@pytest.mark.parametrize("count", [1, 99, 100, 101, 1000, 12345])
def test_rank_agrees_with_numpy(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count)
    expected = np.quantile(values, 0.99, method="inverted_cdf")
    assert np.sort(values)[count - tail_rank(0.99, count)] == expected


def test_nothing_seen_is_nan() -> None:
    assert np.isnan(TailQuantile(2, 0.99, 10, 10).value()).all()
    assert np.isnan(HistogramQuantile(2, 0.99, 10).value()).all()
