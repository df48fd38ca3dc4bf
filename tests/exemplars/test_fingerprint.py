"""Fingerprints: against plain sorting, under any order, batches and shards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from milan_onnx.errors import RunError
from milan_onnx.exemplars import (
    Fingerprints,
    HostActivations,
    LayerScan,
    Scan,
    ScanOptions,
    halves,
    load_layers,
    save_layers,
)
from milan_onnx.exemplars.fingerprint import PHOTOS

Floats = NDArray[np.float32]


def digest(content: int) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


@given(
    images=st.integers(1, 50),
    photos=st.integers(1, 12),
    ranks=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 17),
    shards=st.integers(1, 4),
)
@settings(deadline=None, max_examples=150)
def test_keeps_the_photos_of_smallest_rank(
    images: int, photos: int, ranks: int, seed: int, size: int, shards: int
) -> None:
    rng = np.random.default_rng(seed)
    maxima = rng.standard_normal((images, 3)).astype(np.float32)
    rank = rng.integers(0, ranks, images)  # with ties, as copies of a photo have
    merged = Fingerprints(3, photos)
    for part in np.array_split(rng.permutation(images), shards):
        shard = Fingerprints(3, photos)
        for some in (part[s : s + size] for s in range(0, len(part), size)):
            shard.add(some, rank[some], maxima[some])
        merged.merge(shard)
    expected = sorted(range(images), key=lambda i: (rank[i], i))[:photos]
    ids, values = merged.result()
    assert ids.tolist() == expected
    np.testing.assert_array_equal(values, maxima[expected].T)


def scanned(values: Floats, contents: list[int], order: list[int], size: int) -> LayerScan:
    scan = Scan(["layer"], len(values), ScanOptions(3))
    for part in (order[s : s + size] for s in range(0, len(order), size)):
        digests = [digest(contents[i]) for i in part]
        scan.add(np.array(part), [HostActivations(values[part], *scan.bars())], digests)
    return scan.layers[0]


def test_a_scan_keeps_a_sample_of_both_halves_in_any_batches_and_shards() -> None:
    images = 2 * PHOTOS
    values = np.random.default_rng(0).standard_normal((images, 4, 2, 2)).astype(np.float32)
    contents = [i // 2 for i in range(images)]  # every photo is there twice
    order = np.random.default_rng(1).permutation(images).tolist()
    whole = scanned(values, contents, list(range(images)), 64).result()
    merged = scanned(values, contents, order[:100], 7)
    merged.merge(scanned(values, contents, order[100:], 33))
    found = merged.result()
    assert found.sample.tobytes() == whole.sample.tobytes()
    assert found.fingerprint.tobytes() == whole.fingerprint.tobytes()
    sides = halves([digest(c) for c in contents])
    assert whole.sample.tolist() == np.lexsort((np.arange(images), sides.ranks))[:PHOTOS].tolist()
    assert 80 < sides.held_out[whole.sample].sum() < PHOTOS - 80
    maxima = values.max(axis=(2, 3)).T
    np.testing.assert_array_equal(whole.fingerprint, maxima[:, whole.sample])


def test_two_models_have_the_same_sample() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((2, PHOTOS + 50, 3, 2, 2)).astype(np.float32)
    contents = list(range(len(one)))
    first = scanned(one, contents, contents, 32).result()
    second = scanned(other[:, :2], contents, contents, 8).result()
    assert first.sample.tobytes() == second.sample.tobytes()


def test_the_store_gives_them_back_and_refuses_others(tmp_path: Path) -> None:
    values = np.random.default_rng(3).standard_normal((20, 3, 2, 2)).astype(np.float32)
    layer = scanned(values, list(range(20)), list(range(20)), 6).result()
    save_layers(tmp_path, [layer])
    (found,) = load_layers(tmp_path)
    np.testing.assert_array_equal(found.sample, layer.sample)
    np.testing.assert_array_equal(found.fingerprint, layer.fingerprint)
    np.save(tmp_path / "000-layer" / "sample.npy", layer.sample[:-1])
    with pytest.raises(RunError, match=r"fingerprint\.npy has the shape \(3, 20\)"):
        load_layers(tmp_path)
