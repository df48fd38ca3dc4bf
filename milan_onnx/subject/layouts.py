"""Which axis of a tensor holds its units, decided from what the graph does.

The rule: the channel axis is known at the image input and after an operator that fixes it
(convolution and pooling: axis 1; a product with a weight matrix and a normalisation of the last
axis: the last). From there it is carried along: a Transpose moves it, Squeeze, Unsqueeze, Gather
and reductions shift it, Reshape keeps it where the elements before it are the same in number, and
operators that keep the rank keep it. Where nothing is known, rank 4 is taken as (N,C,H,W) and
rank 3 as (N,T,C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from milan_onnx.subject.graph import Graph
from milan_onnx.subject.model import ImageInput
from milan_onnx.subject.shapes import Dims, TensorType, product

if TYPE_CHECKING:
    from onnx import NodeProto

# Axis 1 whatever came in.
CHANNELS_FIRST = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "DeformConv",
        "DepthToSpace",
        "FusedConv",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LpPool",
        "MaxPool",
        "QLinearConv",
        "SpaceToDepth",
    }
)

# The last axis whatever came in.
CHANNELS_LAST = frozenset(
    {
        "Attention",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MultiHeadAttention",
        "RMSNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)

Axis = int | None


def channel_axes(
    graph: Graph, types: Mapping[str, TensorType], image: ImageInput
) -> dict[str, int]:
    """The channel axis of every image-dependent tensor for which it is known."""
    axes = {image.name: 1 if image.layout == "NCHW" else 3}
    for node in graph.nodes:
        sources = [name for name in node.input if name in graph.dependent]
        if not sources or node.op_type in ("Shape", "Size"):
            continue
        for output in node.output:
            axis = _Step(graph, types, axes, node, output).axis()
            if axis is not None:
                axes[output] = axis
    return axes


class _Step:
    """One node and one of its outputs."""

    def __init__(
        self,
        graph: Graph,
        types: Mapping[str, TensorType],
        axes: Mapping[str, int],
        node: NodeProto,
        output: str,
    ) -> None:
        self.graph, self.types, self.axes = graph, types, axes
        self.node, self.out = node, self.dims(output)
        self.source = self._leading(node, output)
        self.input = self.dims(self.source)

    def _leading(self, node: NodeProto, output: str) -> str:
        """The input that the layout is taken from: known, and of the output's rank if any is."""
        names = [name for name in node.input if name in self.graph.dependent]
        rank = len(self.dims(output) or ())
        full = [name for name in names if len(self.dims(name) or ()) == rank]
        known = [name for name in (*full, *names) if name in self.axes]
        return str((known or full or names)[0])

    def dims(self, name: str) -> Dims | None:
        found = self.types.get(name)
        return found.dims if found else None

    def axis(self) -> Axis:
        """The channel axis of the output, or None."""
        if self.out is None:
            return None
        if self.node.op_type in CHANNELS_FIRST:
            return 1
        if self.node.op_type in CHANNELS_LAST:
            return len(self.out) - 1
        rule = RULES.get(self.node.op_type)
        known = self.axes.get(self.source)
        if rule is not None:
            return rule(self, known)
        return known if self._same_rank() else None

    def _same_rank(self) -> bool:
        return self.input is not None and self.out is not None and len(self.input) == len(self.out)

    def attribute(self, name: str, default: Any = None) -> Any:
        from onnx import helper

        for attribute in self.node.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def numbers(self, position: int, name: str) -> list[int] | None:
        """Axes given as an attribute (older opsets) or as a constant input."""
        listed = self.attribute(name)
        if listed is not None:
            return [int(value) for value in np.atleast_1d(listed)]
        if position < len(self.node.input) and self.node.input[position]:
            value = self.graph.constant(self.node.input[position])
            return None if value is None else [int(number) for number in np.atleast_1d(value)]
        return None


def _transpose(step: _Step, known: Axis) -> Axis:
    if known is None or step.out is None:
        return None
    perm = step.attribute("perm") or list(range(len(step.out)))[::-1]
    return list(perm).index(known) if known in perm else None


def _matmul(step: _Step, known: Axis) -> Axis:
    """A weight matrix makes the last axis; of two activations only tokens keep a meaning."""
    rank = len(step.out or ())
    if step.node.input[1] not in step.graph.dependent or rank == 3:
        return rank - 1
    return None


def _layer_norm(step: _Step, known: Axis) -> Axis:
    rank = len(step.out or ())
    axis = int(step.attribute("axis", -1))
    return rank - 1 if axis in (-1, rank - 1) else known


def _unsqueeze(step: _Step, known: Axis) -> Axis:
    new = step.numbers(1, "axes")
    if known is None or new is None or step.out is None:
        return None
    new = [axis % len(step.out) for axis in new]
    kept = [axis for axis in range(len(step.out)) if axis not in new]
    return kept[known]


def _dropped(gone: list[int], known: Axis, rank: int) -> Axis:
    gone = [axis % rank for axis in gone]
    if known is None or known in gone:
        return None
    return known - sum(axis < known for axis in gone)


def _squeeze(step: _Step, known: Axis) -> Axis:
    if step.input is None:
        return None
    gone = step.numbers(1, "axes")
    if gone is None:
        gone = [axis for axis, dim in enumerate(step.input) if dim == 1]
    return _dropped(gone, known, len(step.input))


def _reduce(step: _Step, known: Axis) -> Axis:
    if int(step.attribute("keepdims", 1)) or step.input is None:
        return known if step._same_rank() else None
    gone = step.numbers(1, "axes")
    return None if gone is None else _dropped(gone, known, len(step.input))


def _gather(step: _Step, known: Axis) -> Axis:
    if step._same_rank() or step.input is None or step.out is None:
        return known
    if len(step.out) != len(step.input) - 1:
        return None
    return _dropped([int(step.attribute("axis", 0))], known, len(step.input))


def _reshape(step: _Step, known: Axis) -> Axis:
    """The axis of the same size with the same number of elements before it (or behind it)."""
    if known is None or step.input is None or step.out is None:
        return None
    size = step.input[known]
    if size is None:
        return None
    before, behind = _count(step.input[1:known]), _count(step.input[known + 1 :])
    for axis in range(1, len(step.out)):
        if step.out[axis] == size and (
            (before is not None and before == _count(step.out[1:axis]))
            or (behind is not None and behind == _count(step.out[axis + 1 :]))
        ):
            return axis
    return None


def _count(dims: Dims) -> int | None:
    return None if None in dims else product(dims)


Rule = Callable[[_Step, Axis], Axis]

RULES: Mapping[str, Rule] = {
    "Gather": _gather,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    **{f"Reduce{kind}": _reduce for kind in ("Max", "Mean", "Min", "Sum", "L2", "SumSquare")},
}
