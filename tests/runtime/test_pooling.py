"""Masked pooling against PyTorch's own resize and a plain average."""

from __future__ import annotations

import numpy as np
import pytest

from milan_onnx.runtime.pooling import normalise, pool, resize_masks


def masks(size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    result = np.zeros((5, size, size), bool)
    result[1, 3:5, 7:8] = True  # tiny
    result[2] = True
    result[3, : size // 2] = True
    result[4] = rng.random((size, size)) < 0.3
    return result


@pytest.mark.parametrize(("size", "target"), [(224, 7), (224, 112), (64, 16), (60, 7), (32, 32)])
@pytest.mark.parametrize("resize", ["area", "bilinear"])
def test_masks_resize_as_torch_does(size: int, target: int, resize: str) -> None:
    torch = pytest.importorskip("torch", reason="parity wants the export extra")
    resized = torch.nn.functional.interpolate

    x = torch.from_numpy(masks(size)).double()[:, None]
    if resize == "area" and size % target == 0:
        expected = resized(x, (target, target), mode="area")[:, 0]
    elif resize == "area":
        # Torch's area windows overlap where sizes do not divide; ours weigh pixels by cover.
        ours = resize_masks(masks(size), [(target, target)], "area")[target, target]
        np.testing.assert_allclose(ours.mean(axis=(1, 2)), masks(size).mean(axis=(1, 2)), atol=1e-6)
        return
    else:
        expected = resized(x, (target, target), mode="bilinear", align_corners=False)[:, 0]
    ours = resize_masks(masks(size), [(target, target)], resize)[target, target]
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-6)


def test_pool_is_the_average_under_the_mask() -> None:
    rng = np.random.default_rng(1)
    maps = [rng.standard_normal((3, 16, 16)), rng.standard_normal((5, 8, 8))]
    maps = [m.astype(np.float32) for m in maps]
    chosen = masks(32)
    found = pool(maps, chosen, "area")
    assert found.shape == (5, 8)
    np.testing.assert_array_equal(found[0], 0)  # empty mask
    for n in range(1, 5):
        fine = [np.repeat(np.repeat(m, 32 // m.shape[1], 1), 32 // m.shape[1], 2) for m in maps]
        expected = np.concatenate([f[:, chosen[n]].mean(axis=1) for f in fine])
        np.testing.assert_allclose(found[n], expected, atol=1e-5)


@pytest.mark.parametrize("resize", ["area", "bilinear"])
def test_pools_as_the_export_wing_does(resize: str) -> None:
    torch = pytest.importorskip("torch", reason="parity wants the export extra")
    from milan_onnx.export.pooling import pool_pyramid

    rng = np.random.default_rng(3)
    maps = [
        rng.standard_normal((c, s, s)).astype(np.float32) for c, s in ((3, 112), (9, 28), (20, 7))
    ]
    chosen = masks(224)
    pyramid = [torch.from_numpy(m).expand(len(chosen), *m.shape) for m in maps]
    expected = pool_pyramid(pyramid, torch.from_numpy(chosen), resize)
    np.testing.assert_allclose(pool(maps, chosen, resize), expected.numpy(), atol=1e-5)


def test_bits_do_not_depend_on_which_masks_share_an_image() -> None:
    rng = np.random.default_rng(2)
    maps = [rng.standard_normal((40, 28, 28)).astype(np.float32)]
    many = rng.random((45, 56, 56)) < 0.2
    together = pool(maps, many, "area")
    for n in range(45):
        assert pool(maps, many[n : n + 1], "area").tobytes() == together[n : n + 1].tobytes()


def test_weights_sum_to_one() -> None:
    weights = normalise(resize_masks(masks(64), [(16, 16)], "area")[16, 16])
    np.testing.assert_allclose(weights[1:].sum(axis=1), 1, atol=1e-6)
    assert weights[0].sum() == 0


def test_sizes_made_from_one_another_equal_sizes_made_alone() -> None:
    sizes = [(112, 112), (56, 56), (7, 7), (14, 14), (32, 32), (5, 9)]
    together = resize_masks(masks(224), sizes, "area")
    for size in sizes:
        alone = resize_masks(masks(224), [size], "area")[size]
        assert together[size].tobytes() == alone.tobytes()
