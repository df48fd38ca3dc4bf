"""Exemplars equal a naive full sort, under any batches, order and shards."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from milan_onnx.exemplars import HostActivations, LayerScan, Scan, ScanOptions, choose_methods
from milan_onnx.exemplars.store import ARRAYS
from milan_onnx.exemplars.topk import NO_IMAGE, TopK

Floats = NDArray[np.float32]


def naive(values: Floats, k: int) -> NDArray[np.int64]:
    """Image ids (U, k) by sorting all images: maximum, then sum, then id."""
    images, units, _ = values.shape
    best = []
    for unit in range(units):
        keys = [(-values[i, unit].max(), -values[i, unit].sum(), i) for i in range(images)]
        best.append([i for _, _, i in sorted(keys)[:k]])
    return np.array(best)


def build(values: Floats, ids: NDArray[np.int64], k: int, sizes: list[int]) -> TopK:
    topk = TopK(values.shape[1], k, values.shape[2])
    start = 0
    while start < len(ids):
        size = sizes[start % len(sizes)]
        chunk = ids[start : start + size]
        part = values[chunk]
        topk.add(chunk, HostActivations(part[..., None]))
        start += size
    return topk


@given(
    images=st.integers(5, 60),
    units=st.integers(1, 7),
    positions=st.sampled_from([1, 4, 49]),
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 19), min_size=1, max_size=4),
    shards=st.integers(1, 4),
)
@settings(deadline=None, max_examples=150)
def test_equals_a_full_sort(
    images: int, units: int, positions: int, seed: int, sizes: list[int], shards: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((images, units, positions)).astype(np.float32)
    values[:, ::3] = np.clip(values[:, ::3] * 5, 0, 6)  # many ties at the maximum
    values[:, 1::4] = 0  # dead
    values[:, 2::5] = np.round(values[:, 2::5])
    k = 5
    merged = TopK(units, k, positions)
    for part in np.array_split(rng.permutation(images), shards):
        merged.merge(build(values, part, k, sizes))
    ids, activations, maps = merged.ranked()
    np.testing.assert_array_equal(ids, naive(values, k))
    for unit in range(units):
        np.testing.assert_array_equal(maps[unit], values[ids[unit], unit])
        np.testing.assert_array_equal(activations[unit], values[ids[unit], unit].max(axis=1))


def test_ranks_only_the_rows_that_are_asked_for() -> None:
    values = np.random.default_rng(1).standard_normal((20, 3, 4)).astype(np.float32)
    some = np.array([1, 4, 5, 11, 19])
    topk = TopK(3, 2, 4)
    topk.add(np.arange(20), HostActivations(values[..., None]), some)
    ids, _, maps = topk.ranked()
    np.testing.assert_array_equal(ids, some[naive(values[some], 2)])
    np.testing.assert_array_equal(maps[2, 0], values[ids[2, 0], 2])


def test_fewer_images_than_k_leaves_empty_slots() -> None:
    values = np.ones((2, 1, 4), np.float32)
    ids, activations, _ = build(values, np.arange(2), 5, [2]).ranked()
    assert ids[0].tolist() == [0, 1] + [NO_IMAGE] * 3
    assert np.isneginf(activations[0, 2:]).all()


def test_scan_of_two_layers_does_not_depend_on_batches() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)

    def run(images: NDArray[np.uint8]) -> list[HostActivations]:
        x = images.astype(np.float32).transpose(0, 3, 1, 2)
        return [HostActivations(x - 100), HostActivations(np.maximum(x[:, :, ::2, ::2] - 250, 0))]

    def results(size: int) -> list[LayerScan]:
        batches = [
            (np.arange(s, min(s + size, 50)), run(frames[s : s + size])) for s in range(0, 50, size)
        ]
        scan = Scan(["a", "b"], 60, ScanOptions(exemplars=5))
        for batch in batches:
            scan.add(*batch)
        return scan.layers

    for one, other in zip(results(7), results(32), strict=True):
        left, right = one.result(), other.result()
        for name in ARRAYS:
            assert getattr(left, name).tobytes() == getattr(right, name).tobytes(), name


def test_the_largest_tails_become_histograms_first() -> None:
    shapes = [(64, 56, 56), (512, 7, 7), (128, 28, 28)]
    small = ScanOptions(tail_memory=10 << 20)
    assert choose_methods(shapes, 10_000, ScanOptions(tail_memory=1 << 40)) == ["tail"] * 3
    assert choose_methods(shapes, 10_000, small) == ["histogram"] * 3
    middle = ScanOptions(tail_memory=100 << 20)
    assert choose_methods(shapes, 10_000, middle) == ["histogram", "tail", "tail"]


def test_flags_need_no_smallest_activation_of_all() -> None:
    """Dead, constant, sparse and plain units are told apart, in any batches and shards."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((200, 6, 3, 3)).astype(np.float32)
    values[:, 1] = 0
    values[:, 2] = -2.5
    values[:, 3] = 0
    values[17, 3, 1, 1] = 4
    values[:, 4] = np.clip(values[:, 4] * 9, 0, 6)
    values[:, 5] = 1
    values[199, 5, 2, 2] = 0.5  # below the threshold, and seen last

    def part(ids: NDArray[np.int64], size: int) -> LayerScan:
        scan = Scan(["layer"], 200, ScanOptions(exemplars=3))
        for some in (ids[s : s + size] for s in range(0, len(ids), size)):
            scan.add(some, [HostActivations(values[some], *scan.bars())])
        return scan.layers[0]

    for size, shards in ((200, 1), (7, 1), (9, 3)):
        first, *rest = (part(ids, size) for ids in np.array_split(np.arange(200), shards))
        for other in rest:
            first.merge(other)
        flags = [first.result().flags(unit) for unit in range(6)]
        kinds = [(), ("dead",), ("constant",), ("sparse",), ("saturated",), ("saturated",)]
        assert flags == kinds, (size, shards)
