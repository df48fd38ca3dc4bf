"""Features of regions from the encoder's maps (MILAN appendix; the backbone never sees the mask).

The paper's feature of an exemplar at a level is the average of the level's map under the exemplar's
mask, the mask being resized to the map first. For one image and many masks it is a matrix product,
and so is all else that a bundle may name but the mask's own geometry (`milan_onnx.bundle`).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_onnx.bundle import GRID, Part
from milan_onnx.errors import MilanError
from milan_onnx.geometry import interpolate
from milan_onnx.runtime.device import Device
from milan_onnx.runtime.region_shape import geometry, inside, ring
from milan_onnx.runtime.session import Session

Floats = NDArray[np.float32]
MaskResize = Literal["area", "bilinear"]
Size = tuple[int, int]

CELLS: Size = (GRID, GRID)
# A single row would take another kernel, with other last bits.
ROWS = 16


@dataclass(frozen=True)
class Rows:
    """Rows of weights for one size of level, padded: what is multiplied with each such level."""

    padded: Floats
    """Weights (R, h*w), zeros after the last row."""

    places: Mapping[str, slice]
    """Which rows are which: ``mean``, ``under`` (the mask on the grid), ``ring``, ``frame``."""

    @staticmethod
    def of(parts: Mapping[str, Floats]) -> Rows:
        """Some weights (n, h*w), one after the other."""
        count, size = sum(map(len, parts.values())), next(iter(parts.values())).shape[1]
        padded = np.zeros((-(-count // ROWS) * ROWS, size), np.float32)
        places, begin = {}, 0
        for name, weights in parts.items():
            places[name] = slice(begin, begin + len(weights))
            padded[places[name]] = weights
            begin += len(weights)
        return Rows(padded, places)

    def split(self, product: Floats) -> dict[str, Floats]:
        """The product (R, C) of these rows, by their names."""
        return {name: product[place] for name, place in self.places.items()}


class Product(NamedTuple):
    """Rows of weights times a level."""

    rows: Rows | None
    """The weights; None: nothing is asked."""

    level: Floats
    """The level (C, h, w)."""

    squared: bool = False
    """Whether its squares are meant."""


class ImageMaps:
    """The feature maps of one image, to be pooled under masks."""

    def __init__(
        self, levels: Sequence[Floats], resize: MaskResize, parts: Sequence[Part] = ("mean",)
    ) -> None:
        """``levels``: one (C, h, w) each; ``resize`` and ``parts``: `milan_onnx.bundle`."""
        self._levels, self._resize, self._parts = levels, resize, frozenset(parts)
        self._order = tuple(parts)

    def pool(self, masks: NDArray[np.bool_]) -> Floats:
        """Features float32 (n, F) of exemplars with masks bool (n, S, S), part by part.

        A mask that is empty at a level gives zeros there.
        """
        found: dict[str, list[Floats]] = defaultdict(list)
        shares, cells = self._on_grid(masks)
        weights, under = self._weights(masks, shares, cells)
        for level in self._products(weights, under):
            for part, values in level.items():
                # The frame has one row for all.
                found[part].append(np.broadcast_to(values, (len(masks), values.shape[1])))
        if "geometry" in self._parts:
            found["geometry"] = [geometry(shares, cells)]
        return np.concatenate([value for part in self._order for value in found[part]], axis=1)

    @cached_property
    def _coarse(self) -> list[Floats]:
        """The levels, no finer than the grid; the same objects where they are not."""
        needed = self._parts & {"spread", "ring", "frame"}
        return [on_grid(level) for level in self._levels] if needed else list(self._levels)

    def _on_grid(self, masks: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        """Shares and inside (n, 56, 56), where any part is made of them."""
        if not self._parts & {"spread", "ring", "geometry"}:
            return np.empty(0, np.float32), np.empty(0, np.bool_)
        shares = resize_masks(masks, [CELLS], "area")[CELLS]
        return shares, inside(shares)

    def _weights(
        self, masks: NDArray[np.bool_], shares: Floats, cells: NDArray[np.bool_]
    ) -> tuple[dict[Size, Rows], dict[Size, Rows]]:
        """What each size of level is multiplied with, and the squares of each."""
        rows: dict[Size, dict[str, Floats]] = defaultdict(dict)
        sizes = sorted(set(map(_size, self._coarse)))
        mean: dict[Size, Floats] = {}
        if "mean" in self._parts:
            mean = _normalised(resize_masks(masks, list(map(_size, self._levels)), self._resize))
        if "ring" in self._parts:
            for size, weights in _normalised(resize_masks(ring(cells), sizes, "area")).items():
                rows[size]["ring"] = weights
        if "frame" in self._parts:
            for size in sizes:
                cover = size[0] * size[1]
                rows[size]["frame"] = np.full((1, cover), 1 / cover, np.float32)
        under = self._under(shares, sizes, mean, masks.shape[1]) if "spread" in self._parts else {}
        for size, weights in mean.items():
            rows[size]["mean"] = weights
        for size, weights in under.items():
            if weights is not mean.get(size):
                rows[size]["under"] = weights
        return (
            {size: Rows.of(parts) for size, parts in rows.items()},
            {size: Rows.of({"under": weights}) for size, weights in under.items()},
        )

    def _under(
        self, shares: Floats, sizes: Sequence[Size], mean: Mapping[Size, Floats], side: int
    ) -> dict[Size, Floats]:
        """Weights of the masks on the grid; those of ``mean`` where they are the same."""
        # Where masks have whole cells, a level covers as much of them as of the grid.
        whole = self._resize == "area" and side % GRID == 0
        same = {size: mean[size] for size in sizes if size in mean and _divides(size, CELLS)}
        same = same if whole else {}
        return same | _normalised(resize_shares(shares, [s for s in sizes if s not in same]))

    def _products(
        self, weights: Mapping[Size, Rows], under: Mapping[Size, Rows]
    ) -> Iterator[dict[str, Floats]]:
        """The parts of each level but geometry, float32 (n, C)."""
        asked = []
        for own, coarse in zip(self._levels, self._coarse, strict=True):
            rows = None if coarse is own else weights.get(_size(coarse))  # once is enough
            asked.append(Product(weights.get(_size(own)), own))
            asked.append(Product(rows, coarse))
            asked.append(Product(under.get(_size(coarse)), coarse, squared=True))
        found = multiplied(asked)
        for first in range(0, len(found), 3):
            as_is, on_cells, squares = found[first : first + 3]
            parts = on_cells | as_is
            if squares:
                same = on_cells or as_is
                mean = same["under"] if "under" in same else same["mean"]
                parts["spread"] = np.sqrt(np.maximum(squares["under"] - mean * mean, 0))
            yield {part: values for part, values in parts.items() if part in self._parts}


def on_grid(level: Floats) -> Floats:
    """Maps (..., h, w), averaged to 56 rows or columns where they are a larger multiple of it."""
    down, across = (n // GRID if n > GRID and n % GRID == 0 else 1 for n in _size(level))
    return averaged(level, down, across)


def averaged(level: Floats, down: int, across: int) -> Floats:
    """Maps (..., h, w) averaged over blocks of (down, across): (..., h/down, w/across)."""
    if down == across == 1:
        return level
    parts = [level[..., y::down, x::across] for y in range(down) for x in range(across)]
    return np.asarray(sum(parts[1:], parts[0]) / np.float32(len(parts)), dtype=np.float32)


def resize_masks(
    masks: NDArray[np.bool_], sizes: Sequence[Size], resize: MaskResize
) -> dict[Size, Floats]:
    """0/1 masks (n, S, S) as float32 weights (n, h, w) of each size (h, w)."""
    weights: dict[Size, Floats] = {}
    counts: NDArray[np.integer[Any]] = masks.view(np.uint8)
    for size in sorted(set(sizes), reverse=True):
        if resize == "area" and _divides(size, masks.shape[1:]):
            # Counts of covered pixels, each size from the one before it: exact, and 30 times
            # less work than from the full mask.
            source = counts if _divides(size, counts.shape[1:]) else masks.view(np.uint8)
            counts = _block_sums(source, size)
            area = (masks.shape[1] // size[0]) * (masks.shape[2] // size[1])
            weights[size] = (counts / np.float32(area)).astype(np.float32)
        elif resize == "bilinear" and _halves(size, masks.shape[1:]):
            weights[size] = _middles(masks.view(np.uint8), size)
        elif resize == "bilinear":
            # Two of the mask's pixels along each axis, without antialias: the paper's code.
            high = interpolate(masks.astype(np.float32), size[0], 1)
            weights[size] = interpolate(high, size[1], 2)
        else:
            weights[size] = _by_matrices(masks, size)
    return weights


def resize_shares(shares: Floats, sizes: Sequence[Size]) -> dict[Size, Floats]:
    """Shares of the grid's cells (n, 56, 56) as float32 weights (n, h, w), by area."""
    return {
        size: averaged(shares, GRID // size[0], GRID // size[1])
        if _divides(size, CELLS)
        else _by_matrices(shares, size)
        for size in sizes
    }


def _by_matrices(values: NDArray[Any], size: Size) -> Floats:
    """Values (n, H, W) averaged over the part of each that a cell of (h, w) covers."""
    rows = resize_matrix(values.shape[1], size[0])
    columns = resize_matrix(values.shape[2], size[1])
    return np.asarray(rows @ values.astype(np.float64) @ columns.T, np.float32)


def _halves(size: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether each target pixel's centre lies halfway between two of the source's."""
    return _divides(size, whole) and not any((w // s) % 2 for s, w in zip(size, whole, strict=True))


def _middles(masks: NDArray[np.uint8], size: Size) -> Floats:
    """Bilinear where `_halves`: the mean of the four pixels around each centre, exact."""
    down, across = masks.shape[1] // size[0], masks.shape[2] // size[1]
    rows = masks[:, down // 2 - 1 :: down] + masks[:, down // 2 :: down]
    four = rows[:, :, across // 2 - 1 :: across] + rows[:, :, across // 2 :: across]
    return four * np.float32(0.25)


def normalise(weights: Floats) -> Floats:
    """Weights (n, h, w) that sum to one each, as rows (n, h*w); all zeros stay zeros."""
    flat = weights.reshape(len(weights), -1)
    total = flat.sum(axis=1, keepdims=True)
    shares = np.zeros_like(flat)
    np.divide(flat, total, out=shares, where=total > 0)
    return shares


def _normalised(weights: Mapping[Size, Floats]) -> dict[Size, Floats]:
    return {size: normalise(found) for size, found in weights.items()}


def _size(level: Floats) -> Size:
    return level.shape[-2], level.shape[-1]


@functools.cache
def resize_matrix(source: int, target: int) -> NDArray[np.float64]:
    """The linear map (target, source) that averages the covered source pixels along one axis."""
    matrix = np.zeros((target, source))
    scale = source / target
    for row in range(target):
        edges = np.clip([row * scale, (row + 1) * scale], 0, source)
        pixels = np.arange(source)
        overlap = np.minimum(pixels + 1, edges[1]) - np.maximum(pixels, edges[0])
        matrix[row] = np.maximum(overlap, 0) / scale
    return matrix


def _divides(size: Sequence[int], whole: Sequence[int]) -> bool:
    return whole[0] % size[0] == 0 and whole[1] % size[1] == 0


def _block_sums(counts: NDArray[np.integer[Any]], size: Size) -> NDArray[np.integer[Any]]:
    """Sums over blocks: (n, H, W) to (n, h, w), where h divides H and w divides W."""
    down, across = counts.shape[1] // size[0], counts.shape[2] // size[1]
    total = np.zeros((len(counts), *size), np.uint16)
    for row in range(down):
        for column in range(across):
            total += counts[:, row::down, column::across]
    return total


def multiplied(asked: Sequence[Product]) -> list[dict[str, Floats]]:
    """Of each product its rows (n, C) by their names; nothing where it has no rows."""
    inputs: dict[str, Floats] = {}
    todo = [(rows, x, squared) for rows, x, squared in asked if rows is not None]
    for number, (rows, level, _) in enumerate(todo):
        inputs[f"a{number}"] = rows.padded
        inputs[f"b{number}"] = level.reshape(level.shape[0], -1)
    made = iter(_products(tuple(squared for *_, squared in todo)).run(inputs) if todo else ())
    return [{} if rows is None else rows.split(next(made)) for rows, *_ in asked]


@functools.cache
def _products(squared: tuple[bool, ...]) -> Session:
    """Matrix products whose rows do not depend on one another, with a matrix or its squares.

    NumPy's BLAS gives other last bits by the number of rows and threads; ONNX Runtime's kernels
    on one thread do not (benchmarks/determinism.py).
    """
    from onnx import TensorProto, helper

    def tensor(name: str, rows: str, columns: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, columns])

    numbers = range(len(squared))
    inputs = [tensor(f"a{i}", f"n{i}", f"p{i}") for i in numbers]
    inputs += [tensor(f"b{i}", f"c{i}", f"p{i}") for i in numbers]
    outputs = [tensor(f"y{i}", f"n{i}", f"c{i}") for i in numbers]
    nodes = []
    for i, square in enumerate(squared):
        if square:
            nodes.append(helper.make_node("Mul", [f"b{i}", f"b{i}"], [f"s{i}"]))
        nodes.append(
            helper.make_node("Gemm", [f"a{i}", f"{'s' if square else 'b'}{i}"], [f"y{i}"], transB=1)
        )
    graph = helper.make_graph(nodes, "products", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Session(
        bytes(model.SerializeToString()), Device("cpu"), what="pooling", error=MilanError
    )
