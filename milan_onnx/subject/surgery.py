"""The truncated graph: what the asked layers or tensors need, and nothing else.

The subject's nodes are taken over as they are: nothing is simplified or fused, so the values are
those of the subject. Added are the normalisation in front and, where layers are tapped, the steps
behind each that bring it to (N, C, h, w).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import LayerUnsuitable, SubjectError, UsageError
from milan_onnx.subject.graph import Graph, all_names, names_read, upstream
from milan_onnx.subject.grid import Grid, token_grid
from milan_onnx.subject.layers import UNIT_AXIS, Layer, analyse, infer_subject
from milan_onnx.subject.model import ImageInput, Subject
from milan_onnx.subject.preprocess import Preprocessing
from milan_onnx.subject.shapes import Dims, Inference

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

# Weights of red, green and blue in grey, as Pillow's mode "L" has them.
LUMA = (0.299, 0.587, 0.114)

OLDEST_IR = 4
"""From here on weights need not be listed as inputs."""


@dataclass(frozen=True)
class TapOutput:
    """An output of a tapped graph: float32 (N, C, h, w)."""

    layer: Layer
    """The layer that it holds."""

    name: str
    """The name of the output."""

    units: int | None
    """C, or None when only a run tells."""

    grid: tuple[int, int] | None
    """(h, w), or None when only a run tells."""

    notes: tuple[str, ...] = ()
    """What was done or assumed, such as prefix tokens that were dropped."""


@dataclass(frozen=True)
class TruncatedModel:
    """A truncated subject that takes frames and gives some of its tensors as they are."""

    model_bytes: bytes
    """The ONNX model, the same bytes for the same request."""

    external_folder: Path | None
    """Where its external weights are, to be told to ONNX Runtime; None when there are none."""

    input_name: str
    """The name of its input: uint8 (N, H, W, 3)."""

    frame: tuple[int, int]
    """(H, W) in pixels."""

    batch: int | None
    """The batch it takes, or None for any."""

    freed: bool
    """Whether the subject had a fixed batch that was made free. It may not hold inside: compare
    a run of two frames with two runs of one, and ask for ``batch`` when they differ."""


@dataclass(frozen=True)
class TappedModel(TruncatedModel):
    """A truncated subject that takes frames and gives the asked layers."""

    outputs: tuple[TapOutput, ...]
    """One for each layer, in the asked order."""


def tap(
    subject: Subject,
    layers: Sequence[Layer],
    preprocessing: Preprocessing,
    *,
    batch: int | None = None,
) -> TappedModel:
    """Cut the subject down to some layers.

    ``batch`` fixes the batch; without it the batch is free, which for a subject with a fixed one
    is an attempt (see `TruncatedModel.freed`). Raises UsageError for no layers, a frame of another
    size than the subject's, or a batch that the subject does not take.
    """
    if not layers:
        raise UsageError("no layer is asked for", hint="name one with --layer")
    _check(subject, preprocessing, batch)
    return _Surgeon(subject, preprocessing, batch).tapped(layers)


def truncate(
    subject: Subject,
    tensors: Sequence[str],
    preprocessing: Preprocessing,
    *,
    batch: int | None = None,
) -> TruncatedModel:
    """Cut the subject down to some tensors, its outputs in that order; otherwise as `tap`.

    Raises SubjectError where the type of a tensor is not known.
    """
    _check(subject, preprocessing, batch)
    return _Surgeon(subject, preprocessing, batch).truncated(tensors)


def _check(subject: Subject, preprocessing: Preprocessing, batch: int | None) -> None:
    image, (height, width) = subject.input, preprocessing.geometry.size
    if (image.height or height, image.width or width) != (height, width):
        raise UsageError(
            f"the model takes {image.height}x{image.width}, not {height}x{width}",
            hint="change the crop",
        )
    if batch is not None and (batch < 1 or batch != (image.batch or batch)):
        raise UsageError(
            f"the model cannot run with a batch of {batch}", hint=f"its batch is {image.batch}"
        )


class _Surgeon:
    """One tapped graph in the making."""

    def __init__(self, subject: Subject, preprocessing: Preprocessing, batch: int | None) -> None:
        self.subject, self.preprocessing, self.batch = subject, preprocessing, batch
        self.graph: Graph = analyse(subject).graph
        self.frame = preprocessing.geometry.size
        self.inference: Inference = infer_subject(subject, self.frame)
        self.freed = batch is None and subject.input.batch is not None
        self.taken = all_names(subject.model.graph)
        self.front = Builder(self.taken, "frame")
        self.inner: list[NodeProto] = []
        self.patches = Builder(self.taken, "batch")
        self.back = Builder(self.taken, "tap")

    def tapped(self, layers: Sequence[Layer]) -> TappedModel:
        """Assemble the graph of some layers."""
        name = self._front_and_inner([layer.tensor for layer in layers])
        outputs = tuple(self._tap(number, layer) for number, layer in enumerate(layers))
        infos = [_output_info(output, self.batch) for output in outputs]
        return TappedModel(**self._made(name, infos), outputs=outputs)

    def truncated(self, tensors: Sequence[str]) -> TruncatedModel:
        """Assemble the graph of some tensors."""
        name = self._front_and_inner(tensors)
        infos = [tensor_info(self.subject, tensor) for tensor in tensors]
        return TruncatedModel(**self._made(name, infos))

    def _front_and_inner(self, tensors: Sequence[str]) -> str:
        """The nodes up to some tensors; returns the name of the graph's input."""
        input_name = self.front.free_name("images")
        self._normalise(input_name)
        for index in upstream(self.graph, tensors):
            self._take(index)
        self._drop_unread_constants()
        return input_name

    def _made(self, input_name: str, outputs: Sequence[ValueInfoProto]) -> dict[str, Any]:
        """What a truncated model holds."""
        model = self._model(input_name, outputs)
        return {
            "model_bytes": model.SerializeToString(deterministic=True),
            "external_folder": self.subject.external_folder,
            "input_name": input_name,
            "frame": self.frame,
            "batch": self.batch,
            "freed": self.freed,
        }

    # --- in front -------------------------------------------------------------------------------

    def _normalise(self, name: str) -> None:
        """Frames to the subject's input, which the last step takes the name of."""
        from onnx import TensorProto

        image, wanted = self.subject.input, _elem_type(self.subject.input)
        scale, bias = _scale_and_bias(self.preprocessing, image.channels)
        mixed = image.channels != 3
        plain = not mixed and bool(np.all(scale == 1) and np.all(bias == 0))
        if self.preprocessing.channel_order == "BGR" and not mixed:
            name = self.front.gather(name, [2, 1, 0], axis=3)
        held = TensorProto.UINT8
        if not (plain and wanted == TensorProto.UINT8):
            name = self.front.cast(name, TensorProto.FLOAT)
            held = TensorProto.FLOAT
        if mixed:
            matrix = _mixing(image.channels, self.preprocessing.channel_order)
            name = self.front.op("MatMul", name, self.front.constant(matrix))
        if not plain:
            name = self.front.op("Mul", name, self.front.constant(scale))
            name = self.front.op("Add", name, self.front.constant(bias))
        if held != wanted:
            name = self.front.cast(name, wanted)
        if image.layout == "NCHW":
            self.front.op("Transpose", name, output=image.name, perm=[0, 3, 1, 2])
        else:
            self.front.op("Identity", name, output=image.name)

    # --- the subject ----------------------------------------------------------------------------

    def _take(self, index: int) -> None:
        """Copy a node."""
        node = copied(self.graph.nodes[index])
        if self.freed and node.output:
            self._free(node)
        self.inner.append(node)

    def _free(self, node: NodeProto) -> None:
        """Take a baked batch out of a node."""
        shape = self.inference.reshapes.get(node.output[0])
        if shape is not None:
            # Freed shapes use 0 in its usual sense, so "allowzero" must go.
            del node.attribute[:]
            node.input[1] = self.patches.constant(np.array(shape, np.int64))
        repeated = self.inference.expands.get(node.output[0], ())
        if repeated:
            guide = next(name for name in node.input if name not in repeated)
            for place, name in enumerate(node.input):
                if name in repeated:
                    node.input[place] = self._repeat(name, guide)

    def _drop_unread_constants(self) -> None:
        """The shapes that freed nodes no longer read (ONNX Runtime would warn of each)."""
        read = {name for node in self.inner for name in names_read(node)}
        self.inner = [n for n in self.inner if n.op_type != "Constant" or n.output[0] in read]

    def _repeat(self, name: str, guide: str) -> str:
        """Repeat a constant along the batch of another tensor."""
        rank = len(self.inference.types[name].dims or ())
        batch = self.patches.gather(self.patches.op("Shape", guide), [0], axis=0)
        ones = self.patches.constant(np.ones(rank - 1, np.int64))
        shape = self.patches.op("Concat", batch, ones, axis=0)
        result = self.patches.op("Expand", name, shape)
        self.inner.extend(self.patches.take_nodes())
        return result

    # --- behind ---------------------------------------------------------------------------------

    def _tap(self, number: int, layer: Layer) -> TapOutput:
        """Bring a layer to float32 (N, C, h, w)."""
        dims = self._dims(layer)
        name = self._as_float(layer.tensor)
        units = dims[UNIT_AXIS[layer.kind]]
        # As it is, not through an Identity: ONNX Runtime 1.32 breaks graphs in which one stands
        # beside a Pad (tests/subject/test_subject_tap.py).
        plain = layer.kind == "channels_first"
        output = name if plain else self.back.free_name(f"layer_{number}")
        result = TapOutput(layer, output, units, None, (layer.note,) if layer.note else ())
        if layer.kind == "tokens":
            return self._tap_tokens(name, result, dims[1])
        if layer.kind == "channels_last":
            self.back.op("Transpose", name, output=output, perm=[0, 3, 1, 2])
            return replace(result, grid=_grid(dims[1], dims[2]))
        if plain:
            return replace(result, grid=_grid(dims[2], dims[3]))
        if layer.kind == "sequence":
            self.back.reshape(name, [0, 0, 1, -1], output)
            return replace(result, grid=_grid(1, dims[2]))
        self.back.reshape(name, [0, -1, 1, 1], output)
        return replace(result, grid=(1, 1))

    def _dims(self, layer: Layer) -> Dims:
        """The dimensions of a layer for the frame."""
        known = self.inference.types.get(layer.tensor)
        dims = known.dims if known and known.dims else (None,) * len(layer.shape)
        if len(dims) != len(layer.shape) or layer.tensor not in self.graph.dependent:
            raise LayerUnsuitable(f"{layer.tensor} is no layer of this model", hint="resolve again")
        return dims

    def _as_float(self, name: str) -> str:
        from onnx import TensorProto

        known = self.inference.types.get(name)
        if known is not None and known.elem == TensorProto.FLOAT:
            return name
        return self.back.cast(name, TensorProto.FLOAT)

    def _tap_tokens(self, name: str, result: TapOutput, tokens: int | None) -> TapOutput:
        """Drop the prefix tokens and lay the rest out as the patches lie in the frame."""
        grid = token_grid(tokens, self.frame) if tokens is not None else None
        if grid is None:
            name = self.back.op("Transpose", name, perm=[0, 2, 1])
            self.back.reshape(name, [0, 0, 1, -1], result.name)
            note = f"{tokens if tokens is not None else 'the'} tokens form no grid"
            return replace(result, grid=_grid(1, tokens), notes=(*result.notes, note))
        if grid.prefix:
            name = self.back.gather(name, list(range(grid.prefix, tokens or 0)), axis=1)
        name = self.back.op("Transpose", name, perm=[0, 2, 1])
        self.back.reshape(name, [0, 0, grid.height, grid.width], result.name)
        size = (grid.height, grid.width)
        return replace(result, grid=size, notes=(*result.notes, *_prefix_note(grid)))

    # --- together -------------------------------------------------------------------------------

    def _model(self, input_name: str, outputs: Sequence[ValueInfoProto]) -> ModelProto:
        import onnx

        source = self.subject.model
        model = onnx.ModelProto()
        model.ir_version = max(source.ir_version, OLDEST_IR)
        model.opset_import.extend(source.opset_import)
        model.functions.extend(source.functions)
        model.producer_name = "milan-onnx"
        graph = model.graph
        graph.name = "tapped"
        graph.node.extend([*self.front.nodes, *self.inner, *self.back.nodes])
        graph.input.append(_image_info(input_name, self.batch, self.frame))
        graph.output.extend(outputs)
        added = (self.front.weights, self.patches.weights, self.back.weights)
        graph.initializer.extend(tensor for weights in added for tensor in weights)
        add_weights(self.subject, graph, self.inner)
        return model


