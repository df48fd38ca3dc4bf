"""Small ONNX models made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

Dims = list[int | str | None]


def weight(name: str, *shape: int, dtype: Any = np.float32) -> TensorProto:
    """A weight whose values follow from its name and shape."""
    seed = sum(name.encode()) + sum(shape)
    values = np.random.default_rng(seed).normal(0, 0.5, shape)
    return numpy_helper.from_array(values.astype(dtype), name)


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def image(dims: Dims | None = None, elem: int = TensorProto.FLOAT, name: str = "x") -> Any:
    return helper.make_tensor_value_info(name, elem, dims or ["N", 3, 8, 8])


def output(name: str, elem: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, elem, None)


def model(
    nodes: list[Any],
    weights: list[TensorProto] | None = None,
    *,
    inputs: list[Any] | None = None,
    outputs: list[Any] | None = None,
    opset: int = 17,
    **metadata: str,
) -> ModelProto:
    """A model whose output is that of its last node."""
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [image()],
        outputs or [output(nodes[-1].output[0])],
        weights or [],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in metadata.items():
        made.metadata_props.add(key=key.replace("__", "."), value=value)
    return made


def conv(source: str, target: str, weight_name: str, name: str = "", **attributes: Any) -> Any:
    return helper.make_node("Conv", [source, weight_name], [target], name=name, **attributes)


def conv_model(dims: Dims | None = None, **options: Any) -> ModelProto:
    """x -> conv1 -> Relu -> pool -> Flatten -> fc."""
    nodes = [
        conv("x", "c", "conv1.weight", "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], name="head", transB=1),
    ]
    channels = (dims or ["N", 3, 8, 8])[1]
    assert isinstance(channels, int)
    weights = [weight("conv1.weight", 4, channels, 3, 3), weight("fc.weight", 5, 4)]
    weights.append(weight("fc.bias", 5))
    return model(nodes, weights, inputs=[image(dims)], **options)


def written(folder: Path, made: ModelProto, name: str = "model.onnx", **options: Any) -> Path:
    path = folder / name
    save(made, path, **options)
    return path
