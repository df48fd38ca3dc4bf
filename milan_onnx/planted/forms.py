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

LINES = (5, 9)
"""Half distances of parallel lines: a stripe is no box."""

RECTANGLES = ((9, 9), (10, 7), (7, 10), (11, 5), (5, 11))
"""Half width and half height of boxes, pixels of the template."""


def forms(net: Network, grey: str, templates: Sequence[Floats]) -> tuple[str, str, str]:
    """Round things, rectangular things, and what each template shows: 1, 1 and n channels.

    ``templates``: (2, 25, 25) edges as `template_of` gives them.
    """
    boxes = [box(TEMPLATE, *half) for half in RECTANGLES]
    lines = [pair for apart in LINES for pair in bars(TEMPLATE, apart)]
    circle = ring(TEMPLATE, RADIUS)
    levels = []
    for side in SIDES:
        # Two pixels apart are near enough for a template of twenty.
        stride = 2 if side > 30 else 1
        shrunk = net.resize(grey, side)
        round_, rectangular, stripes, shown = _found(
            net, shrunk, ([circle], boxes, lines, templates), stride
        )
        corners, along = net.highest(rectangular), net.highest(stripes)
        found = (
            _better(net, round_, net.op("Max", corners, along)),
            _better(net, corners, net.op("Max", round_, along)),
            _better(net, shown, net.op("Max", round_, corners)),
        )
        spread = net.spread(net.concat(found), 17 // stride | 1)
        levels.append(net.resize(spread, GRID))
    best = net.op("Max", *levels)
    # Good enough is good: then many or large ones come before one small perfect one.
    circles, squares = net.channel(best, 0), net.channel(best, 1)
    things = net.channel(best, 2, len(templates))
    return net.ramp(circles, 0.3, 0.65), net.ramp(squares, 0.3, 0.7), things


def dots(net: Network, grey: str) -> str:
    """Many small round spots: how densely rings of a few pixels match."""
    others = [box(SPOT, *half) for half in ((3, 3), (3.6, 2.2), (2.2, 3.6))]
    others += [diamond(SPOT, 4), *bars(SPOT, 3)]
    circle, many = ring(SPOT, SPOT_RADIUS), np.full(31, 0.25, np.float32)
    found = []
    for side in SPOT_SIDES:
        rings, rivals = _found(net, net.resize(grey, side), ([circle], others), 1)
        spots = _better(net, rings, net.highest(rivals))
        # A spot is counted once, where it matches best: one shining ball is no pattern of dots.
        best = net.ramp(net.op("Sub", spots, net.spread(spots, 5)), -0.02, 0.0)
        counted = net.op("Mul", best, net.ramp(spots, 0.4, 0.8))
        found.append(net.resize(net.window(counted, many, many), GRID))
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


def diamond(side: int, reach: float) -> Floats:
    """The edges of a square that stands on a corner: (2, side, side)."""
    y, x = _places(side)
    strength = np.exp(-((np.abs(x) + np.abs(y) - reach) ** 2) / 3)
    return _unit(np.stack([np.zeros_like(x), strength * np.sign(x * y)]))


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


def _found(net: Network, grey: str, banks: Sequence[Sequence[Floats]], stride: int) -> list[str]:
    """Normalised correlation, 0..1, with the templates (2, k, k) of each bank."""
    bank = np.stack([template for templates in banks for template in templates])
    edges, power = _edges(net, grey)
    window = np.ones(bank.shape[-1], np.float32)
    # Outside there are no edges; a repeated border would draw lines there.
    total = net.window(power, window, window, stride=stride, outside="constant")
    around = net.op("Sqrt", net.plus(total, 1.0))
    filtered = net.filter(edges, bank, stride, outside="constant")
    matches = net.op("Relu", net.op("Div", filtered, around))
    firsts = np.cumsum([0, *map(len, banks)])
    return [net.channel(matches, int(i), len(b)) for i, b in zip(firsts, banks, strict=False)]
