"""Masked average pooling of the encoder's maps (MILAN appendix; the backbone never sees the mask).

The feature of an exemplar at a level is the average of the level's map under the exemplar's mask,
the mask being resized to the map first. For one image and many masks it is a matrix product.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import MilanError
from milan_onnx.geometry import interpolate
from milan_onnx.runtime.device import Device
from milan_onnx.runtime.session import Session

Floats = NDArray[np.float32]
MaskResize = Literal["area", "bilinear"]
Size = tuple[int, int]

# A single row would take another kernel, with other last bits.
ROWS = 16


def pool(maps: Sequence[Floats], masks: NDArray[np.bool_], resize: MaskResize) -> Floats:
    """Features of one image's exemplars.

    ``maps``: one (C, h, w) a level; ``masks``: bool (n, S, S). Returns float32 (n, sum of C).
    A mask that is empty at a level gives zeros there.
    """
    sizes = [(level.shape[1], level.shape[2]) for level in maps]
    weights = {size: normalise(w) for size, w in resize_masks(masks, sizes, resize).items()}
    parts = [
        _product(weights[size], level.reshape(level.shape[0], -1))
        for size, level in zip(sizes, maps, strict=True)
    ]
    return np.concatenate(parts, axis=1)


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
            rows = resize_matrix(masks.shape[1], size[0])
            columns = resize_matrix(masks.shape[2], size[1])
            weights[size] = np.asarray(rows @ masks.astype(np.float64) @ columns.T, np.float32)
    return weights


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


def _product(weights: Floats, values: Floats) -> Floats:
    """weights (n, P) times values (C, P) transposed: (n, C)."""
    padded = np.zeros((-(-len(weights) // ROWS) * ROWS, weights.shape[1]), np.float32)
    padded[: len(weights)] = weights
    product: Floats = _matmul().run({"a": padded, "b": values})[0]
    return product[: len(weights)]


@functools.cache
def _matmul() -> Session:
    """A matrix product whose rows do not depend on one another.

    NumPy's BLAS gives other last bits by the number of rows and threads; ONNX Runtime's kernels
    on one thread do not (benchmarks/determinism.py).
    """
    from onnx import TensorProto, helper

    shapes = {"a": ["n", "p"], "b": ["c", "p"], "c": ["n", "c"]}
    info = {
        n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()
    }
    node = helper.make_node("Gemm", ["a", "b"], ["c"], transB=1)
    graph = helper.make_graph([node], "product", [info["a"], info["b"]], [info["c"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Session(
        bytes(model.SerializeToString()), Device("cpu"), what="pooling", error=MilanError
    )
