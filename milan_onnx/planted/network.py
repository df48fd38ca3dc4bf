"""A small builder of ONNX graphs of detectors. Planes are float32 (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

Floats = NDArray[np.float32]

SIDE = 224
"""Side of the frame."""

GRID = 28
"""Side of every layer's map."""

SMALL = 1e-4
"""Added to what divides."""


class Network:
    """Collects nodes and constants; a plane is named by its tensor."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        from onnx import helper

        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, value: object, kind: type[np.generic] = np.float32) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def plus(self, plane: str, value: float) -> str:
        """plane + value."""
        return self.op("Add", plane, self.constant(value))

    def times(self, plane: str, value: float) -> str:
        """plane * value."""
        return self.op("Mul", plane, self.constant(value))

    def ratio(self, part: str, whole: str, least: float = SMALL) -> str:
        """part / (whole + least)."""
        return self.op("Div", part, self.plus(whole, least))

    def clip(self, plane: str, low: float = 0.0, high: float = 1.0) -> str:
        """Nothing below ``low`` or above ``high``."""
        return self.op("Clip", plane, self.constant(low), self.constant(high))

    def ramp(self, plane: str, zero: float, one: float) -> str:
        """0 at ``zero``, 1 at ``one``, straight between, flat outside; falling where one < zero."""
        return self.clip(self.plus(self.times(plane, 1 / (one - zero)), -zero / (one - zero)))

    def concat(self, planes: Sequence[str], name: str = "") -> str:
        """Channels of all planes, one after the other."""
        return self.op("Concat", *planes, axis=1, name=name)

    def channel(self, planes: str, first: int, count: int = 1) -> str:
        """Channels ``first`` to ``first + count``."""
        ends = (self.constant([v], np.int64) for v in (first, first + count, 1))
        return self.op("Slice", planes, *ends)

    def mix(self, planes: str, weights: object, bias: Sequence[float] | None = None) -> str:
        """A 1x1 convolution: ``weights`` (out, in)."""
        matrix = np.asarray(weights, np.float32)[:, :, None, None]
        constants = [self.constant(matrix)] + ([self.constant(bias)] if bias is not None else [])
        return self.op("Conv", planes, *constants)

    def filter(
        self, planes: str, kernels: Floats, stride: int = 1, *, outside: str = "edge"
    ) -> str:
        """A convolution with kernels (out, in, h, w), odd.

        ``outside``: "edge" repeats the border outwards, "constant" has 0 there.
        """
        down, across = (side // 2 for side in kernels.shape[2:])
        around = self.constant([0, 0, down, across] * 2, np.int64)
        padded = self.op("Pad", planes, around, mode=outside)
        return self.op("Conv", padded, self.constant(kernels), strides=[stride] * 2)

    def window(
        self,
        planes: str,
        down: Floats,
        across: Floats,
        *,
        channels: int = 1,
        stride: int = 1,
        outside: str = "edge",
    ) -> str:
        """Each channel summed over windows, weighted by a profile (k) down and one across."""
        each = np.eye(channels, dtype=np.float32)[:, :, None, None]
        tall = self.filter(planes, each * down[:, None], outside=outside)
        return self.filter(tall, each * across[None, :], stride, outside=outside)

    def mean(self, planes: str, size: int, stride: int | None = None) -> str:
        """Mean over windows: of whole blocks, or with ``stride`` 1 around each position."""
        return self._pool("AveragePool", planes, size, stride, count_include_pad=0)

    def spread(self, planes: str, size: int) -> str:
        """The largest value in the window around each position."""
        return self._pool("MaxPool", planes, size, 1)

    def _pool(self, kind: str, planes: str, size: int, stride: int | None, **more: Any) -> str:
        reach = 0 if stride is None else size // 2
        step = size if stride is None else stride
        more |= {"kernel_shape": [size] * 2, "strides": [step] * 2, "pads": [reach] * 4}
        return self.op(kind, planes, **more)

    def resize(self, planes: str, side: int) -> str:
        """Bilinear, to (side, side)."""
        batch = self.op("Shape", planes, start=0, end=2)
        sizes = self.op("Concat", batch, self.constant([side, side], np.int64), axis=0)
        return self.op("Resize", planes, "", "", sizes, mode="linear")

    def highest(self, planes: str) -> str:
        """The largest of the channels: (N, 1, H, W)."""
        return self.op("ReduceMax", planes, axes=[1], keepdims=1)

    def grey(self, rgb: str) -> str:
        """Brightness of RGB planes (ITU-R BT.601)."""
        weights = self.constant(np.array([0.897, 1.761, 0.342]).reshape(1, 3, 1, 1))
        # Three times the weights, for the mean of three planes: cheaper than a convolution.
        return self.op("ReduceMean", self.op("Mul", rgb, weights), axes=[1], keepdims=1)

    def gradient(self, grey: str) -> str:
        """Change across and down, by Sobel's filters: 2 channels."""
        across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8
        kernels = np.stack([across, across.T])[:, None]
        return self.filter(grey, kernels.astype(np.float32))
