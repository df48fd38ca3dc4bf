"""Models that no service should fall over: real ONNX files, made to harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.toy import FLOAT, INT64, Graph, toy_subject

IMAGE = ("input", FLOAT, ["N", 3, 32, 32])


def external(path: Path, location: str) -> Path:
    """A model that says that its first weight is in another file."""
    model = onnx.load(toy_subject(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "864")):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def external_in_a_branch(path: Path) -> Path:
    """The same, hidden in a constant of the body of a branch."""
    value = helper.make_tensor("hidden", FLOAT, [1], [0.0])
    value.ClearField("float_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/hostname")
    out = helper.make_tensor_value_info("b", FLOAT, None)
    node = helper.make_node("Constant", [], ["b"], value=value)
    body = helper.make_graph([node], "body", [], [out])
    model = onnx.load(toy_subject(path))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branch = helper.make_node("If", ["yes"], ["x"], then_branch=body, else_branch=body)
    model.graph.node.append(branch)
    path.write_bytes(model.SerializeToString())
    return path


def deep(path: Path, nodes: int) -> Path:
    """A chain of many nodes."""
    g = Graph(0)
    x = "input"
    for _ in range(nodes - 1):
        x = g.op("Relu", x)
    g.op("Relu", x, name="last")
    return g.save(path, [IMAGE], [("last", FLOAT, ["N", 3, 32, 32])])


def endless(path: Path) -> Path:
    """A loop whose condition stays true; ``last`` waits for it."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["before"], ["after"]),
        ],
        "body",
        [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("before", FLOAT, None)],
        [info("go_on", TensorProto.BOOL, []), info("after", FLOAT, None)],
    )
    return _looping(path, body)


def growing(path: Path) -> Path:
    """A loop that doubles a tensor until the memory ends."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Concat", ["before", "before"], ["after"], axis=2),
        ],
        "body",
        [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("before", FLOAT, None)],
        [info("go_on", TensorProto.BOOL, []), info("after", FLOAT, None)],
    )
    return _looping(path, body)


def _looping(path: Path, body: onnx.GraphProto) -> Path:
    g = Graph(0)
    yes = g.constant(np.array(True))
    image = g.op("Relu", "input", name="first")
    g.nodes.append(helper.make_node("Loop", ["", yes, image], ["looped"], "loop", body=body))
    return _last(g, path, "looped")


def giant(path: Path) -> Path:
    """A tensor of 4 TB out of a few bytes."""
    g = Graph(0)
    shape = g.constant(np.array([1, 1, 1_000_000, 1_000_000], np.int64))
    return _last(g, path, g.op("ConstantOfShape", shape))


def giant_of_the_image(path: Path) -> Path:
    """A tensor of 768 MB an image, whose size is known only when it runs."""
    g = Graph(0)
    none = g.op("Mul", g.op("Shape", "input"), g.constant(np.zeros(4, np.int64)))
    times = g.op("Add", none, g.constant(np.array([1, 1, 250, 250], np.int64)))
    return _last(g, path, g.op("Tile", "input", times))


def _last(g: Graph, path: Path, tensor: str) -> Path:
    """The layer ``last``: the image, and the largest value of a tensor."""
    one = g.op("ReduceMax", tensor, keepdims=0)
    whole = g.op("Reshape", one, g.constant(np.ones(4, np.int64)))
    g.op("Add", "input", whole, name="last")
    return g.save(path, [IMAGE], [("last", FLOAT, ["N", 3, 32, 32])])
