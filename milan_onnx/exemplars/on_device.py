"""Activations that stay on the device where the network put them.

A batch of an early layer is tens of megabytes, of which a scan needs a few per cent. Small graphs
run where the activations are, and only what they find crosses the bus: maxima, what passed the
quantile's bars, and the maps of winners. They run on any provider; tests hold them against
`HostActivations` on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import MilanError
from milan_onnx.exemplars.activations import (
    Activations,
    Floats,
    HostActivations,
    Ids,
    Passed,
)
from milan_onnx.runtime.device import Device
from milan_onnx.runtime.session import Array, Held, Session

if TYPE_CHECKING:
    from onnx import NodeProto

OPSET, IR_VERSION = 18, 9
VALUES = ("N", "U", "h", "w")


def look(
    session: Session,
    inputs: Mapping[str, Array],
    images: int,
    bars: Sequence[Floats | None],
    reductions: Reductions | None,
) -> list[Activations]:
    """Run a tapped model and look at each layer's activations of the first ``images`` of a batch.

    ``bars``: see `Scan.bars`; ``reductions``: look where the model ran, None: in memory.
    """
    if reductions is None:
        outputs = zip(session.run(inputs), bars, strict=True)
        return [HostActivations(out[:images], bar) for out, bar in outputs]
    held = zip(session.run_held(inputs), bars, strict=True)
    return [DeviceActivations(out, images, reductions, bar) for out, bar in held]


@dataclass(frozen=True)
class Reductions:
    """The graphs on one device; all layers share them."""

    look: Session
    """values, bars (U,) to maxima (N, U), counts (N, U) and values above the bars (M,)."""

    maxima: Session
    """values to maxima (N, U)."""

    lowest: Session
    """values to the smallest of each unit (U,)."""

    sums: Session
    """values, pairs (n, 2) of image and unit to sums over positions (n,)."""

    maps: Session
    """values, pairs to maps (n, h, w)."""

    @staticmethod
    def on(device: Device) -> Reductions:
        """Load them."""
        return Reductions(**{name: _session(name, device) for name in GRAPHS})


class DeviceActivations:
    """One layer's activations of a batch, on a device."""

    def __init__(
        self, values: Held, images: int, reductions: Reductions, bars: Floats | None = None
    ) -> None:
        """Of float32 (N, U, h, w), of which the first ``images`` count (a GPU runs full batches).
        Given ``bars`` (U,), what is above them is found at once."""
        _, units, height, width = values.shape()
        self.shape = (images, units, height, width)
        self._values, self._graphs = values, reductions
        self._found: list[Passed] | None = None
        if bars is None:
            (maxima,) = reductions.maxima.run({"values": values})
            self.maxima: Floats = maxima[:images]
        else:
            self._found = self._look(bars)

    def above(self, bars: Floats) -> Iterable[Passed]:
        return self._look(bars) if self._found is None else self._found

    def lowest(self, units: Ids) -> Floats:
        # What fills a batch up repeats its last image, so that it changes no minimum.
        (lowest,) = self._graphs.lowest.run({"values": self._values})
        return np.asarray(lowest[units], dtype=np.float32)

    def sums(self, images: Ids, units: Ids) -> Floats:
        (sums,) = self._graphs.sums.run({"values": self._values, "pairs": _pairs(images, units)})
        return np.asarray(np.nan_to_num(sums, posinf=np.inf, neginf=-np.inf), dtype=np.float32)

    def maps(self, images: Ids, units: Ids) -> Iterable[Floats]:
        (maps,) = self._graphs.maps.run({"values": self._values, "pairs": _pairs(images, units)})
        return iter(maps.reshape(len(images), -1))

    def _look(self, bars: Floats) -> list[Passed]:
        inputs: dict[str, Array | Held] = {"values": self._values, "bars": bars.copy()}
        maxima, counts, passed = self._graphs.look.run(inputs)
        images = self.shape[0]
        self.maxima = maxima[:images]
        ends = np.cumsum(counts.sum(axis=1)).tolist()
        parts = zip(counts[:images], [0, *ends], ends, strict=False)
        return [
            Passed(np.flatnonzero(count), count[count > 0].astype(np.int64), passed[begin:end])
            for count, begin, end in parts
            if end > begin
        ]


def _pairs(images: Ids, units: Ids) -> NDArray[np.int64]:
    return np.stack((images, units), axis=1).astype(np.int64)


Step = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]
MAXIMA: Step = ("ReduceMax", ["values", "grid"], ["maxima"], {"keepdims": 0})
GRAPHS: dict[str, tuple[list[str], list[Step]]] = {
    "look": (
        ["maxima", "counts", "passed"],
        [
            MAXIMA,
            ("Unsqueeze", ["bars", "last"], ["level"], {}),
            ("Greater", ["values", "level"], ["above"], {}),
            ("Cast", ["above"], ["ones"], {"to": 6}),  # int32
            ("ReduceSum", ["ones", "grid"], ["counts"], {"keepdims": 0}),
            ("Reshape", ["above", "flat"], ["above_flat"], {}),
            ("Compress", ["values", "above_flat"], ["passed"], {}),
        ],
    ),
    "maxima": (["maxima"], [MAXIMA]),
    "lowest": (["lowest"], [("ReduceMin", ["values", "rest"], ["lowest"], {"keepdims": 0})]),
    "sums": (
        ["sums"],
        [
            ("GatherND", ["values", "pairs"], ["found"], {}),
            ("ReduceSum", ["found", "last"], ["sums"], {"keepdims": 0}),
        ],
    ),
    "maps": (["maps"], [("GatherND", ["values", "pairs"], ["maps"], {})]),
}
CONSTANTS = {"grid": [2, 3], "rest": [0, 2, 3], "last": [1, 2], "flat": [-1]}


def _session(name: str, device: Device) -> Session:
    from onnx import TensorProto, helper, numpy_helper

    outputs, steps = GRAPHS[name]
    nodes: list[NodeProto] = [
        helper.make_node(kind, list(inputs), list(made), **attributes)
        for kind, inputs, made, attributes in steps
    ]
    read = {name for node in nodes for name in node.input}
    weights = [
        numpy_helper.from_array(np.array(value, np.int64), constant)
        for constant, value in CONSTANTS.items()
        if constant in read
    ]
    kinds: dict[str, tuple[int, Sequence[str | int]]] = {
        "values": (TensorProto.FLOAT, VALUES),
        "bars": (TensorProto.FLOAT, ("U",)),
        "pairs": (TensorProto.INT64, ("n", 2)),
    }
    asked = [helper.make_tensor_value_info(n, *kinds[n]) for n in kinds if n in read]
    types = {"counts": TensorProto.INT32}
    given = [
        helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in outputs
    ]
    graph = helper.make_graph(nodes, name, asked, given, weights)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    what = f"the graph for {name} of activations"
    return Session(bytes(model.SerializeToString()), device, what=what, error=MilanError)
