"""Masked pooling against PyTorch's own resize and a plain average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.bundle import GEOMETRY, GRID, PARTS, Part
from milan_onnx.describing.encoding import _at_most
from milan_onnx.runtime.pooling import ImageMaps, normalise, resize_masks
from milan_onnx.runtime.region_shape import geometry, inside, ring


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
    found = ImageMaps(maps, "area").pool(chosen)
    assert found.shape == (5, 8)
    np.testing.assert_array_equal(found[0], 0)  # empty mask
    for n in range(1, 5):
        fine = [np.repeat(np.repeat(m, 32 // m.shape[1], 1), 32 // m.shape[1], 2) for m in maps]
        expected = np.concatenate([f[:, chosen[n]].mean(axis=1) for f in fine])
        np.testing.assert_allclose(found[n], expected, atol=1e-5)


@pytest.mark.parametrize("resize", ["area", "bilinear"])
def test_mean_is_the_average_under_the_mask_as_torch_resizes_it(resize: str) -> None:
    torch = pytest.importorskip("torch", reason="parity wants torch")
    rng = np.random.default_rng(3)
    maps = [
        rng.standard_normal((c, s, s)).astype(np.float32) for c, s in ((3, 112), (9, 28), (20, 7))
    ]
    chosen = masks(224)
    expected = []
    for level in maps:
        how = {"mode": "area"} if resize == "area" else {"mode": "bilinear", "align_corners": False}
        x = torch.from_numpy(chosen).double()[:, None]
        weights = torch.nn.functional.interpolate(x, level.shape[1:], **how)[:, 0].numpy()
        total = np.einsum("nhw,chw->nc", weights, level)
        expected.append(total / np.maximum(weights.sum(axis=(1, 2)), 1e-9)[:, None])
    found = ImageMaps(maps, resize).pool(chosen)
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-5)


def test_bits_do_not_depend_on_which_masks_share_an_image() -> None:
    rng = np.random.default_rng(2)
    maps = [rng.standard_normal((40, 28, 28)).astype(np.float32)]
    many = rng.random((45, 56, 56)) < 0.2
    together = ImageMaps(maps, "area").pool(many)
    for n in range(45):
        assert (
            ImageMaps(maps, "area").pool(many[n : n + 1]).tobytes() == together[n : n + 1].tobytes()
        )


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


LEVELS = ((3, 112), (5, 56), (4, 14), (6, 7), (2, 20))
"""Channels and sides: one finer than the grid, one that does not fit it."""


def pyramid(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((c, s, s)).astype(np.float32) + 1 for c, s in LEVELS]


@st.composite
def cell_masks(draw: st.DrawFn) -> np.ndarray:
    """Masks bool (n, 56, 56) of blobs, points, lines, all and nothing."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kinds = draw(st.lists(st.sampled_from("blob point line all none".split()), min_size=1))
    found = np.zeros((len(kinds), GRID, GRID), bool)
    for mask, kind in zip(found, kinds, strict=True):
        y, x = rng.integers(0, GRID, 2)
        if kind == "blob":
            mask[...] = np.kron(rng.random((7, 7)) < 0.4, np.ones((8, 8))) > 0
        elif kind in ("point", "line"):
            mask[y, x : x + (1 if kind == "point" else 30)] = True
        else:
            mask[...] = kind == "all"
    return found


