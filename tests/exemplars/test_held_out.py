"""Halves and the sample of held-out photos: against plain sorting, under any order and shards."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from milan_onnx.exemplars import (
    HeldOutOptions,
    HostActivations,
    LayerScan,
    Scan,
    ScanOptions,
    halves,
)

Floats = NDArray[np.float32]
ARRAYS = ("ids", "activations", "top_maps", "sample_maps")


def digest(content: int) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def scanned(values: Floats, contents: list[int], order: list[int], size: int) -> LayerScan:
    """A scan of the images in an order, in batches."""
    options = ScanOptions(3, held_out=HeldOutOptions(top=2, sample=5))
    scan = Scan(["layer"], len(values), options)
    for part in (order[s : s + size] for s in range(0, len(order), size)):
        digests = [digest(contents[i]) for i in part]
        scan.add(np.array(part), [HostActivations(values[part], *scan.bars())], digests)
    return scan.layers[0]


@given(
    images=st.integers(12, 60),
    copies=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 19),
    shards=st.integers(1, 3),
)
@settings(deadline=None, max_examples=80)
def test_equals_plain_sorting_in_any_order_batches_and_shards(
    images: int, copies: int, seed: int, size: int, shards: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal((images, 3, 2, 2)) * 3).astype(np.float32)
    contents = [i // copies for i in range(images)]
    parts = [part.tolist() for part in np.array_split(rng.permutation(images), shards)]
    merged = scanned(values, contents, parts[0], size)
    for part in parts[1:]:
        merged.merge(scanned(values, contents, part, size))

    sides = halves([digest(c) for c in contents])
    out = np.flatnonzero(sides.held_out)
    near = [i for i in range(images) if not sides.held_out[i]]
    sample = sorted(out.tolist(), key=lambda i: (sides.ranks[i], i))[:5]
    assert merged.held_out is not None
    found = merged.held_out.result()
    assert found.images == len(out)
    for unit in range(3):
        key = [(-values[i, unit].max(), -values[i, unit].sum(), i) for i in range(images)]
        top = sorted(out.tolist(), key=lambda i: key[i])[:2]
        shared = [i if i not in top else -1 for i in sample]
        slots = found.ids[unit]
        assert slots.tolist() == top + [-1] * (2 - len(top)) + shared
        filled = np.flatnonzero(slots >= 0)
        maps = found.maps(np.full(len(filled), unit), filled)
        np.testing.assert_array_equal(maps, values[slots[filled], unit])
        np.testing.assert_array_equal(found.activations[unit, filled], maps.max(axis=(1, 2)))
        exemplars = merged.result().ids[unit]
        best = sorted(near, key=lambda i: key[i])[:3]
        assert exemplars[: len(best)].tolist() == best


def test_copies_are_on_one_side_and_halves_are_halves() -> None:
    sides = halves([digest(i) for i in range(4000)])
    assert 1850 < sides.held_out.sum() < 2150
    assert sides.ranks.min() >= 0
    # The rank says nothing of the side, nor does the order of digests (content-addressed names).
    ranks = np.argsort(sides.ranks)
    assert 900 < sides.held_out[ranks[:2000]].sum() < 1100
    listed = np.argsort([digest(i) for i in range(4000)])
    assert 900 < sides.held_out[listed[:2000]].sum() < 1100
    again = halves([digest(5), digest(5), digest(6)])
    assert again.held_out[0] == again.held_out[1] == sides.held_out[5]
    assert again.ranks[0] == again.ranks[1] == sides.ranks[5]


def test_thresholds_are_those_of_all_photos() -> None:
    values = np.random.default_rng(3).standard_normal((90, 4, 3, 3)).astype(np.float32)
    order = list(range(90))
    scan = Scan(["layer"], 90, ScanOptions(3))
    scan.add(np.arange(90), [HostActivations(values)])
    whole = scan.layers[0].result()
    half = scanned(values, order, order, 7).result()
    for name in ("thresholds", "bottomed", "maximum"):
        assert getattr(half, name).tobytes() == getattr(whole, name).tobytes()


def test_large_maps_get_a_smaller_sample() -> None:
    options = HeldOutOptions(sample=24, memory=1 << 20)
    assert options.sample_size(1000) == 24
    assert options.sample_size((1 << 20) // 4 // 10) == 10
    assert options.sample_size(1 << 40) == 8
