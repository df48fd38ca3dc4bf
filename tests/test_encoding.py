"""Coarse masks: which resolution, and that pooling by them is pooling by the fine ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import milan_onnx
from milan_onnx.bundle import Level, load_bundle
from milan_onnx.describing import features
from milan_onnx.describing.encoding import _at_most, coarse_side
from milan_onnx.describing.features import StoredFeatures
from milan_onnx.errors import OutputUnwritable
from milan_onnx.labels import UnitLabel
from milan_onnx.runtime import Describer, Device, Encoder
from milan_onnx.runtime.pooling import ImageMaps


@pytest.fixture(scope="module")
def encoder(bundle_path: Path) -> Encoder:
    """Frames of 32x32, levels of 16x16 and 8x8."""
    return Describer(load_bundle(bundle_path), Device("cpu")).encoder()


@pytest.mark.parametrize(
    ("grid", "side"), [((1, 1), 8), ((8, 3), 8), ((9, 2), 16), ((16, 16), 16), ((60, 60), 32)]
)
def test_masks_are_no_coarser_than_activations(
    encoder: Encoder, grid: tuple[int, int], side: int
) -> None:
    assert coarse_side(encoder.spec, grid) == side


def test_levels_that_do_not_fit_take_the_frame_s_side(encoder: Encoder) -> None:
    odd = replace(encoder.spec, levels=(Level("odd", 4, 12, 12),))
    bilinear = replace(encoder.spec, mask_resize="bilinear")
    assert coarse_side(odd, (2, 2)) == coarse_side(bilinear, (2, 2)) == 32


def test_pooling_by_coarse_masks_is_pooling_by_fine_ones() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((2, 4, n, n)).astype(np.float32) for n in (16, 8, 4)]
    masks = rng.random((5, 8, 8)) < 0.3
    fine = masks.repeat(4, axis=1).repeat(4, axis=2)
    coarse = [_at_most(level, 8) for level in maps]
    assert [level.shape[2] for level in coarse] == [8, 8, 4]
    found = ImageMaps([level[1] for level in coarse], "area").pool(masks)
    expected = ImageMaps([level[1] for level in maps], "area").pool(fine)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_features_are_the_same_in_memory_and_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    expected = np.zeros((9, 4, 7), np.float32)
    stored = [StoredFeatures(*expected.shape, None)]
    monkeypatch.setattr(features, "MEMORY", 0)
    stored.append(StoredFeatures(*expected.shape, None))
    for _ in range(12):
        units, slots = rng.integers(0, 9, 3), rng.permutation(4)[:3]
        vectors = rng.standard_normal((3, 7)).astype(np.float32)
        for value in (expected, *stored):
            if isinstance(value, StoredFeatures):
                value.put(units, slots, vectors)
            else:
                value[units, slots] = vectors
    for found in stored:
        assert len(found) == 9
        for part in (slice(0, 4), slice(4, 9), slice(8, 40), slice(9, 12)):
            np.testing.assert_array_equal(found[part], expected[part])


def test_a_run_is_the_same_with_features_in_a_file(
    subject_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = milan_onnx.DescribeOptions(synthetic=60, validity=False)

    def labels() -> tuple[UnitLabel, ...]:
        run = milan_onnx.describe(subject_path, "relu1", bundle=bundle_path, options=options)
        return run.labels

    in_memory = labels()
    monkeypatch.setattr(features, "MEMORY", 0)
    assert labels() == in_memory


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "MEMORY", 0)
    monkeypatch.setattr(features.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputUnwritable, match="no space left"):
        StoredFeatures(2, 3, 4, None)