def copied(node: NodeProto) -> NodeProto:
    """A copy of a node, without its metadata (which holds paths of the exporting machine)."""
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.metadata_props[:]
    copy.ClearField("doc_string")
    return copy


def add_weights(subject: Subject, graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Give a graph the subject's weights that some nodes read, and the inputs that were fixed."""
    from onnx import numpy_helper

    read = {name for node in nodes for name in names_read(node)}
    source = subject.model.graph
    graph.initializer.extend(t for t in source.initializer if t.name in read)
    graph.sparse_initializer.extend(
        sparse for sparse in source.sparse_initializer if sparse.values.name in read
    )
    graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in sorted(subject.fixed.items())
        if name in read
    )


def tensor_info(subject: Subject, tensor: str, name: str | None = None) -> ValueInfoProto:
    """A tensor of the subject as an input or output (called ``name``), its dimensions free.

    Raises SubjectError where its type is not known.
    """
    from onnx import helper

    known = analyse(subject).inference.types.get(tensor)
    if known is None or known.elem == 0:
        raise SubjectError(
            f"the type of {tensor} cannot be told, so the model cannot be cut there",
            hint="export it again with types",
        )
    return helper.make_tensor_value_info(name or tensor, known.elem, None)


def _grid(height: int | None, width: int | None) -> tuple[int, int] | None:
    return None if height is None or width is None else (height, width)


