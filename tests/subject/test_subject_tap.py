"""Tapped graphs: the right values, only the needed nodes, the same bytes, a free batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper, load_model_from_string, numpy_helper
from subject_graphs import Dims, conv, conv_model, image, ints, model, output, weight, written

from milan_onnx.errors import UsageError
from milan_onnx.subject import (
    Preprocessing,
    TappedModel,
    choose_preprocessing,
    list_layers,
    load,
    resolve,
    tap,
)
from milan_onnx.subject.grid import token_grid

# --- in front -----------------------------------------------------------------------------------


def identity(dims: Dims, elem: int = TensorProto.FLOAT, **options: Any) -> Any:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    return model(nodes, inputs=[image(dims, elem)], **options)


def seen(folder: Path, made: Any, run: Any, images: Any, **options: Any) -> Any:
    """What the subject's input holds, as (N, C, H, W)."""
    subject = load(written(folder, made))
    preprocessing = choose_preprocessing(subject, **options).value
    (value,) = run(tap(subject, [resolve(subject, "y").layer], preprocessing), images)
    return value


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize("dims", [["N", 3, 8, 6], ["N", 8, 6, 3]])
@pytest.mark.parametrize("elem", ["FLOAT", "FLOAT16", "DOUBLE"])
def test_normalisation(tmp_path: Path, run: Any, frames: Any, dims: Dims, elem: str) -> None:
    images = frames(2, (8, 6))
    got = seen(tmp_path, identity(dims, TensorProto.DataType.Value(elem)), run, images)
    wanted = ((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, wanted, atol=2e-3 if elem == "FLOAT16" else 2e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize("elem", ["FLOAT16", "DOUBLE"])
def test_layers_of_other_float_types_come_out_as_float32(
    tmp_path: Path, run: Any, frames: Any, elem: str
) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    made = model(
        nodes,
        inputs=[image(elem=TensorProto.DataType.Value(elem))],
        outputs=[output("y", TensorProto.DataType.Value(elem))],
    )
    images = frames(2, 8)
    got = seen(tmp_path, made, run, images)
    assert got.dtype == np.float32
    wanted = -((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, wanted, atol=2e-3)


def test_uint8_pixels_are_untouched(tmp_path: Path, run: Any, frames: Any) -> None:
    images = frames(2, 8)
    got = seen(tmp_path, identity(["N", 3, 8, 8], TensorProto.UINT8), run, images)
    np.testing.assert_array_equal(got, images.transpose(0, 3, 1, 2))


def test_channel_order(tmp_path: Path, run: Any, frames: Any) -> None:
    images = frames(2, 8)
    options = {"channel_order": "BGR", "mean": (104.0, 117.0, 123.0), "std": 1}
    got = seen(tmp_path, identity(["N", 3, 8, 8]), run, images, **options)
    wanted = images[..., ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    np.testing.assert_allclose(got, wanted.transpose(0, 3, 1, 2), atol=1e-4)


def test_grey(tmp_path: Path, run: Any, frames: Any) -> None:
    images = frames(2, 8)
    got = seen(tmp_path, identity(["N", 1, 8, 8]), run, images)
    wanted = images @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(got[:, 0], wanted, atol=1e-6)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_alpha_is_opaque(tmp_path: Path, run: Any, frames: Any, order: Any) -> None:
    images = frames(2, 8)
    got = seen(tmp_path, identity(["N", 4, 8, 8]), run, images, mean=0, std=1, channel_order=order)
    np.testing.assert_array_equal(got[:, 3], np.ones((2, 8, 8), np.float32))
    colours = images if order == "RGB" else images[..., ::-1]
    np.testing.assert_allclose(got[:, :3], colours.transpose(0, 3, 1, 2) / 255, atol=1e-6)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_old_and_new_opsets(tmp_path: Path, run: Any, frames: Any, opset: int) -> None:
    made = conv_model(opset=opset)
    if opset == 9:
        made.ir_version = 3
        for tensor in made.graph.initializer:
            made.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    subject = load(written(tmp_path, made))
    tapped = tap(subject, list_layers(subject), choose_preprocessing(subject).value)
    checker.check_model(load_model_from_string(tapped.model_bytes))
    values = run(tapped, frames(3, 8))
    assert [value.shape for value in values] == [
        (3, 4, 8, 8),
        (3, 4, 8, 8),
        (3, 4, 1, 1),
        (3, 4, 1, 1),
        (3, 5, 1, 1),
    ]
    assert [(out.units, out.grid) for out in tapped.outputs] == [
        (4, (8, 8)),
        (4, (8, 8)),
        (4, (1, 1)),
        (4, (1, 1)),
        (5, (1, 1)),
    ]


# --- truncation ---------------------------------------------------------------------------------


def tapped_at(folder: Path, made: Any, *names: str, **options: Any) -> TappedModel:
    subject = load(written(folder, made))
    layers = [resolve(subject, name).layer for name in names]
    return tap(subject, layers, choose_preprocessing(subject).value, **options)


def test_only_what_is_needed_is_kept(tmp_path: Path) -> None:
    made = conv_model()
    made.graph.node[0].doc_string = "File '/home/someone/train.py'"
    made.graph.node[0].metadata_props.add(key="stack", value="/home/someone")
    tapped = tapped_at(tmp_path, made, "r")
    graph = load_model_from_string(tapped.model_bytes).graph
    operators = [node.op_type for node in graph.node]
    assert "Gemm" not in operators and "GlobalAveragePool" not in operators
    assert "fc.weight" not in [tensor.name for tensor in graph.initializer]
    assert [out.name for out in graph.output] == ["r"]
    assert [info.name for info in graph.input] == ["images"]
    assert b"someone" not in tapped.model_bytes


def test_equal_requests_give_equal_bytes(tmp_path: Path) -> None:
    one = tapped_at(tmp_path, conv_model(), "r", "fc")
    two = tapped_at(tmp_path, conv_model(), "r", "fc")
    assert one.model_bytes == two.model_bytes


def test_names_that_are_taken(tmp_path: Path, run: Any, frames: Any) -> None:
    nodes = [
        helper.make_node("Relu", ["images"], ["layer_0"]),
        helper.make_node("Neg", ["layer_0"], ["layer_1"]),
        helper.make_node("Flatten", ["layer_1"], ["layer_2"]),
    ]
    made = model(nodes, inputs=[image(name="images")])
    tapped = tapped_at(tmp_path, made, "layer_1", "layer_0", "layer_2")
    assert tapped.input_name == "images_"
    assert [out.name for out in tapped.outputs] == ["layer_1", "layer_0", "layer_2_"]
    one, two, flat = run(tapped, frames(1, 8))
    np.testing.assert_array_equal(one, -two)
    np.testing.assert_array_equal(flat.ravel(), one.ravel())


def test_layers_around_a_pad_are_tapped_together(tmp_path: Path, run: Any, frames: Any) -> None:
    """ONNX Runtime 1.32 fuses a Pad into the convolution behind it; where an Identity reads the
    same tensor as the Pad, the graph that is left reads a tensor that nothing makes."""
    nodes = [
        conv("x", "c", "first", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("Pad", ["a", "pads"], ["p"]),
        conv("p", "d", "second", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["d"], ["b"]),
    ]
    pads = ints("pads", 0, 0, 0, 0, 0, 0, 1, 1)
    made = model(nodes, [weight("first", 4, 3, 3, 3), weight("second", 4, 4, 3, 3), pads])
    one, two = run(tapped_at(tmp_path, made, "a", "b"), frames(2, 8))
    assert one.shape == (2, 4, 6, 6) and two.shape == (2, 4, 5, 5)


def test_an_inner_graph_reads_from_outside(tmp_path: Path, run: Any, frames: Any) -> None:
    """The branch of an If takes a weight and an activation that nothing else reads."""
    make = helper.make_node
    branch = helper.make_graph([make("Add", ["r", "w"], ["b"])], "then", [], [output("b")])
    other = helper.make_graph([make("Identity", ["r"], ["e"])], "else", [], [output("e")])
    nodes = [
        make("Relu", ["x"], ["r"]),
        make("ReduceMax", ["x"], ["m"], keepdims=0),
        make("Greater", ["m", "low"], ["condition"]),
        make("If", ["condition"], ["i"], then_branch=branch, else_branch=other),
        make("Relu", ["i"], ["y"]),
        make("Sigmoid", ["y"], ["z"]),
    ]
    low = numpy_helper.from_array(np.float32(-100), "low")
    made = model(nodes, [weight("w", 1, 3, 1, 1), low])
    made.graph.value_info.append(helper.make_tensor_value_info("i", 1, ["N", 3, 8, 8]))
    made.graph.value_info.append(helper.make_tensor_value_info("y", 1, ["N", 3, 8, 8]))
    tapped = tapped_at(tmp_path, made, "y")
    (value,) = run(tapped, frames(2, 8))
    assert value.shape == (2, 3, 8, 8)
    assert b"Sigmoid" not in tapped.model_bytes


def test_local_functions_are_kept(tmp_path: Path, run: Any, frames: Any) -> None:
    made = model([helper.make_node("Twice", ["x"], ["y"], domain="own")])
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    made.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    made.opset_import.append(helper.make_opsetid("own", 1))
    (value,) = run(tapped_at(tmp_path, made, "y"), frames(2, 8))
    assert value.shape == (2, 3, 8, 8)


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    subject = load(written(tmp_path, conv_model([2, 3, 8, 8])))
    preprocessing = choose_preprocessing(subject).value
    layers = list_layers(subject)
    with pytest.raises(UsageError, match="no layer"):
        tap(subject, [], preprocessing)
    with pytest.raises(UsageError, match="batch of 3"):
        tap(subject, layers, preprocessing, batch=3)
    other = load(written(tmp_path, conv_model(["N", 3, 16, 16])))
    with pytest.raises(UsageError, match="takes 16x16"):
        tap(other, list_layers(other), preprocessing)


# --- behind -------------------------------------------------------------------------------------


def tokens_model(tokens: int, side: int) -> Any:
    """Tokens whose values are their own positions."""
    make = helper.make_node
    positions = np.arange(tokens, dtype=np.float32).reshape(1, tokens, 1)
    nodes = [
        make("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        make("Unsqueeze", ["m", "one"], ["u"]),
        make("Mul", ["u", "zero"], ["z"]),
        make("Add", ["z", "positions"], ["p"]),
        make("MatMul", ["p", "eye"], ["y"]),
    ]
    weights = [
        ints("one", 1),
        numpy_helper.from_array(np.float32([0]), "zero"),
        numpy_helper.from_array(positions, "positions"),
        numpy_helper.from_array(np.eye(3, dtype=np.float32), "eye"),
    ]
    return model(nodes, weights, inputs=[image(["N", 3, side, side])])


@pytest.mark.parametrize(
    ("tokens", "side", "prefix", "grid"),
    [
        (197, 224, 1, (14, 14)),
        (198, 224, 2, (14, 14)),
        (201, 224, 5, (14, 14)),
        (196, 224, 0, (14, 14)),
        (50, 224, 1, (7, 7)),
        (17, 32, 1, (4, 4)),
    ],
)
def test_tokens_become_a_grid(
    tmp_path: Path, run: Any, frames: Any, tokens: int, side: int, prefix: int, grid: Any
) -> None:
    tapped = tapped_at(tmp_path, tokens_model(tokens, side), "y")
    (out,) = tapped.outputs
    assert (out.units, out.grid) == (3, grid)
    assert bool(out.notes) == bool(prefix)
    (value,) = run(tapped, frames(2, side))
    wanted = np.arange(prefix, tokens, dtype=np.float32).reshape(grid)
    np.testing.assert_array_equal(value, np.broadcast_to(wanted, (2, 3, *grid)))


def test_tokens_that_form_no_grid(tmp_path: Path, run: Any, frames: Any) -> None:
    tapped = tapped_at(tmp_path, tokens_model(190, 224), "y")
    (out,) = tapped.outputs
    assert out.grid == (1, 190)
    assert out.notes == ("190 tokens form no grid",)
    (value,) = run(tapped, frames(2, 224))
    np.testing.assert_array_equal(value[1, 2, 0], np.arange(190, dtype=np.float32))


@given(
    rows=st.integers(3, 40), columns=st.integers(3, 40), prefix=st.integers(0, 4),
    patch=st.sampled_from([4, 8, 14, 16, 32]),
)  # fmt: skip
def test_a_patch_grid_is_found(rows: int, columns: int, prefix: int, patch: int) -> None:
    found = token_grid(rows * columns + prefix, (rows * patch, columns * patch))
    assert found is not None
    assert found.height * found.width + found.prefix == rows * columns + prefix
    if rows == columns and rows > 4:
        assert (found.height, found.width, found.prefix) == (rows, columns, prefix)


def test_sequences_and_channels_last(tmp_path: Path, run: Any, frames: Any) -> None:
    make = helper.make_node
    nodes = [
        make("Reshape", ["x", "flat"], ["s"]),
        make("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]),
    ]
    made = model(nodes, [ints("flat", 0, 3, -1)], outputs=[output("s"), output("y")])
    tapped = tapped_at(tmp_path, made, "s", "y")
    flat, map_ = run(tapped, frames(2, 8))
    assert flat.shape == (2, 3, 1, 64)
    assert map_.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(flat.reshape(2, 3, 8, 8), map_)
    assert [out.grid for out in tapped.outputs] == [(1, 64), (8, 8)]


# --- batch --------------------------------------------------------------------------------------


def test_batch_can_be_fixed(tmp_path: Path, run: Any, frames: Any) -> None:
    tapped = tapped_at(tmp_path, conv_model(), "r", batch=4)
    assert (tapped.batch, tapped.freed) == (4, False)
    dims = load_model_from_string(tapped.model_bytes).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [4, 8, 8, 3]
    assert run(tapped, frames(4, 8))[0].shape == (4, 4, 8, 8)


def test_a_fixed_batch_is_freed(tmp_path: Path, run: Any, frames: Any) -> None:
    nodes = [
        conv("x", "c", "w", kernel_shape=[3, 3]),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["y"]),
    ]
    weights = [weight("w", 4, 3, 3, 3), ints("flat", 1, 144), weight("fc", 144, 5)]
    made = model(nodes, weights, inputs=[image([1, 3, 8, 8])])
    tapped = tapped_at(tmp_path, made, "c", "y")
    assert (tapped.batch, tapped.freed) == (None, True)
    fixed = tapped_at(tmp_path, made, "c", "y", batch=1)
    assert (fixed.batch, fixed.freed) == (1, False)
    images = frames(2, 8)
    weights_left = {t.name for t in load_model_from_string(tapped.model_bytes).graph.initializer}
    assert "flat" not in weights_left
    both = run(tapped, images)
    for number in range(2):
        for value, one in zip(both, run(fixed, images[number : number + 1]), strict=True):
            np.testing.assert_allclose(value[number], one[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "exporter"),
    [("resnet18", "torchscript"), ("vit", "torchscript"), ("vit", "dynamo")],
)
def test_exports_with_a_fixed_batch_are_freed(
    exported: Any, run: Any, frames: Any, network: str, exporter: str
) -> None:
    _, path = exported(network, exporter, 1)
    subject = load(path)
    assert subject.input.batch == 1
    _, free_path = exported(network, exporter)
    free = load(free_path)
    preprocessing: Preprocessing = choose_preprocessing(subject).value
    images = frames(3, preprocessing.geometry.crop)
    values = []
    for each in (subject, free):
        layers = list_layers(each)
        tapped = tap(each, [layers[len(layers) // 2], layers[-1]], preprocessing)
        values.append(run(tapped, images)[-1])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-5)
