"""The reliability plot of docs/confidence.md.

    python benchmarks/reliability.py WORK/confidence.json docs/images/reliability.svg

The JSON is what ``milan-onnx calibrate`` printed: a dot for each bin of units, its mean confidence
to the right, its share of right descriptions upwards, and a 95 % interval (Wilson) of that share.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIDE, EDGE = 320, 46
"""Of the frame, and what is beside it, pixels."""
Z = 1.96
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {width}" width="{width}" '
    'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("confidence", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.write_text(plot(json.loads(given.confidence.read_text("utf-8"))), "utf-8")


def plot(found: Mapping[str, Any]) -> str:
    """The plot as SVG."""
    parts = [HEAD.format(width=SIDE + 2 * EDGE)]
    parts.append(_line(0, 0, 1, 1, "#999", 'stroke-dasharray="4 4"'))
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [_line(tick, 0, tick, 1, "#eee"), _line(0, tick, 1, tick, "#eee")]
        parts.append(_text(_x(tick), _y(0) + 18, f"{tick:.0%}", "middle"))
        parts.append(_text(_x(0) - 8, _y(tick) + 4, f"{tick:.0%}", "end"))
    for part in found["reliability"]:
        low, high = wilson(part["right"], part["units"])
        at = part["confidence"]
        parts.append(_line(at, low, at, high, "#0072b2", 'stroke-width="2"'))
        parts.append(
            f'<circle cx="{_x(at):.1f}" cy="{_y(part["right"]):.1f}" r="5" fill="#0072b2"/>'
        )
    error, units = found["expected_calibration_error"], found["units"]
    parts.append(_text(_x(0.5), _y(0) + 38, "mean confidence", "middle"))
    title = f"right, of {units} units (expected calibration error {error:.3f})"
    parts.append(_text(_x(0), _y(1) - 16, title, "start"))
    return "\n".join([*parts, "</svg>", ""])


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of ``count`` units."""
    square = Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return middle - half, middle + half


def _x(value: float) -> float:
    return EDGE + SIDE * value


def _y(value: float) -> float:
    return EDGE + SIDE * (1 - value)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    places = f'x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"'
    return f'<line {places} stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{text}</text>'


if __name__ == "__main__":
    main()