def _prefix_note(grid: Grid) -> tuple[str, ...]:
    if not grid.prefix:
        return ()
    noun = "token" if grid.prefix == 1 else "tokens"
    return (f"{grid.prefix} prefix {noun} left out of a {grid.height}x{grid.width} grid",)


def _elem_type(image: ImageInput) -> int:
    from onnx import TensorProto

    short = {"float32": "FLOAT", "float64": "DOUBLE"}
    return int(TensorProto.DataType.Value(short.get(image.dtype, image.dtype.upper())))


def _scale_and_bias(
    preprocessing: Preprocessing, channels: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor and summand for each channel of the subject, after mixing."""
    used = min(channels, 3)
    mean = np.array(preprocessing.mean[:used], np.float64)
    std = np.array(preprocessing.std[:used], np.float64)
    scale, bias = preprocessing.rescale / std, -mean / std
    if channels == 4:
        # Mixing leaves alpha 0; opaque is 255, rescaled as the colours are.
        scale, bias = np.append(scale, 1.0), np.append(bias, 255 * preprocessing.rescale)
    return scale.astype(np.float32), bias.astype(np.float32)


def _mixing(channels: int, order: str) -> NDArray[np.float32]:
    """From red, green and blue to grey, or to four channels with an empty fourth."""
    if channels == 1:
        return np.array(LUMA, np.float32)[:, None]
    colours = np.eye(3, 4, dtype=np.float32)
    return colours if order == "RGB" else colours[::-1].copy()


def _image_info(name: str, batch: int | None, frame: tuple[int, int]) -> ValueInfoProto:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.UINT8, [batch or "N", *frame, 3])


def _output_info(output: TapOutput, batch: int | None) -> ValueInfoProto:
    from onnx import TensorProto, helper

    height, width = output.grid or (f"{output.name}_h", f"{output.name}_w")
    shape = [batch or "N", output.units or f"{output.name}_c", height, width]
    return helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape)


class Builder:
    """Nodes and constants with names that the subject does not use."""

    def __init__(self, taken: set[str], stem: str) -> None:
        self.taken, self.stem = taken, stem
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def free_name(self, wanted: str) -> str:
        """The name, with underscores behind it while it is taken; taken from now on."""
        while wanted in self.taken:
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        name = self.free_name(f"milan_{self.stem}_value_{len(self.weights)}")
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = output or self.free_name(f"milan_{self.stem}_{len(self.taken)}")
        label = f"milan/{self.stem}/{name}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=label, **attributes))
        return name

    def cast(self, name: str, elem_type: int) -> str:
        """Add a Cast."""
        return self.op("Cast", name, to=elem_type)

    def gather(self, name: str, indices: Iterable[int], *, axis: int) -> str:
        """Add a selection along an axis (Gather is the same in all opsets, Slice is not)."""
        return self.op("Gather", name, self.constant(np.array([*indices], np.int64)), axis=axis)

    def reshape(self, name: str, shape: Sequence[int], output: str) -> None:
        """Add a Reshape; 0 keeps a dimension."""
        self.op("Reshape", name, self.constant(np.array(shape, np.int64)), output=output)

    def take_nodes(self) -> list[NodeProto]:
        """Hand over the nodes made so far, for a place of their own in the order."""
        nodes, self.nodes = self.nodes, []
        return nodes
