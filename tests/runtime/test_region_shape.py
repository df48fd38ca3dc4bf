"""Inside, ring and geometry of regions against a plain implementation, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.bundle import GEOMETRY, GRID
from milan_onnx.runtime.region_shape import geometry, inside, ring

Cell = tuple[int, int]
RANGE = range(GRID)


@st.composite
def regions(draw: st.DrawFn) -> np.ndarray:
    """Shares (56, 56) of a region: a few boxes, whole or covered in part, with holes."""
    shares = np.zeros((GRID, GRID), np.float32)
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(0, GRID - 1)), draw(st.integers(0, GRID - 1))
        high, wide = draw(st.integers(1, GRID)), draw(st.integers(1, GRID))
        shares[top : top + high, left : left + wide] = draw(st.sampled_from([0, 1, 2, 8, 15, 16]))
    shares[draw(st.integers(0, GRID - 1)), draw(st.integers(0, GRID - 1))] = 3
    return shares / np.float32(16)


def plain_inside(shares: np.ndarray) -> set[Cell]:
    cells = {(y, x) for y in RANGE for x in RANGE if shares[y, x] >= 0.5}
    return cells or {(y, x) for y in RANGE for x in RANGE if shares[y, x] > 0}


def plain_ring(cells: set[Cell]) -> set[Cell]:
    whole = {(y, x) for y in RANGE for x in RANGE}
    near = {
        (y + dy, x + dx) for y, x in cells for dy in range(-5, 6) for dx in range(-5, 6)
    } & whole
    return whole if cells == whole else near - cells


def groups(cells: set[Cell], steps: list[Cell]) -> int:
    """How many connected pieces there are."""
    left, count = set(cells), 0
    while left:
        todo, count = [left.pop()], count + 1
        while todo:
            y, x = todo.pop()
            for dy, dx in steps:
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    todo.append((y + dy, x + dx))
    return count


def pieces_minus_holes(cells: set[Cell]) -> int:
    four = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    eight = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    around = {(y, x) for y in range(-1, GRID + 1) for x in range(-1, GRID + 1)} - cells
    return groups(cells, eight) - (groups(around, four) - 1)


def differing(cells: set[Cell], dy: int, dx: int) -> float:
    pairs = [
        ((y, x) in cells) != ((y + dy, x + dx) in cells)
        for y in RANGE
        for x in RANGE
        if y + dy in RANGE and x + dx in RANGE
    ]
    return sum(pairs) / len(pairs)


def plain_geometry(shares: np.ndarray) -> dict[str, float]:
    cells, w = plain_inside(shares), shares.astype(np.float64)
    centres = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(centres, centres)
    area, weights = w.mean(), w / w.sum()
    cx, cy = (weights * x).sum(), (weights * y).sum()
    dx, dy = x - cx, y - cy
    a, b, c = (weights * dx * dx).sum(), (weights * dy * dy).sum(), (weights * dx * dy).sum()
    small, large = np.linalg.eigvalsh(np.array([[a, c], [c, b]])).clip(0)
    h, v = differing(cells, 0, 1), differing(cells, 1, 0)
    d, g = differing(cells, 1, 1), differing(cells, 1, -1)
    euler = pieces_minus_holes(cells)
    box = len({y for y, _ in cells}) * len({x for _, x in cells})
    whole = max(a + b, 1e-6)
    return {
        "log_area": math.log(max(area, 1e-4)),
        "sqrt_area": math.sqrt(area),
        "centre_x": cx,
        "centre_y": cy,
        "spread_x": math.sqrt(a),
        "spread_y": math.sqrt(b),
        "eccentricity": (large - small) / whole,
        "cos_2": (a - b) / whole,
        "sin_2": 2 * c / whole,
        "outline": math.log(1e-3 + (h + v) / (len(cells) / GRID**2)),
        "upright": (h - v) / (h + v + 1e-6),
        "diagonal": (d - g) / (d + g + 1e-6),
        "top": w[:3].mean(),
        "bottom": w[-3:].mean(),
        "left": w[:, :3].mean(),
        "right": w[:, -3:].mean(),
        "top_left": w[:7, :7].mean(),
        "top_right": w[:7, -7:].mean(),
        "bottom_left": w[-7:, :7].mean(),
        "bottom_right": w[-7:, -7:].mean(),
        "pieces": math.copysign(math.log1p(abs(euler)), euler),
        "filled": len(cells) / box,
        "off_centre": abs(cx - 0.5) + abs(cy - 0.5),
        "long_axis": math.sqrt(large),
        "short_axis": math.sqrt(small),
    }


def as_set(cells: np.ndarray) -> set[Cell]:
    return set(zip(*map(np.ndarray.tolist, np.nonzero(cells)), strict=True))


@given(shares=regions())
@settings(max_examples=25)
def test_all_is_what_a_plain_implementation_finds(shares: np.ndarray) -> None:
    cells = inside(shares[None])
    assert as_set(cells[0]) == plain_inside(shares)
    assert as_set(ring(cells)[0]) == plain_ring(plain_inside(shares))
    found = geometry(shares[None], cells)[0]
    expected = plain_geometry(shares)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert tuple(expected) == GEOMETRY
    for name, number in zip(GEOMETRY, found.tolist(), strict=True):
        # A square root makes much of what rounding leaves of nothing.
        assert number == pytest.approx(expected[name], abs=1e-6, rel=1e-5), name


@given(many=st.lists(regions(), min_size=2, max_size=5), times=st.integers(1, 9))
@settings(max_examples=15)
def test_company_changes_no_bit(many: list[np.ndarray], times: int) -> None:
    shares = np.stack(many * times)
    cells = inside(shares)
    rings, numbers = ring(cells), geometry(shares, cells)
    for place in {0, len(shares) // 2, len(shares) - 1}:
        alone = shares[place : place + 1]
        assert inside(alone).tobytes() == cells[place].tobytes()
        assert ring(inside(alone)).tobytes() == rings[place].tobytes()
        assert geometry(alone, inside(alone)).tobytes() == numbers[place].tobytes()


def test_a_thin_region_does_not_vanish() -> None:
    shares = np.zeros((2, GRID, GRID), np.float32)
    shares[0, 20] = 0.25  # a line, a quarter of a cell wide
    shares[1, 20] = 0.25
    shares[1, 40, 3] = 0.5
    cells = inside(shares)
    assert cells[0, 20].all()
    assert cells.sum(axis=(1, 2)).tolist() == [GRID, 1]


def test_a_full_frame_and_an_empty_one() -> None:
    shares = np.stack([np.ones((GRID, GRID), np.float32), np.zeros((GRID, GRID), np.float32)])
    cells = inside(shares)
    assert ring(cells).sum(axis=(1, 2)).tolist() == [GRID * GRID, 0]
    full, empty = geometry(shares, cells)
    assert dict(zip(GEOMETRY, full.tolist(), strict=True))["filled"] == 1
    assert np.isfinite(full).all()
    assert not empty.any()
    assert geometry(shares[:0], cells[:0]).shape == (0, len(GEOMETRY))


def directions() -> Iterator[tuple[str, np.ndarray]]:
    line = np.zeros((GRID, GRID), np.float32)
    line[28] = 1
    yield "cos_2", line
    yield "cos_2", line.T
    yield "sin_2", np.eye(GRID, dtype=np.float32)
    yield "sin_2", np.eye(GRID, dtype=np.float32)[::-1]


def test_orientation_has_a_sign() -> None:
    found = [
        geometry(s[None], inside(s[None]))[0, GEOMETRY.index(name)] for name, s in directions()
    ]
    np.testing.assert_allclose(found, [1, -1, 1, -1], atol=1e-3)


def test_pieces_minus_holes() -> None:
    shares = np.zeros((1, GRID, GRID), np.float32)
    shares[0, 5:15, 5:15] = shares[0, 20:22, 20:22] = 1
    place = GEOMETRY.index("pieces")
    assert geometry(shares, inside(shares))[0, place] == pytest.approx(math.log1p(2))
    shares[0, 7, 7] = shares[0, 7, 10] = shares[0, 10, 7] = 0
    assert geometry(shares, inside(shares))[0, place] == pytest.approx(-math.log1p(1))
