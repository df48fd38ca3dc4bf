"""Names: the order in which they are tried, and what is said when they fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from subject_graphs import conv, conv_model, image, model, output, weight, written

from milan_onnx.errors import LayerAmbiguous, LayerNotFound, LayerUnsuitable
from milan_onnx.subject import Subject, list_layers, load, resolve, resolve_many
from milan_onnx.subject.scopes import NAME_SCOPES


def scoped(name: str, source: str, target: str, op: str = "Relu") -> object:
    return helper.make_node(op, [source], [target], name=name)


def reused(folder: Path) -> Subject:
    """As TorchScript writes a block with a ReLU that is called twice, and a lone ``act_1``."""
    nodes = [
        conv("x", "/block/conv/out", "onnx::Conv_7", "/block/conv/Conv"),
        scoped("/block/relu/Relu", "/block/conv/out", "/block/relu/out"),
        scoped("/block/pool/Sigmoid", "/block/relu/out", "/block/pool/out", "Sigmoid"),
        scoped("/block/relu_1/Relu", "/block/pool/out", "/block/relu_1/out"),
        scoped("/block/act_1/Tanh", "/block/relu_1/out", "/block/act_1/out", "Tanh"),
        scoped("/seq/seq.0/Tanh", "/block/act_1/out", "/seq/seq.0/out", "Tanh"),
        scoped("/seq/seq.2/Tanh", "/seq/seq.0/out", "y", "Tanh"),
    ]
    return load(written(folder, model(nodes, [weight("onnx::Conv_7", 4, 3, 1, 1)])))


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("c", "c", "the tensor c"),
        ("act", "r", "the output of the node act"),
        ("conv1", "c", "what the weights of conv1 make"),
        ("fc", "y", "what the weights of fc make"),
        ("weight:fc", "y", "what the weights of fc make"),
        ("node:act", "r", "the output of the node act"),
        ("@2", "p", "the layer at index 2"),
    ],
)
def test_meanings(tmp_path: Path, name: str, tensor: str, reason: str) -> None:
    found = resolve(load(written(tmp_path, conv_model())), name)
    assert (found.layer.tensor, found.reason, found.warnings) == (tensor, reason, ())


def test_a_reused_module_is_its_last_call(tmp_path: Path) -> None:
    subject = reused(tmp_path)
    found = resolve(subject, "block.relu")
    assert found.layer.tensor == "/block/relu_1/out"
    assert found.warnings == (
        "block.relu is called 2 times: /block/relu_1/out is from its last call",
    )
    assert resolve(subject, "node:/block/relu/Relu").layer.tensor == "/block/relu/out"
    assert resolve(subject, "block.relu_1").layer.tensor == "/block/relu_1/out"
    assert resolve(subject, "block.act_1").layer.module == "block.act_1"


def test_modules_with_their_own_weights_are_not_calls(tmp_path: Path) -> None:
    """``conv`` and ``conv_1`` may be two modules: their weights tell."""
    nodes = [
        conv("x", "a", "conv.weight", "/conv/Conv"),
        conv("a", "b", "conv_1.weight", "/conv_1/Conv"),
        conv("b", "y", "conv_1.weight", "/conv_1_1/Conv"),
    ]
    weights = [weight("conv.weight", 3, 3, 1, 1), weight("conv_1.weight", 3, 3, 1, 1)]
    weights[1].raw_data = weights[1].raw_data[::-1]
    subject = load(written(tmp_path, model(nodes, weights)))
    assert resolve(subject, "module:conv").layer.tensor == "a"
    assert resolve(subject, "module:conv_1").layer.tensor == "y"


def test_a_module_is_what_leaves_it(tmp_path: Path) -> None:
    subject = reused(tmp_path)
    found = resolve(subject, "block")
    assert (found.layer.tensor, found.warnings) == ("/block/act_1/out", ())


def test_dynamo_scopes(tmp_path: Path) -> None:
    nodes = [
        conv("x", "a", "stem.conv.weight", "n0"),
        helper.make_node("Relu", ["a"], ["relu"], name="n1"),
        helper.make_node("Relu", ["relu"], ["y"], name="n2"),
    ]
    scopes = [
        ["", "stem", "stem.bn", "_native_batch_norm_legit_no_training"],
        ["", "stem", "stem.relu", "relu"],
        ["", "stem", "stem.relu@1", "relu_1"],
    ]
    for node, scope in zip(nodes, scopes, strict=True):
        node.metadata_props.add(key=NAME_SCOPES, value=repr(scope))
    weights = [weight("stem.conv.weight", 3, 3, 1, 1)]
    made = model(nodes, weights, outputs=[output("relu"), output("y")])
    subject = load(written(tmp_path, made))
    assert resolve(subject, "stem.bn").warnings == ()
    conv_found = resolve(subject, "stem.conv")
    assert conv_found.layer.tensor == "a"
    assert conv_found.layer.note == "holds the folded batch norm stem.bn"
    assert "holds the folded batch norm stem.bn" in conv_found.warnings[0]
    relu = resolve(subject, "stem.relu")
    assert relu.layer.tensor == "y"
    assert "2 outputs of stem.relu" in relu.warnings[0]


def test_a_name_with_two_meanings_is_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["relu"], name="/first/Relu"),
        helper.make_node("Relu", ["relu"], ["y"], name="/relu/Relu"),
    ]
    subject = load(written(tmp_path, model(nodes)))
    found = resolve(subject, "relu")
    assert found.layer.tensor == "relu"
    assert "write module:relu" in found.warnings[0]
    assert resolve(subject, "module:relu").layer.tensor == "y"


def test_a_weight_behind_a_cast(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["conv1.weight"], ["w16"], to=10),
        helper.make_node("Cast", ["w16"], ["w32"], to=1),
        conv("x", "y", "w32"),
    ]
    subject = load(written(tmp_path, model(nodes, [weight("conv1.weight", 4, 3, 1, 1)])))
    assert resolve(subject, "conv1").layer.tensor == "y"


def test_a_quantized_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["conv1.weight", "scale"], ["w"]),
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0, 2, 3]),
        conv("x", "y", "turned"),
    ]
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    weights = [weight("conv1.weight", 3, 4, 1, 1, dtype=np.int8), scale]
    found = resolve(load(written(tmp_path, model(nodes, weights))), "conv1")
    assert (found.layer.tensor, found.layer.units) == ("y", 4)


def test_shared_weights_are_ambiguous(tmp_path: Path) -> None:
    nodes = [conv("x", "a", "conv1.weight"), conv("a", "y", "conv1.weight")]
    subject = load(written(tmp_path, model(nodes, [weight("conv1.weight", 3, 3, 1, 1)])))
    with pytest.raises(LayerAmbiguous, match="tensor:a, tensor:y"):
        resolve(subject, "conv1")


def test_unique_suffix(tmp_path: Path) -> None:
    found = resolve(reused(tmp_path), "pool")
    assert found.layer.tensor == "/block/pool/out"
    assert "no layer is called exactly pool" in found.warnings[0]


def test_ambiguous_suffix(tmp_path: Path) -> None:
    with pytest.raises(LayerAmbiguous) as caught:
        resolve(reused(tmp_path), "Relu")
    assert "tensor:/block/relu/out" in str(caught.value)
    for tensor in ("/block/relu/out", "/block/relu_1/out"):
        assert resolve(reused(tmp_path), f"tensor:{tensor}").layer.tensor == tensor


def test_globs_and_lists(tmp_path: Path) -> None:
    subject = reused(tmp_path)

    def tensors(names: str | list[str]) -> list[str]:
        return [found.layer.tensor for found in resolve_many(subject, names)]

    assert tensors("seq.*") == ["/seq/seq.0/out", "y"]
    assert tensors("seq.[0-1]") == ["/seq/seq.0/out"]
    assert tensors("seq.2, block.pool") == ["y", "/block/pool/out"]
    assert tensors(["y", "seq.*"]) == ["y", "/seq/seq.0/out"]
    assert tensors("module:**relu*") == ["/block/relu_1/out"]
    assert len(tensors("**")) == len(list_layers(subject))
    with pytest.raises(LayerNotFound):
        tensors("none*")
    with pytest.raises(LayerAmbiguous):
        resolve(subject, "seq.*")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("block.bn", "folded into block.conv.*use block.conv, which holds the value after"),
        ("seq.1", "seq.1 has nothing in the graph.*seq.0, seq.2"),
        ("block.dropout", "block.dropout has nothing in the graph"),
        ("blok", "did you mean block"),
        ("@99", "@0 to @6"),
        ("", "called"),
        ("node:block", "no tensor, node, module or weight"),
    ],
)
def test_missing(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(LayerNotFound, match=words):
        resolve(reused(tmp_path), name)


def test_folded_conv_is_said(tmp_path: Path) -> None:
    found = resolve(reused(tmp_path), "block.conv")
    assert "holds its folded batch norm" in found.warnings[0]
    assert found.layer.note == "holds its folded batch norm"


def test_unsuitable(tmp_path: Path) -> None:
    nodes = [helper.make_node("ArgMax", ["x"], ["y"], name="best", axis=1)]
    subject = load(written(tmp_path, model(nodes, inputs=[image()])))
    with pytest.raises(LayerUnsuitable, match="int64"):
        resolve(subject, "best")


def test_a_norm_before_its_convolution_is_not_claimed(tmp_path: Path) -> None:
    """Pre-activation: bn1 stays, conv1 holds bn2 and conv2 bn3, so numbers say nothing."""
    nodes = [
        scoped("/b/bn1/Relu", "x", "/b/bn1/out"),
        conv("/b/bn1/out", "/b/conv1/out", "onnx::Conv_1", "/b/conv1/Conv"),
        conv("/b/conv1/out", "y", "onnx::Conv_2", "/b/conv2/Conv"),
    ]
    weights = [weight("onnx::Conv_1", 3, 3, 1, 1), weight("onnx::Conv_2", 3, 3, 1, 1)]
    subject = load(written(tmp_path, model(nodes, weights)))
    with pytest.raises(LayerNotFound, match=r"b.conv1, b.conv2 hold the value after one"):
        resolve(subject, "b.bn2")
