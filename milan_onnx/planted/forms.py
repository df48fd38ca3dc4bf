"""Detectors of forms: matched filters on the directions of edges, at many sizes.

An edge's direction is taken with its angle doubled, so that light on dark and dark on light are
one. A template is compared by its normalised correlation with what is around a position, and a
match is spread over the whole of what it matched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milan_onnx.planted.network import GRID, Floats, Network

TEMPLATE = 25
"""Side of a template, pixels."""

RADIUS = 9
"""Of the ring in a template."""

SIDES = (104, 80, 62, 48, 37, 29)
"""Sides to which the frame is shrunk, so that a template meets things of many sizes."""

SPOT = 9
SPOT_RADIUS = 3
SPOT_SIDES = (112, 80, 57, 40)

FAINT = 0.15
"""An edge of this much change a pixel counts half: strong ones shall not outdo the others."""

RECTANGLES = ((9, 9), (10, 7), (7, 10), (11, 5), (5, 11))
"""Half width and half height of boxes, pixels of the template."""


def forms(net: Network, grey: str, templates: Sequence[Floats]) -> tuple[str, str, str]:
    """Round things, rectangular things, and what each template shows: 1, 1 and n channels.

    ``templates``: (2, 25, 25) edges as `edges_of` gives them.
    """
    boxes = [box(TEMPLATE, *half) for half in RECTANGLES]
    bank = np.stack([ring(TEMPLATE, RADIUS), *bars(TEMPLATE, RADIUS), *boxes, *templates])
    levels: dict[str, list[str]] = {"round": [], "straight": [], "things": []}
    for side in SIDES:
        # Two pixels apart are near enough for a template of twenty.
        stride = 2 if side > 30 else 1
        found = _matches(net, net.resize(grey, side), bank, stride)
        circle, lines = net.channel(found, 0), net.highest(net.channel(found, 1, 2))
        corners = net.highest(net.channel(found, 3, len(boxes)))
        things = net.channel(found, 3 + len(boxes), len(templates))
        for name, match, other in (
            ("round", circle, net.op("Max", corners, lines)),
            ("straight", corners, net.op("Max", circle, lines)),
            ("things", things, net.op("Max", circle, corners)),
        ):
            levels[name].append(_placed(net, _better(net, match, other), 17 // stride | 1))
    circles, straight, things = (net.op("Max", *planes) for planes in levels.values())
    return circles, straight, things


def dots(net: Network, grey: str) -> str:
    """Many small round spots: how densely rings of a few pixels match."""
    bank = [
        ring(SPOT, SPOT_RADIUS),
        *(box(SPOT, *half) for half in ((3, 3), (3.6, 2.2), (2.2, 3.6))),
    ]
    found = []
    for side in SPOT_SIDES:
        match = _matches(net, net.resize(grey, side), np.stack(bank), 1)
        spots = _better(net, net.channel(match, 0), net.highest(net.channel(match, 1, 3)))
        # A spot is counted once, where it matches best: one shining ball is no pattern of dots.
        best = net.ramp(net.op("Sub", spots, net.spread(spots, 5)), -0.02, 0.0)
        counted = net.op("Mul", best, net.ramp(spots, 0.4, 0.8))
        density = net.window(
            counted, 1, np.full(31, 0.25, np.float32), np.full(31, 0.25, np.float32)
        )
        found.append(net.resize(density, GRID))
    return net.op("Max", *found)


def _better(net: Network, match: str, other: str) -> str:
    """A match, where it is better than another."""
    return net.op("Mul", match, net.ramp(net.op("Sub", match, other), -0.05, 0.1))


def ring(side: int, radius: float) -> Floats:
    """The edges of a circle: (2, side, side)."""
    y, x = _places(side)
    strength = np.exp(-((np.hypot(x, y) - radius) ** 2) / 1.5)
    angle = 2 * np.arctan2(y, x)
    return _unit(np.stack([strength * np.cos(angle), strength * np.sin(angle)]))


def box(side: int, width: float, height: float) -> Floats:
    """The edges of a box of such half width and half height: (2, side, side)."""
    y, x = _places(side)
    upright = np.exp(-((np.abs(x) - width) ** 2) / 1.5) * (np.abs(y) <= height)
    level = np.exp(-((np.abs(y) - height) ** 2) / 1.5) * (np.abs(x) <= width)
    return _unit(np.stack([upright - level, np.zeros_like(x)]))


def bars(side: int, apart: float) -> tuple[Floats, Floats]:
    """Two upright edges and two level ones, from border to border: (2, side, side) each."""
    y, x = _places(side)
    upright, level = (np.exp(-((np.abs(v) - apart) ** 2) / 1.5) for v in (x, y))
    zero = np.zeros_like(x)
    return _unit(np.stack([upright, zero])), _unit(np.stack([-level, zero]))


def edges_of(grey: NDArray[np.floating]) -> Floats:
    """Strength and doubled angle of the edges of a picture (h, w): (2, h, w), not normalised.

    The same as `_edges` computes in the graph, to cut templates with.
    """
    padded = np.pad(grey.astype(np.float64), 1, mode="edge")
    smooth = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    across = (smooth[:, 2:] - smooth[:, :-2]) / 8
    smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    down = (smooth[2:] - smooth[:-2]) / 8
    length = np.sqrt(across**2 + down**2 + 1e-6)
    angle = np.stack([across**2 - down**2, 2 * across * down]) / length**2
    return np.asarray(angle * length / (length + FAINT), np.float32)


def template_of(pictures: Sequence[NDArray[np.floating]]) -> Floats:
    """The mean of the edges of several pictures (h, w) of one thing, as a matched filter."""
    edges = np.stack([_unit(edges_of(picture)) for picture in pictures])
    return _unit(np.mean(edges, axis=0))


def _places(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    line = np.arange(side, dtype=np.float64) - side // 2
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def _unit(kernel: NDArray[np.floating]) -> Floats:
    return np.asarray(kernel / np.sqrt((kernel**2).sum()), np.float32)


def _edges(net: Network, grey: str) -> tuple[str, str]:
    """Strength and doubled angle of edges (2 channels), and the squared strength."""
    gradient = net.gradient(grey)
    across, down = net.channel(gradient, 0), net.channel(gradient, 1)
    squares = net.op("Mul", gradient, gradient)
    power = net.plus(net.mix(squares, [[1, 1]]), 1e-6)
    doubled = [net.mix(squares, [[1, -1]]), net.times(net.op("Mul", across, down), 2)]
    length = net.op("Sqrt", power)
    strength = net.ratio(length, length, FAINT)
    turned = net.op("Div", net.op("Mul", net.concat(doubled), strength), power)
    return turned, net.op("Mul", strength, strength)


def _matches(net: Network, grey: str, bank: Floats, stride: int) -> str:
    """Normalised correlation, 0..1, with each template of ``bank`` (n, 2, k, k)."""
    edges, power = _edges(net, grey)
    window = np.ones(bank.shape[-1], np.float32)
    around = net.op("Sqrt", net.plus(net.window(power, 1, window, window, stride), 1.0))
    return net.op("Relu", net.op("Div", net.filter(edges, bank, stride), around))


def _placed(net: Network, found: str, size: int) -> str:
    """Matches spread over what they matched, on the common grid."""
    return net.resize(net.spread(found, size), GRID)
