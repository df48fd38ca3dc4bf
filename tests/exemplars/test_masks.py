"""Masks: the paper's rule, and a region for every exemplar."""

from __future__ import annotations

import numpy as np
import pytest

from milan_onnx.exemplars import exemplar_masks, upsample


@pytest.mark.parametrize(
    ("source", "target"), [((7, 7), (224, 224)), ((14, 9), (30, 64)), ((56, 56), (32, 32))]
)
def test_upsampling_is_torch_interpolate(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="parity wants the export extra")
    maps = np.random.default_rng(0).standard_normal((3, *source)).astype(np.float32)
    ours = upsample(maps, *target)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], target, mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


def test_plain_mask_is_strictly_above_the_threshold() -> None:
    maps = np.zeros((1, 7, 7), np.float32)
    maps[0, 2:5, 2:5] = 10
    mask = exemplar_masks(maps, np.array([5], np.float32), 224, 224)[0]
    expected = upsample(maps, 224, 224)[0] > 5
    np.testing.assert_array_equal(mask, expected)


def test_saturated_exemplar_keeps_its_plateau() -> None:
    maps = np.zeros((1, 7, 7), np.float32)
    maps[0, 1, 1] = maps[0, 1, 2] = 6
    mask = exemplar_masks(maps, np.array([6], np.float32), 70, 70)[0]
    assert mask[10:20, 10:30].all()
    assert mask.sum() == 200


def test_peak_below_the_threshold_is_shown_whole() -> None:
    maps = np.zeros((1, 7, 7), np.float32)
    maps[0, 3, 4] = 2
    mask = exemplar_masks(maps, np.array([3], np.float32), 70, 70)[0]
    assert mask[30:40, 40:50].all()
    assert mask.sum() == 100


def test_no_mask_is_empty_and_constant_maps_are_whole() -> None:
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((40, 5, 6)).astype(np.float32)
    levels = rng.standard_normal(40).astype(np.float32) * 3
    assert exemplar_masks(maps, levels, 64, 48).any(axis=(1, 2)).all()
    assert exemplar_masks(np.ones((1, 3, 3), np.float32), np.ones(1, np.float32), 9, 9).all()


@pytest.mark.parametrize("fade", [False, True])
@pytest.mark.parametrize("source", [(7, 7), (14, 9), (56, 56), (300, 240), (1, 1)])
def test_rows_that_are_left_out_hold_nothing(source: tuple[int, int], fade: bool) -> None:
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((30, *source)).astype(np.float32)
    maps[10:20] = np.round(maps[10:20] * 3) / 3  # levels that many values touch
    maps[20:] = 1e6 + rng.integers(0, 3, (10, *source)) / 16  # neighbours apart by their last bits
    levels = np.array([np.quantile(m, q) for m, q in zip(maps, rng.random(30), strict=True)])
    levels = levels.astype(np.float32)
    whole = upsample(maps, 224, 200, fade=fade) > levels[:, None, None]
    found = exemplar_masks(maps, levels, 224, 200, fade=fade)
    filled = whole.any(axis=(1, 2))
    np.testing.assert_array_equal(found[filled], whole[filled])
    assert filled.sum() > 20 or source == (1, 1)
