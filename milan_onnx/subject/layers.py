"""The layers of a subject: every tensor whose units can be described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from milan_onnx.errors import LayerUnsuitable, UsageError
from milan_onnx.subject.graph import Graph, index_graph
from milan_onnx.subject.layouts import channel_axes
from milan_onnx.subject.model import Subject, dtype_name
from milan_onnx.subject.scopes import Scopes, read_scopes
from milan_onnx.subject.shapes import BATCH, Dims, Inference, TensorType, infer

Kind = Literal["vector", "tokens", "sequence", "channels_first", "channels_last"]

# Where each kind has its units, and its rank.
UNIT_AXIS: Mapping[Kind, int] = {
    "vector": 1,
    "tokens": 2,
    "sequence": 1,
    "channels_first": 1,
    "channels_last": 3,
}
RANK: Mapping[Kind, int] = {
    "vector": 2,
    "tokens": 3,
    "sequence": 3,
    "channels_first": 4,
    "channels_last": 4,
}

FLOATS = ("float16", "bfloat16", "float32", "float64")

ADDED = "milan/"
"""What the names of nodes that are not the model's own begin with."""

# A model that leaves height and width free is looked at in two sizes: what differs is free.
SIZES = ((224, 224), (256, 320))


@dataclass(frozen=True)
class Layer:
    """A tensor of the subject that has units."""

    index: int
    """Its place in `list_layers`, what ``@12`` counts."""

    op: str
    """The operator that makes it."""

    tensor: str
    """Its name in the graph."""

    node: str
    """The name of the node that makes it (may be empty)."""

    module: str | None
    """The path of the innermost module that made it, where the exporter left one."""

    shape: tuple[int | str | None, ...]
    """Dimensions; the batch is ``N``, what the model leaves free is None."""

    units: int | None
    """How many units it has, None when the model leaves that free."""

    kind: Kind
    """vector (N,C), tokens (N,T,C), sequence (N,C,L), channels_first or channels_last."""

    note: str = ""
    """What to know about it, such as a batch norm that it holds."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """What is worked out once about a subject."""

    graph: Graph
    """The index of the main graph."""

    scopes: Scopes
    """Module paths."""

    inference: Inference
    """Types with the batch as BATCH, and the edits that free it."""

    layers: tuple[Layer, ...]
    """All layers."""

    by_tensor: Mapping[str, Layer]
    """The same, by tensor."""

    def why_unsuitable(self, subject: Subject, tensor: str) -> str:
        """Why a tensor is no layer."""
        if tensor in self.graph.weights:
            return "it is a weight"
        if tensor == subject.input.name:
            return "it is the image itself"
        if tensor not in self.graph.dependent:
            return "it does not depend on the image"
        return _unsuitable(self.inference.types.get(tensor), subject.input.batch) or "unknown"


def list_layers(subject: Subject) -> tuple[Layer, ...]:
    """Every layer of the main graph, in topological order.

    A layer is a float tensor of rank 2, 3 or 4 that is computed from the image and has the batch
    first.
    """
    return analyse(subject).layers


def output_units(subject: Subject) -> dict[str, int]:
    """The outputs of the model that are (N, units), such as the scores of classes, in order."""
    analysis = analyse(subject)
    layers = [analysis.by_tensor.get(output.name) for output in subject.model.graph.output]
    return {x.tensor: x.units for x in layers if x and x.kind == "vector" and x.units}


@lru_cache(maxsize=2)
def analyse(subject: Subject) -> Analysis:
    """Index, shapes, modules and layers; the last two subjects are remembered."""
    graph = index_graph(subject.model, subject.input.name)
    scopes = read_scopes(graph)
    inference = infer_subject(subject)
    layers = tuple(_layers(subject, graph, scopes, inference.types))
    return Analysis(graph, scopes, inference, layers, {layer.tensor: layer for layer in layers})


def infer_subject(subject: Subject, frame: tuple[int, int] | None = None) -> Inference:
    """Types with the batch as BATCH, for a frame of (height, width) pixels or for any."""
    image = subject.input
    if frame is None and (image.height is None or image.width is None):
        first, second = (_infer_at(subject, size) for size in SIZES)
        merged = {name: _common(kind, second.types.get(name)) for name, kind in first.types.items()}
        return replace(first, types=merged)
    return _infer_at(subject, frame or (image.height or 0, image.width or 0))


def _infer_at(subject: Subject, frame: tuple[int, int]) -> Inference:
    image = subject.input
    height, width = image.height or frame[0], image.width or frame[1]
    first = (BATCH, image.channels, height, width)
    last = (BATCH, height, width, image.channels)
    dims = first if image.layout == "NCHW" else last
    return infer(subject.model, image.name, dims, baked=image.batch)


def _common(first: TensorType, second: TensorType | None) -> TensorType:
    """What two sizes have in common; where the second does not fit the model, the first counts."""
    if first.dims is None or second is None or second.dims is None:
        return first
    if len(first.dims) != len(second.dims):
        return replace(first, dims=None)
    pairs = zip(first.dims, second.dims, strict=True)
    return replace(first, dims=tuple(one if one == two else None for one, two in pairs))


def _layers(
    subject: Subject, graph: Graph, scopes: Scopes, types: Mapping[str, TensorType]
) -> list[Layer]:
    axes = channel_axes(graph, types, subject.input)
    found: list[Layer] = []
    for index, node in enumerate(graph.nodes):
        if node.name.startswith(ADDED):
            continue
        for tensor in node.output:
            kind = types.get(tensor)
            if tensor not in graph.dependent or _unsuitable(kind, subject.input.batch):
                continue
            dims = kind.dims if kind and kind.dims else ()
            layer = Layer(
                index=len(found),
                op=node.op_type,
                tensor=tensor,
                node=node.name,
                module=scopes.of_node[index],
                shape=shown(dims),
                units=None,
                kind=_kind(len(dims), axes.get(tensor)),
                note=_note(scopes, index, len(dims), axes.get(tensor)),
            )
            found.append(_with_units(layer))
    return found


def _unsuitable(kind: TensorType | None, batch: int | None) -> str:
    """Why a type has no units, or nothing."""
    if kind is None or kind.elem == 0:
        return "its type cannot be told"
    name = dtype_name(kind.elem)
    if name not in FLOATS:
        return f"it holds {name} values"
    if kind.dims is None:
        return "its rank cannot be told"
    if len(kind.dims) not in (2, 3, 4):
        return f"it is of rank {len(kind.dims)}, and layers are of rank 2, 3 or 4"
    if kind.dims[0] not in (None, BATCH, batch):
        return f"its first axis is not the batch, its shape is {_text(shown(kind.dims))}"
    return ""


def shown(dims: Dims) -> tuple[int | str | None, ...]:
    """Dimensions as a user reads them: the batch is ``N``, merged with others ``12*N``."""
    return tuple(_shown(dim) for dim in dims)


def _shown(dim: int | None) -> int | str | None:
    if dim is None or dim % BATCH or dim == 0:
        return dim
    return "N" if dim == BATCH else f"{dim // BATCH}*N"


def _text(shape: tuple[int | str | None, ...]) -> str:
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"


def _kind(rank: int, axis: int | None) -> Kind:
    if rank == 2:
        return "vector"
    if rank == 3:
        return "sequence" if axis == 1 else "tokens"
    return "channels_last" if axis == 3 else "channels_first"


def _note(scopes: Scopes, index: int, rank: int, axis: int | None) -> str:
    if index in scopes.folded:
        norm = scopes.folded[index]
        return f"holds the folded batch norm {norm}" if norm else "holds its folded batch norm"
    if rank > 2 and axis is None:
        assumed = "(N,T,C)" if rank == 3 else "(N,C,H,W)"
        return f"layout not known, taken as {assumed}"
    return ""


def _with_units(layer: Layer) -> Layer:
    units = layer.shape[UNIT_AXIS[layer.kind]]
    return replace(layer, units=units if isinstance(units, int) else None)


def with_layout(layer: Layer, kind: Kind) -> Layer:
    """The layer read in another layout, where the graph does not tell or tells wrong.

    Raises UsageError for an unknown layout, LayerUnsuitable for one of another rank.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"unknown layout {kind}", hint=f"choose {', '.join(get_args(Kind))}")
    if RANK[kind] != len(layer.shape):
        raise LayerUnsuitable(
            f"{layer.tensor} {_text(layer.shape)} cannot be read as {kind}",
            hint=f"that layout is of rank {RANK[kind]}",
        )
    note = "" if layer.note.startswith("layout not known") else layer.note
    return _with_units(replace(layer, kind=kind, note=note))
