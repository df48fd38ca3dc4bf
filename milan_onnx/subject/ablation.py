"""Graph surgery that ablates units: sets them to zero, or to another value, in every image.

An ablated layer gets one node behind it, ``Where(kept, layer, value)``, that takes over its name:
whatever reads the layer, the graph's outputs and inner graphs included, reads the ablated one,
and no weight changes. It is what a PyTorch forward hook does that sets ``output[:, units]``, exact
for infinities too (a product with zero is not), and taking it out again gives back the model.

`ablated` writes that into a copy of a model for good. `split` cuts a model in two for experiments:
a prefix from frames to what the earliest ablated layers give, run once, and a suffix that takes the
units to ablate as inputs and is run as often as there are questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milan_onnx.errors import LayerUnsuitable, SubjectError, UsageError
from milan_onnx.subject.graph import Graph, all_names, upstream
from milan_onnx.subject.layers import UNIT_AXIS, Layer, analyse
from milan_onnx.subject.model import Subject
from milan_onnx.subject.preprocess import Preprocessing
from milan_onnx.subject.surgery import (
    OLDEST_IR,
    Builder,
    TruncatedModel,
    add_weights,
    copied,
    tensor_info,
    truncate,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

MARK = "_milan_ablated"
"""What the name of a node that ablates ends with."""
OLDEST_OPSET = 9
"""From here on there is Where."""


@dataclass(frozen=True)
class Ablation:
    """Units of one layer, and what they are set to."""

    layer: Layer
    """The layer."""

    units: tuple[int, ...]
    """Channels, ascending."""

    values: tuple[float, ...] | None = None
    """What each is set to; None: zero."""


@dataclass(frozen=True)
class SplitModel:
    """A model in two parts, that between them do what the whole does."""

    prefix: TruncatedModel
    """Frames to the tensors that the suffix reads, in the order of ``passed``."""

    passed: tuple[str, ...]
    """Inputs of the suffix that the prefix gives."""

    suffix: bytes
    """The rest of the model, with an input of kept units for each layer."""

    kept: tuple[str, ...]
    """Inputs of the suffix, bool (units,) each: False ablates the unit. In the layers' order."""

    units: tuple[int, ...]
    """Units of each layer."""

    output: str
    """What the suffix gives."""


def ablated(subject: Subject, ablations: Sequence[Ablation]) -> ModelProto:
    """A copy of the subject's model in which units are ablated; interface and weights are the same.

    Raises LayerUnsuitable for a unit that a layer has not, or a layer that is no layer any more.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(subject.model)
    taken = all_names(model.graph)
    for ablation in ablations:
        _ablate(subject, model.graph, ablation, taken)
    return model


def restored(model: ModelProto) -> int:
    """Take the nodes that `ablated` added out of a model; returns how many layers they were of."""
    graph = model.graph
    added = [node for node in graph.node if node.name.endswith(MARK)]
    for node in added:
        kept, raw, value = node.input
        name = node.output[0]
        graph.node.remove(node)
        for other in graph.node:
            _rename(other.output, raw, name)
        for tensor in [t for t in graph.initializer if t.name in (kept, value)]:
            graph.initializer.remove(tensor)
    return len(added)


def _ablate(subject: Subject, graph: GraphProto, ablation: Ablation, taken: set[str]) -> None:
    """Add one layer's node, right behind the node that makes the layer."""
    from onnx import helper, numpy_helper

    layer = ablation.layer
    units, elem = _facts(subject, layer)
    _check_units(ablation, units)
    place, maker = _maker(graph, layer.tensor)
    raw, kept, value = (
        _free(f"{layer.tensor}_milan_{what}", taken) for what in ("all", "kept", "value")
    )
    _rename(maker.output, layer.tensor, raw)
    chosen = list(ablation.units)
    stays, instead = np.ones(units, np.bool_), np.zeros(units)
    stays[chosen], instead[chosen] = False, ablation.values or 0.0
    shape, dtype = _shape(layer, units), helper.tensor_dtype_to_np_dtype(elem)
    graph.initializer.append(numpy_helper.from_array(stays.reshape(shape), kept))
    graph.initializer.append(numpy_helper.from_array(instead.astype(dtype).reshape(shape), value))
    name = f"{maker.name or maker.op_type}{MARK}"
    node = helper.make_node("Where", [kept, raw, value], [layer.tensor], name=name)
    # It belongs to the module that made the layer: names then find the layer as it is now.
    node.metadata_props.extend(maker.metadata_props)
    graph.node.insert(place + 1, node)


