"""The graph as an index: who makes and who reads each tensor, and what depends on the image.

Only the main graph is indexed. Names that an If, Loop or Scan body takes from outside count as
inputs of the node that holds the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import SubjectError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

# These read the shape of a tensor, never its values.
SHAPE_ONLY = ("Shape", "Size")

# A weight may reach its node through these.
WEIGHT_STEPS = (
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


@dataclass(frozen=True, eq=False)
class Graph:
    """An index over the nodes of a main graph, which must be in topological order."""

    nodes: tuple[NodeProto, ...]
    """In topological order."""

    reads: tuple[tuple[str, ...], ...]
    """For each node, the tensors it reads, those of its inner graphs included."""

    producer: Mapping[str, int]
    """Tensor name to the node that makes it."""

    readers: Mapping[str, tuple[int, ...]]
    """Tensor name to the nodes that read it, in order."""

    weights: Mapping[str, TensorProto]
    """The initializers by name."""

    outputs: frozenset[str]
    """The graph's outputs."""

    dependent: frozenset[str]
    """Tensors whose values depend on the image."""

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an inline constant (initializer or Constant node), else None."""
        return constant_of(self.weights.get(name) or self._constant_tensor(name))

    def _constant_tensor(self, name: str) -> TensorProto | None:
        index = self.producer.get(name)
        if index is None or self.nodes[index].op_type != "Constant":
            return None
        return next((a.t for a in self.nodes[index].attribute if a.name == "value"), None)

    def weight_sources(self, node: int) -> tuple[str, ...]:
        """The initializers that a node reads, directly or through casts and transposes."""
        found = (self._source(name) for name in self.reads[node] if name not in self.dependent)
        return tuple(name for name in found if name)

    def _source(self, name: str) -> str:
        while name not in self.weights:
            index = self.producer.get(name)
            if index is None or self.nodes[index].op_type not in WEIGHT_STEPS:
                return ""
            name = self.nodes[index].input[0]
        return name

    def weight_readers(self, name: str) -> tuple[int, ...]:
        """The image-dependent nodes that an initializer reaches, as in `weight_sources`."""
        found: set[int] = set()
        waiting = [name]
        while waiting:
            for index in self.readers.get(waiting.pop(), ()):
                outputs = self.nodes[index].output
                if any(output in self.dependent for output in outputs):
                    found.add(index)
                elif self.nodes[index].op_type in WEIGHT_STEPS:
                    waiting.extend(outputs)
        return tuple(sorted(found))


def index_graph(model: ModelProto, image: str) -> Graph:
    """Index the main graph. Raises SubjectError when its nodes are not in topological order."""
    nodes = tuple(model.graph.node)
    reads = tuple(tuple(names_read(node)) for node in nodes)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    readers: dict[str, list[int]] = {}
    dependent = {image}
    for index, node in enumerate(nodes):
        for name in reads[index]:
            readers.setdefault(name, []).append(index)
            if producer.get(name, -1) >= index:
                raise SubjectError(
                    f"the node {node.name or node.op_type} reads {name} before it is made",
                    hint="the nodes of an ONNX graph must be in topological order",
                )
        if node.op_type not in SHAPE_ONLY and not dependent.isdisjoint(reads[index]):
            dependent.update(name for name in node.output if name)
    return Graph(
        nodes=nodes,
        reads=reads,
        producer=producer,
        readers={name: tuple(indices) for name, indices in readers.items()},
        weights={tensor.name: tensor for tensor in model.graph.initializer},
        outputs=frozenset(output.name for output in model.graph.output),
        dependent=frozenset(dependent),
    )


def constant_of(tensor: TensorProto | None) -> NDArray[Any] | None:
    """The values of a tensor that is held inline, else None."""
    from onnx import numpy_helper

    if tensor is None or tensor.data_location == tensor.EXTERNAL:
        return None
    return np.asarray(numpy_helper.to_array(tensor))


def upstream(graph: Graph, targets: Iterable[str]) -> list[int]:
    """The nodes that the target tensors need, in topological order."""
    needed: set[int] = set()
    waiting = list(targets)
    while waiting:
        index = graph.producer.get(waiting.pop())
        if index is not None and index not in needed:
            needed.add(index)
            waiting.extend(graph.reads[index])
    return sorted(needed)


def all_names(graph: GraphProto) -> set[str]:
    """Every tensor name in a graph and its inner graphs."""
    names = {info.name for info in (*graph.input, *graph.output)}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.input)
        names.update(node.output)
        for inner in inner_graphs(node):
            names |= all_names(inner)
    return names


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of an If, Loop or Scan node."""
    for attribute in node.attribute:
        yield from _attribute_graphs(attribute)


def _attribute_graphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def names_read(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those that its inner graphs take from outside included."""
    yield from (name for name in node.input if name)
    for body in inner_graphs(node):
        yield from _captured(body)


def _captured(body: GraphProto) -> Iterator[str]:
    """The names that a body takes from the graph around it."""
    own = {info.name for info in body.input}
    own.update(tensor.name for tensor in body.initializer)
    own.update(sparse.values.name for sparse in body.sparse_initializer)
    for node in body.node:
        yield from (name for name in names_read(node) if name not in own)
        own.update(node.output)
    yield from (info.name for info in body.output if info.name not in own)
