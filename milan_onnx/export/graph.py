"""A small builder of ONNX graphs: clean names, weights as float16, no exporter in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 18
IR_VERSION = 9
FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64
Shape = Sequence[int | str]


class GraphBuilder:
    """Collects nodes in order; ``op`` returns the name of the result."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.scope = ""
        """What follows the names of weights and constants: graphs of several networks need it."""

    def input(self, name: str, kind: int, shape: Shape) -> str:
        """Declare a graph input; a string in ``shape`` is a dynamic axis."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: Shape) -> None:
        """Declare a graph output."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A constant with its own type."""
        name += self.scope
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str, value: Tensor) -> str:
        """A float32 weight, stored as float16 where nothing is lost."""
        name += self.scope
        if name not in self.weights:
            node, tensor = stored_weight(name, value.detach().float().numpy())
            self.weights[name] = tensor
            self.nodes.extend(node)
        return name

    def op(self, kind: str, *inputs: str, out: str | Sequence[str] = "", **attributes: Any) -> Any:
        """Add a node. Returns the name of its output, or the names where ``out`` has several."""
        outputs = [out] if isinstance(out, str) else list(out)
        outputs = [o or f"{kind.lower()}_{len(self.nodes)}" for o in outputs]
        name = f"node_{outputs[0]}"
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs[0] if isinstance(out, str) else outputs

    def linear(self, name: str, module: nn.Linear, x: str, out: str = "") -> str:
        """x W^T + b, for an x of any rank."""
        product = self.op("MatMul", x, self.weight(f"{name}.weight", module.weight.T))
        biased: str = self.op("Add", product, self.weight(f"{name}.bias", module.bias), out=out)
        return biased

    def model(self) -> onnx.ModelProto:
        """The finished model, checked."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, list(self.weights.values())
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="milan-onnx"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def stored_weight(
    name: str, value: NDArray[np.float32]
) -> tuple[list[onnx.NodeProto], onnx.TensorProto]:
    """How a float32 weight is kept: float16 and a Cast where that loses nothing, else as it is."""
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if value.size < 16 or not np.array_equal(half.astype(np.float32), value):
        return [], numpy_helper.from_array(np.ascontiguousarray(value), name)
    cast = helper.make_node("Cast", [f"{name}.half"], [name], name=f"node_{name}", to=FLOAT)
    return [cast], numpy_helper.from_array(np.ascontiguousarray(half), f"{name}.half")
