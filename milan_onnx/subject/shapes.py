"""Types and shapes of all tensors, found without running the model or loading its weights.

The nodes are walked one by one with ONNX's own shape inference. Shape arithmetic (Shape, Gather,
Concat, … as older exporters leave it) is evaluated on the way, which plain shape inference cannot
do. The batch is set to a large prime: a dimension that is the prime is the batch, one that is a
multiple of it has the batch merged in, and everything else has nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.subject.graph import constant_of, inner_graphs
from milan_onnx.subject.model import dims_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, TypeProto

BATCH = 10007
Dims = tuple[int | None, ...]

# Beyond this many elements a constant is a weight: its shape counts, its values do not.
SMALL = 4096

# Their outputs can be far larger than their inputs.
GROWING = ("ConstantOfShape", "Expand", "Pad", "Resize", "Tile", "Upsample")

# What ONNX Runtime's own fused operators do to shapes, as standard operators (extra inputs drop).
LOOKALIKES = {
    "BiasGelu": "Identity",
    "FastGelu": "Identity",
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "Gelu": "Identity",
    "GroupNorm": "Identity",
    "MultiHeadAttention": "Identity",
    "QuickGelu": "Identity",
    "SkipLayerNormalization": "Identity",
    "SkipSimplifiedLayerNormalization": "Identity",
}


@dataclass(frozen=True)
class TensorType:
    """Element type and dimensions of a tensor."""

    elem: int
    """ONNX element type; 0 when unknown."""

    dims: Dims | None
    """Dimensions, None each where unknown; None when even the rank is."""


@dataclass(frozen=True)
class Inference:
    """Types, and what must change for the batch of the model to be free."""

    types: Mapping[str, TensorType]
    """By tensor name."""

    reshapes: Mapping[str, tuple[int, ...]]
    """Output of a Reshape with a baked batch, to the shape that follows the batch."""

    expands: Mapping[str, tuple[str, ...]]
    """Output of a Concat, to its constant inputs that must be repeated along the batch."""


def infer(model: ModelProto, image: str, dims: Dims, *, baked: int | None = None) -> Inference:
    """The type of every tensor of the main graph, for an image input of the given dimensions.

    ``baked`` is the batch that the model was exported with, when it is fixed and ``dims`` say
    otherwise: reshapes and concatenations that hold it are then read as if they did not.
    """
    walker = _Walker(_inlined(model), baked)
    walker.start(image, dims)
    for node in walker.model.graph.node:
        walker.visit(node)
    types = {name: _tensor_type(proto) for name, proto in walker.types.items()}
    return Inference(types, walker.reshapes, walker.expands)


def _inlined(model: ModelProto) -> ModelProto:
    """The model with its local functions put in place, so that their insides have shapes."""
    import onnx
    from onnx import inliner

    if not model.functions:
        return model
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    try:
        return inliner.inline_local_functions(skeleton)
    except RuntimeError:
        return model


def _ranked(proto: TypeProto | None) -> bool:
    return proto is not None and proto.tensor_type.HasField("shape")


def _tensor_type(proto: TypeProto) -> TensorType:
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type, None)
    dims = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else None for dim in tensor.shape.dim
    )
    return TensorType(tensor.elem_type, dims)


class _Walker:
    """Types and small constants seen so far."""

    def __init__(self, model: ModelProto, baked: int | None) -> None:
        self.model = model
        self.baked = baked
        self.reshapes: dict[str, tuple[int, ...]] = {}
        self.expands: dict[str, tuple[str, ...]] = {}
        self.types: dict[str, TypeProto] = {}
        self.values: dict[str, NDArray[Any]] = {}
        self.opsets = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
        self.declared = {info.name: info for info in model.graph.value_info}

    def start(self, image: str, dims: Dims) -> None:
        """Take in the inputs and the weights."""
        from onnx import helper

        graph = self.model.graph
        for info in graph.input:
            self.types[info.name] = info.type
            if info.name == image:
                elem = info.type.tensor_type.elem_type
                self.types[image] = helper.make_tensor_type_proto(elem, list(dims))
        for tensor in graph.initializer:
            self._weight(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            kind = helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
            self.types[sparse.values.name] = kind

    def _weight(self, name: str, tensor: TensorProto) -> None:
        from onnx import helper

        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if np.prod(tensor.dims, dtype=np.int64) <= SMALL:
            value = constant_of(tensor)
            if value is not None:
                self.values[name] = value

    def visit(self, node: NodeProto) -> None:
        """Find the types of a node's outputs, and their values when they are small constants."""
        if node.op_type == "Constant" and self._constant(node):
            return
        if node.op_type == "Shape" and self._shape(node):
            return
        if self.baked is not None:
            self._free(node, self.baked)
        found = self._infer(node)
        missing = [n for n in node.output if n and not _ranked(found.get(n))]
        self.types.update({**found, **self._declared(missing)})
        if self._foldable(node):
            self._fold(node)

    def _constant(self, node: NodeProto) -> bool:
        for attribute in node.attribute:
            if attribute.name == "value":
                self._weight(node.output[0], attribute.t)
                return True
        return False

    def _shape(self, node: NodeProto) -> bool:
        dims = self._dims(node.input[0])
        if dims is None:
            return False
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        part = dims[bounds.get("start", 0) : bounds.get("end", len(dims))]
        self._set(node.output[0], np.array([-1 if dim is None else dim for dim in part], np.int64))
        if None in part:
            # The length is known, the values are not.
            del self.values[node.output[0]]
        return True

    def _dims(self, name: str) -> Dims | None:
        return _tensor_type(self.types[name]).dims if name in self.types else None

    def _set(self, name: str, value: NDArray[Any]) -> None:
        from onnx import helper

        elem = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.types[name] = helper.make_tensor_type_proto(elem, list(value.shape))
        self.values[name] = value

    def _free(self, node: NodeProto, baked: int) -> None:
        """Note what a node must become for its batch to be free."""
        dims = self._dims(node.input[0]) if node.input else None
        if node.op_type == "Reshape" and dims is not None:
            target = self.values.get(node.input[1])
            literal = any(a.name == "allowzero" and a.i for a in node.attribute)
            if target is not None and not (literal and 0 in target):
                freed = freed_shape(dims, [int(value) for value in target], baked)
                if freed is not None:
                    self.reshapes[node.output[0]] = tuple(freed)
        if node.op_type == "Concat":
            self._free_concat(node, baked)

    def _free_concat(self, node: NodeProto, baked: int) -> None:
        leading = {name: (self._dims(name) or (None,))[0] for name in node.input}
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if axis != 0 and BATCH in leading.values():
            repeated = tuple(name for name, dim in leading.items() if dim == 1 == baked)
            if repeated:
                self.expands[node.output[0]] = repeated

    def _types_of(self, node: NodeProto) -> dict[str, TypeProto]:
        from onnx import TypeProto

        found = {name: self.types[name] for name in node.input if name in self.types}
        for name in self.expands.get(node.output[0], ()):
            repeated = TypeProto()
            repeated.CopyFrom(found[name])
            repeated.tensor_type.shape.dim[0].dim_value = BATCH
            found[name] = repeated
        return found

    def _values_of(self, node: NodeProto) -> dict[str, TensorProto]:
        from onnx import numpy_helper

        found = {name: self.values[name] for name in node.input if name in self.values}
        if node.output[0] in self.reshapes:
            found[node.input[1]] = np.array(self.reshapes[node.output[0]], np.int64)
        return {name: numpy_helper.from_array(value) for name, value in found.items()}

    def _infer(self, node: NodeProto) -> dict[str, TypeProto]:
        from onnx import defs, shape_inference

        node = _standard(node, freed=node.output[0] in self.reshapes)
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = defs.get_schema(node.op_type, self.opsets.get(domain or "ai.onnx", 1), domain)
            return shape_inference.infer_node_outputs(
                schema,
                node,
                self._types_of(node),
                self._values_of(node),
                opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        # Unknown operators, and nodes that contradict themselves, leave their outputs unknown.
        except Exception:
            return {}

    def _declared(self, names: Iterable[str]) -> dict[str, TypeProto]:
        """What the file itself says of tensors, with only rank and channels to be trusted."""
        from onnx import helper

        found = {}
        for name in names:
            dims = dims_of(self.declared[name]) if name in self.declared else None
            if dims is not None:
                elem = self.declared[name].type.tensor_type.elem_type
                # Its numbers hold for the batch and size it was exported at; channels are safe.
                kept = [None, *dims[1:2], *([None] * (len(dims) - 2))][: len(dims)]
                found[name] = helper.make_tensor_type_proto(elem, kept)
        return found

    def _foldable(self, node: NodeProto) -> bool:
        inputs = [name for name in node.input if name]
        if not inputs or any(name not in self.values for name in inputs):
            return False
        if next(inner_graphs(node), None) is not None or node.op_type.startswith("Random"):
            return False
        return all(self._small(name, node.op_type) for name in node.output if name)

    def _small(self, name: str, op: str) -> bool:
        dims = self._dims(name)
        if dims is None or None in dims:
            return op not in GROWING
        return product(dims) <= SMALL

    def _fold(self, node: NodeProto) -> None:
        try:
            outputs = self._evaluate(node)
        # A constant that cannot be evaluated stays unknown.
        except Exception:
            return
        for name, value in zip((name for name in node.output if name), outputs, strict=False):
            self._set(name, np.asarray(value))

    def _evaluate(self, node: NodeProto) -> list[Any]:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = list(dict.fromkeys(name for name in node.input if name))
        graph = helper.make_graph(
            [node],
            "constant",
            [helper.make_value_info(name, self.types[name]) for name in names],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        model = helper.make_model(graph, opset_imports=list(self.model.opset_import))
        feeds = {name: self.values[name] for name in names}
        return list(ReferenceEvaluator(model).run(None, feeds))


def _standard(node: NodeProto, *, freed: bool) -> NodeProto:
    """A node whose shapes behave as this one's, in the standard domain where that is possible."""
    import onnx

    if freed:
        return onnx.helper.make_node(node.op_type, node.input, node.output)
    twin = LOOKALIKES.get(node.op_type) if node.domain == "com.microsoft" else None
    if twin is None:
        return node
    result = onnx.NodeProto()
    result.CopyFrom(node)
    result.op_type, result.domain = twin, ""
    if twin == "Identity":
        del result.attribute[:], result.input[1:], result.output[1:]
    else:
        kept = [a for a in node.attribute if "activation" not in a.name]
        del result.attribute[:], result.input[3:]
        result.attribute.extend(kept)
    return result


def freed_shape(dims: Dims, target: list[int], baked: int) -> list[int] | None:
    """The target of a Reshape with its baked batch made free, or None to leave it as it is.

    ``dims`` are the input's, with the batch as a multiple of BATCH. The usual case is a leading
    batch that stays leading. For a batch of one, the place may also be told from the elements
    that come before it, as in the head splitting of attention, (T,N,C) to (T,N*heads,C/heads).
    """
    if not target:
        return None
    if dims[0] == BATCH and target[0] == baked:
        return [0, *target[1:]]
    place = next((axis for axis, dim in enumerate(dims) if dim and dim % BATCH == 0), None)
    if baked != 1 or place is None or None in dims or min(target) < 1:
        return None
    before = product(dims[:place])
    axis = _batch_axis(target, before, before * ((dims[place] or 0) // BATCH))
    return None if axis is None else [*target[:axis], -1, *target[axis + 1 :]]


def _batch_axis(target: list[int], before: int, within: int) -> int | None:
    """Which entry of a target takes the batch: a one, else the head or tail of a group."""
    products = [product(target[:axis]) for axis in range(len(target) + 1)]
    ones = [axis for axis, size in enumerate(target) if size == 1]
    for axis in ones:
        if products[axis] in (before, within):
            return axis
    heads = [axis for axis in range(len(target) - 1) if products[axis] == before]
    tails = [axis for axis in range(len(target)) if products[axis + 1] == before]
    found = heads or tails
    return found[-1] if found else None


def product(dims: Iterable[int | None]) -> int:
    """The number of elements, where all dimensions are known."""
    result = 1
    for dim in dims:
        result *= dim or 0
    return result
