"""Layers: which tensors they are, and how their layout is told from the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper
from subject_graphs import conv, conv_model, image, ints, model, output, weight, written

from milan_onnx.errors import LayerUnsuitable, UsageError
from milan_onnx.subject import Layer, Subject, list_layers, load, resolve, with_layout
from milan_onnx.subject.shapes import BATCH, freed_shape


def subject_of(folder: Path, *args: Any, **options: Any) -> Subject:
    return load(written(folder, model(*args, **options)))


def layers_of(folder: Path, *args: Any, **options: Any) -> dict[str, Layer]:
    return {layer.tensor: layer for layer in list_layers(subject_of(folder, *args, **options))}


def test_a_plain_network(tmp_path: Path) -> None:
    layers = list_layers(load(written(tmp_path, conv_model())))
    assert [(la.index, la.op, la.tensor, la.units, la.kind, la.shape) for la in layers] == [
        (0, "Conv", "c", 4, "channels_first", ("N", 4, 8, 8)),
        (1, "Relu", "r", 4, "channels_first", ("N", 4, 8, 8)),
        (2, "GlobalAveragePool", "p", 4, "channels_first", ("N", 4, 1, 1)),
        (3, "Flatten", "f", 4, "vector", ("N", 4)),
        (4, "Gemm", "y", 5, "vector", ("N", 5)),
    ]


def test_free_height_and_width(tmp_path: Path) -> None:
    made = conv_model(["N", 3, "H", "W"])
    layers = list_layers(load(written(tmp_path, made)))
    assert layers[0].shape == ("N", 4, None, None)
    assert layers[-1].shape == ("N", 5)


def nodes_for_layouts() -> list[Any]:
    make = helper.make_node
    return [
        conv("x", "c", "w", kernel_shape=[1, 1]),
        make("Transpose", ["c"], ["last"], perm=[0, 2, 3, 1]),
        make("LayerNormalization", ["last", "g", "b"], ["norm"], axis=-1),
        make("MatMul", ["norm", "m"], ["wide"]),
        make("Relu", ["wide"], ["act"]),
        make("Transpose", ["act"], ["first"], perm=[0, 3, 1, 2]),
        make("Reshape", ["first", "to_sequence"], ["sequence"]),
        make("Transpose", ["sequence"], ["tokens"], perm=[0, 2, 1]),
        make("Add", ["tokens", "place"], ["placed"]),
        make("Reshape", ["placed", "to_map"], ["map_last"]),
        make("ReduceMean", ["placed"], ["mean"], axes=[1], keepdims=0),
        make("Unsqueeze", ["sequence", "three"], ["unsqueezed"]),
        make("Squeeze", ["unsqueezed", "three"], ["squeezed"]),
        make("Sum", ["c", "c"], ["y"]),
    ]


def weights_for_layouts() -> list[TensorProto]:
    return [
        weight("w", 6, 3, 1, 1),
        weight("g", 6),
        weight("b", 6),
        weight("m", 6, 10),
        weight("place", 1, 64, 10),
        ints("to_sequence", 0, 10, -1),
        ints("to_map", 0, 8, 8, 10),
        ints("three", 3),
    ]


def test_layouts_follow_the_graph(tmp_path: Path) -> None:
    outputs = [output(name) for name in ("map_last", "mean", "squeezed", "y")]
    found = layers_of(tmp_path, nodes_for_layouts(), weights_for_layouts(), outputs=outputs)
    assert {name: (layer.kind, layer.units) for name, layer in found.items()} == {
        "c": ("channels_first", 6),
        "last": ("channels_last", 6),
        "norm": ("channels_last", 6),
        "wide": ("channels_last", 10),
        "act": ("channels_last", 10),
        "first": ("channels_first", 10),
        "sequence": ("sequence", 10),
        "tokens": ("tokens", 10),
        "placed": ("tokens", 10),
        "map_last": ("channels_last", 10),
        "mean": ("vector", 10),
        "unsqueezed": ("channels_first", 10),
        "squeezed": ("sequence", 10),
        "y": ("channels_first", 6),
    }
    assert not any(layer.note for layer in found.values())


def test_nhwc_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    found = layers_of(tmp_path, nodes, inputs=[image(["N", 8, 8, 3])])
    assert (found["y"].kind, found["y"].units) == ("channels_last", 3)


def test_what_has_no_units_is_left_out(tmp_path: Path) -> None:
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Cast", ["shape"], ["float_shape"], to=1),
        make("ReduceMax", ["x"], ["scalar"], keepdims=0),
        make("ArgMax", ["x"], ["integer"], axis=1),
        make("Unsqueeze", ["x", "two"], ["five"]),
        make("Transpose", ["x"], ["turned"], perm=[1, 0, 2, 3]),
        make("Reshape", ["x", "merge"], ["merged"]),
        make("Relu", ["x"], ["y"]),
    ]
    subject = subject_of(tmp_path, nodes, [ints("two", 2), ints("merge", -1, 8)])
    assert [layer.tensor for layer in list_layers(subject)] == ["y"]
    for name, why in {
        "float_shape": "does not depend on the image",
        "scalar": "rank 0",
        "integer": "int64",
        "five": "rank 5",
        "turned": "first axis is not the batch",
        "merged": "first axis is not the batch",
        "two": "weight",
        "x": "the image itself",
    }.items():
        with pytest.raises(LayerUnsuitable, match=why):
            resolve(subject, name)


def test_shape_arithmetic_is_followed(tmp_path: Path) -> None:
    """As older exporters flatten: the target of the Reshape is computed from the shape."""
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["s"]),
        make("Gather", ["s", "zero"], ["n"]),
        make("Unsqueeze", ["n", "axis"], ["n1"]),
        make("Concat", ["n1", "rest"], ["target"], axis=0),
        make("Reshape", ["x", "target"], ["y"]),
    ]
    scalar = ints("zero", 0)
    del scalar.dims[:]
    found = layers_of(tmp_path, nodes, [scalar, ints("axis", 0), ints("rest", 3, 64)])
    assert found["y"].shape == ("N", 3, 64)
    assert found["y"].kind == "sequence"


def test_a_local_function_has_shapes(tmp_path: Path) -> None:
    made = model([helper.make_node("Twice", ["x"], ["t"], domain="own")])
    made.graph.node.append(helper.make_node("Relu", ["t"], ["y"]))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    made.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    made.opset_import.append(helper.make_opsetid("own", 1))
    layers = list_layers(load(written(tmp_path, made)))
    assert [(la.tensor, la.shape) for la in layers] == [
        ("t", ("N", 3, 8, 8)),
        ("y", ("N", 3, 8, 8)),
    ]


def test_an_unknown_operator_does_not_stop_the_list(tmp_path: Path) -> None:
    make = helper.make_node
    nodes = [make("Odd", ["x"], ["o"], domain="own"), make("Relu", ["x"], ["y"])]
    made = model(nodes, outputs=[output("o"), output("y")])
    made.opset_import.append(helper.make_opsetid("own", 1))
    subject = load(written(tmp_path, made))
    assert [layer.tensor for layer in list_layers(subject)] == ["y"]
    with pytest.raises(LayerUnsuitable, match="type cannot be told"):
        resolve(subject, "o")


def test_fused_operators_of_onnx_runtime_have_shapes(tmp_path: Path) -> None:
    nodes = [
        conv("x", "c", "w", kernel_shape=[1, 1]),
        helper.make_node("QuickGelu", ["c"], ["y"], domain="com.microsoft"),
    ]
    nodes[0].op_type, nodes[0].domain = "FusedConv", "com.microsoft"
    nodes[0].attribute.append(helper.make_attribute("activation", "Relu"))
    made = model(nodes, [weight("w", 6, 3, 1, 1)])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    layers = list_layers(load(written(tmp_path, made)))
    assert [(la.shape, la.kind) for la in layers] == [(("N", 6, 8, 8), "channels_first")] * 2


def test_layout_can_be_overridden(tmp_path: Path) -> None:
    subject = load(written(tmp_path, conv_model()))
    layer = resolve(subject, "c", layout="channels_last").layer
    assert (layer.kind, layer.units) == ("channels_last", 8)
    with pytest.raises(LayerUnsuitable, match="rank 3"):
        with_layout(layer, "tokens")
    with pytest.raises(UsageError, match="unknown layout"):
        with_layout(layer, "NHWC")  # type: ignore[arg-type]


def test_unknown_layouts_are_said(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "t"], ["y"])]
    found = layers_of(tmp_path, nodes, [ints("t", 0, 2, 96)])
    assert found["y"].kind == "tokens"
    assert "taken as (N,T,C)" in found["y"].note


@pytest.mark.parametrize(
    ("dims", "target", "freed"),
    [
        ((BATCH, 16, 7, 7), [1, -1], [0, -1]),
        ((BATCH, 196, 64), [1, 14, 14, 64], [0, 14, 14, 64]),
        ((17, BATCH, 16), [17, 2, 8], [17, -1, 8]),
        ((2 * BATCH, 17, 8), [1, 2, 17, 8], [-1, 2, 17, 8]),
        ((17, BATCH, 2, 8), [17, 16], [-1, 16]),
        ((17 * BATCH, 16), [17, 1, 16], [17, -1, 16]),
        ((4, 8), [1, 32], None),
        ((BATCH, 8), [-1, 4], None),
    ],
)
def test_freed_shape(dims: tuple[int, ...], target: list[int], freed: list[int] | None) -> None:
    assert freed_shape(dims, target, 1) == freed
