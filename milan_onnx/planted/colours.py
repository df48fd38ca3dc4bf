"""Detectors of colours: gates on hue, saturation and brightness, as people use the words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from milan_onnx.planted.network import Network

Gate = tuple[float, float]
"""Where a ramp is 0 and where it is 1."""


@dataclass(frozen=True)
class Tone:
    """What counts as a colour; saturation and value are HSV's, 0..1."""

    hue: Gate | None
    """Middle and half width in degrees; None: any."""

    saturation: tuple[Gate, ...]
    """Gates, all of which must be open."""

    value: tuple[Gate, ...]
    """Gates, all of which must be open."""


TONES = {
    "red": Tone((0, 20), ((0.55, 0.75),), ((0.45, 0.7),)),
    "orange": Tone((28, 14), ((0.55, 0.75),), ((0.7, 0.85),)),
    "yellow": Tone((52, 16), ((0.5, 0.7),), ((0.65, 0.85),)),
    "green": Tone((125, 45), ((0.35, 0.6),), ((0.25, 0.5),)),
    "blue": Tone((222, 32), ((0.45, 0.7),), ((0.3, 0.55),)),
    "purple": Tone((281, 26), ((0.35, 0.6),), ((0.25, 0.5),)),
    "pink": Tone((340, 28), ((0.2, 0.4), (0.8, 0.6)), ((0.75, 0.9),)),
    "brown": Tone((25, 18), ((0.3, 0.55),), ((0.2, 0.35), (0.68, 0.5))),
    "black": Tone(None, (), ((0.2, 0.1),)),
    "white": Tone(None, ((0.12, 0.03),), ((0.85, 0.95),)),
    "gray": Tone(None, ((0.15, 0.05),), ((0.3, 0.45), (0.72, 0.6))),
}


def colours(net: Network, rgb: str) -> str:
    """Share of each colour of TONES around each position; ``rgb`` (N,3,224,224), 0..1."""
    small = net.mean(rgb, 2)
    high = net.highest(small)
    low = net.op("ReduceMin", small, axes=[1], keepdims=1)
    saturation = net.ratio(net.op("Sub", high, low), high)
    # Hue as a unit vector: red points along the first axis.
    wheel = net.mix(small, [[1, -0.5, -0.5], [0, math.sqrt(0.75), -math.sqrt(0.75)]])
    length = net.op("ReduceL2", wheel, axes=[1], keepdims=1)
    turned = net.ratio(wheel, length)
    tones = [_tone(net, tone, turned, saturation, high) for tone in TONES.values()]
    return net.mean(net.mean(net.concat(tones), 4), 3, stride=1)


def _tone(net: Network, tone: Tone, hue: str, saturation: str, value: str) -> str:
    gates = [net.ramp(saturation, *gate) for gate in tone.saturation]
    gates += [net.ramp(value, *gate) for gate in tone.value]
    if tone.hue is not None:
        middle, width = (math.radians(angle) for angle in tone.hue)
        closeness = net.mix(hue, [[math.cos(middle), math.sin(middle)]])
        gates.append(net.ramp(closeness, math.cos(width), 1.0))
    product = gates[0]
    for gate in gates[1:]:
        product = net.op("Mul", product, gate)
    return product