def _facts(subject: Subject, layer: Layer) -> tuple[int, int]:
    """Units of a layer, and its element type."""
    analysis = analyse(subject)
    opset = next(o.version for o in subject.model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise SubjectError(
            f"{subject.path} is of opset {opset}, in which units cannot be ablated",
            hint=f"export it with opset {OLDEST_OPSET} or later",
        )
    known = analysis.inference.types.get(layer.tensor)
    if known is None or layer.tensor not in analysis.by_tensor:
        raise LayerUnsuitable(f"{layer.tensor} is no layer of this model", hint="resolve again")
    if layer.units is None:
        raise LayerUnsuitable(
            f"the units of {layer.tensor} are known at run time only, so none can be ablated",
            hint="ablate another layer",
        )
    return layer.units, known.elem


def _check_units(ablation: Ablation, units: int) -> None:
    wrong = [unit for unit in ablation.units if not 0 <= unit < units]
    if wrong:
        raise LayerUnsuitable(
            f"{ablation.layer.tensor} has no unit {wrong[0]}", hint=f"it has 0 to {units - 1}"
        )


def _shape(layer: Layer, units: int) -> list[int]:
    """A vector over units, that broadcasts with the layer."""
    shape = [1] * len(layer.shape)
    shape[UNIT_AXIS[layer.kind]] = units
    return shape


def _maker(graph: GraphProto, tensor: str) -> tuple[int, NodeProto]:
    for index, node in enumerate(graph.node):
        if tensor in node.output:
            return index, node
    raise LayerUnsuitable(f"no node makes {tensor}", hint="resolve again")


def _rename(names: Any, old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new


def _free(wanted: str, taken: set[str]) -> str:
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


# --- in two ---------------------------------------------------------------------------------------


def split(
    subject: Subject,
    layers: Sequence[Layer],
    preprocessing: Preprocessing,
    output: str,
    *,
    batch: int | None = None,
) -> SplitModel:
    """Cut a model behind the earliest of some layers, all of whose units may then be ablated.

    ``output``: the output that the suffix gives. ``batch``: as of `milan_onnx.subject.tap`. Raises
    UsageError for an output that the layers do not reach, LayerUnsuitable for a layer whose units
    are not known, SubjectError where a tensor at the cut has no known type.
    """
    graph = analyse(subject).graph
    tensors = [layer.tensor for layer in layers]
    behind = _downstream(graph, tensors)
    if graph.producer.get(output, -1) not in behind and output not in tensors:
        raise UsageError(
            f"the output {output} does not depend on {', '.join(tensors)}",
            hint="ablate layers before it, or name another --output",
        )
    fixed = _constants(subject, graph)
    inside = [i for i in upstream(graph, [output]) if i in behind or i in fixed]
    passed = _crossing(graph, inside, output)
    suffix = _Suffix(subject, graph, layers)
    return SplitModel(
        prefix=truncate(subject, passed, preprocessing, batch=batch),
        passed=tuple(suffix.raw.get(name, name) for name in passed),
        suffix=suffix.made(inside, passed, output),
        kept=tuple(suffix.kept),
        units=tuple(_facts(subject, layer)[0] for layer in layers),
        output=output,
    )


def _downstream(graph: Graph, tensors: Iterable[str]) -> set[int]:
    """The nodes that some tensors reach, by their values or their shapes."""
    found: set[int] = set()
    waiting = list(tensors)
    while waiting:
        for index in graph.readers.get(waiting.pop(), ()):
            if index not in found:
                found.add(index)
                waiting.extend(name for name in graph.nodes[index].output if name)
    return found


def _constants(subject: Subject, graph: Graph) -> set[int]:
    """The nodes whose outputs are the same for every image, of whatever size."""
    known = {*graph.weights, *subject.fixed}
    known |= {sparse.values.name for sparse in subject.model.graph.sparse_initializer}
    found = set()
    for index, node in enumerate(graph.nodes):
        if known.issuperset(graph.reads[index]):
            found.add(index)
            known.update(node.output)
    return found


def _crossing(graph: Graph, inside: Sequence[int], output: str) -> list[str]:
    """What the suffix takes from the prefix, in the order it is made: the image counts as made."""
    made = {name for index in inside for name in graph.nodes[index].output}
    reads = {name for index in inside for name in graph.reads[index]} | {output}
    outer = {name for name in reads - made if name in graph.producer or name in graph.dependent}
    return sorted(outer, key=lambda name: (graph.producer.get(name, -1), name))


class _Suffix:
    """The second part in the making."""

    def __init__(self, subject: Subject, graph: Graph, layers: Sequence[Layer]) -> None:
        self.subject, self.graph, self.layers = subject, graph, layers
        self.builder = Builder(all_names(subject.model.graph), "ablated")
        self.kept = [self.builder.free_name(f"kept_{place}") for place in range(len(layers))]
        self.raw = {
            layer.tensor: self.builder.free_name(f"{layer.tensor}_milan_all") for layer in layers
        }

    def made(self, inside: Sequence[int], passed: Sequence[str], output: str) -> bytes:
        """The model: the nodes inside, each layer ablated where it is made or comes in."""
        import onnx

        model, source = onnx.ModelProto(), self.subject.model
        model.ir_version = max(source.ir_version, OLDEST_IR)
        model.opset_import.extend(source.opset_import)
        model.functions.extend(source.functions)
        graph = model.graph
        graph.name = "suffix"
        graph.input.extend(tensor_info(self.subject, name, self.raw.get(name)) for name in passed)
        graph.input.extend(self._kept_info())
        for place, layer in enumerate(self.layers):
            if layer.tensor in passed:
                graph.node.extend(self._ablated(place))
        for index in inside:
            graph.node.extend(self._node(index))
        graph.output.append(tensor_info(self.subject, output))
        graph.initializer.extend(self.builder.weights)
        add_weights(self.subject, graph, graph.node)
        return bytes(model.SerializeToString(deterministic=True))

    def _node(self, index: int) -> list[NodeProto]:
        node = copied(self.graph.nodes[index])
        made = [place for place, x in enumerate(self.layers) if x.tensor in node.output]
        for place in made:
            tensor = self.layers[place].tensor
            _rename(node.output, tensor, self.raw[tensor])
        return [node, *(added for place in made for added in self._ablated(place))]

    def _ablated(self, place: int) -> list[NodeProto]:
        """A layer with its ablated units at zero, under its own name."""
        from onnx import helper

        layer = self.layers[place]
        units, elem = _facts(self.subject, layer)
        zero = np.zeros((), helper.tensor_dtype_to_np_dtype(elem))
        shape = self.builder.constant(np.array(_shape(layer, units), np.int64))
        kept = self.builder.op("Reshape", self.kept[place], shape)
        raw = self.raw[layer.tensor]
        self.builder.op("Where", kept, raw, self.builder.constant(zero), output=layer.tensor)
        return self.builder.take_nodes()

    def _kept_info(self) -> list[ValueInfoProto]:
        from onnx import TensorProto, helper

        return [
            helper.make_tensor_value_info(name, TensorProto.BOOL, [_facts(self.subject, layer)[0]])
            for name, layer in zip(self.kept, self.layers, strict=True)
        ]