def weighted(level: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of a level under shares (56, 56), pixel by pixel."""
    x = level.astype(np.float64)
    if len(x[0]) > GRID:
        x = x.reshape(len(x), GRID, 2, GRID, 2).mean(axis=(2, 4))
    side = len(x[0])
    edges = np.arange(side + 1) * GRID / side
    cover = np.array(
        [
            [max(0.0, min(edges[i + 1], j + 1) - max(edges[i], j)) for j in range(GRID)]
            for i in range(side)
        ]
    )
    w = cover @ cells @ cover.T
    if not w.sum():
        return np.zeros(len(x)), np.zeros(len(x))
    w /= w.sum()
    mean = (x * w).sum(axis=(1, 2))
    return mean, np.sqrt((((x - mean[:, None, None]) ** 2) * w).sum(axis=(1, 2)))


def by_part(features: np.ndarray, parts: tuple[Part, ...]) -> dict[str, np.ndarray]:
    lengths = [len(GEOMETRY) if p == "geometry" else sum(c for c, _ in LEVELS) for p in parts]
    return dict(zip(parts, np.split(features, np.cumsum(lengths)[:-1], axis=1), strict=True))


@pytest.mark.parametrize("resize", ["area", "bilinear"])
@given(cells=cell_masks(), side=st.sampled_from([56, 112, 224]), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_every_part_is_what_a_plain_implementation_finds(
    resize: str, cells: np.ndarray, side: int, seed: int
) -> None:
    maps = pyramid(seed)
    fine = cells.repeat(side // GRID, axis=1).repeat(side // GRID, axis=2)
    found = by_part(ImageMaps(maps, resize, PARTS).pool(fine), PARTS)
    assert tuple(found) == PARTS
    assert found["mean"].tobytes() == ImageMaps(maps, resize).pool(fine).tobytes()
    shares = cells.astype(np.float32)
    rings = ring(inside(shares))
    for row, mask in enumerate(cells):
        under = [weighted(level, mask) for level in maps]
        around = [weighted(level, rings[row])[0] for level in maps]
        expected = {
            "spread": np.concatenate([spread for _, spread in under]),
            "ring": np.concatenate(around),
            "frame": np.concatenate([level.mean(axis=(1, 2)) for level in maps]),
        }
        for part, values in expected.items():
            # The difference of two means of squares keeps half of their digits.
            near = 5e-3 if part == "spread" else 1e-5
            np.testing.assert_allclose(found[part][row], values, atol=near)
    expected_numbers = geometry(shares, inside(shares))
    assert found["geometry"].tobytes() == expected_numbers.tobytes()
    assert all(np.isfinite(values).all() for values in found.values())


@given(cells=cell_masks(), seed=st.integers(0, 9))
@settings(max_examples=10)
def test_new_parts_do_not_depend_on_the_resolution_of_the_mask(
    cells: np.ndarray, seed: int
) -> None:
    """As `describe` pools: maps are averaged to the masks' side first."""
    parts: tuple[Part, ...] = ("spread", "ring", "frame", "geometry")
    found = set()
    for side in (56, 112, 224):
        maps = [_at_most(level[None], side)[0] for level in pyramid(seed)]
        fine = cells.repeat(side // GRID, axis=1).repeat(side // GRID, axis=2)
        found.add(ImageMaps(maps, "area", parts).pool(fine).tobytes())
        everything = by_part(ImageMaps(maps, "area", PARTS).pool(fine), PARTS)
        found.add(np.concatenate([everything[part] for part in parts], axis=1).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("side", [32, 56, 224])
def test_bits_of_all_parts_do_not_depend_on_which_masks_share_an_image(side: int) -> None:
    rng = np.random.default_rng(7)
    many = rng.random((45, side, side)) < rng.random((45, 1, 1))
    maps = ImageMaps(pyramid(3), "area", PARTS)
    together = maps.pool(many)
    for n in range(45):
        assert maps.pool(many[n : n + 1]).tobytes() == together[n : n + 1].tobytes()
    for n in range(0, 45, 7):
        assert maps.pool(many[n : n + 7]).tobytes() == together[n : n + 7].tobytes()


def test_parts_come_in_the_order_that_is_asked() -> None:
    parts: tuple[Part, ...] = ("geometry", "frame", "mean")
    maps, chosen = pyramid(1), masks(224)
    found = by_part(ImageMaps(maps, "area", parts).pool(chosen), parts)
    usual = by_part(ImageMaps(maps, "area", PARTS).pool(chosen), PARTS)
    for part in parts:
        np.testing.assert_array_equal(found[part], usual[part])


def test_an_empty_mask_has_zeros_but_for_the_frame() -> None:
    found = by_part(ImageMaps(pyramid(1), "area", PARTS).pool(masks(224)), PARTS)
    assert [part for part, values in found.items() if values[0].any()] == ["frame"]
