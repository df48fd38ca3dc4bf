"""Templates of things, cut from drawings of the built-in probe set's own things."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milan_onnx.planted.forms import TEMPLATE, template_of
from milan_onnx.planted.network import Floats

# Half its height in hundredths of the picture's side, so that it fills a template.
THINGS = {"car": 27.0, "clock": 36.0, "heart": 36.0, "butterfly": 34.0, "star": 40.0}
DRAWINGS = 6
SCALE = 8
SIZES = (0.92, 1.0, 1.08)
"""A template is a little blurred by these, to meet the sizes between those of the pyramid."""


def templates() -> list[Floats]:
    """One template (2, 25, 25) for each of THINGS: the mean edges of a few drawings."""
    return [template_of([_drawing(name, k) for k in range(DRAWINGS)]) for name in THINGS]


def _drawing(name: str, k: int) -> NDArray[np.floating]:
    """A thing on a plain ground, brightness 0..1 (25, 25)."""
    from PIL import Image

    from milan_onnx.probe.synthetic.canvas import Sketch
    from milan_onnx.probe.synthetic.things import THINGS as DRAWN

    side = TEMPLATE * SCALE
    sketch = Sketch(Image.new("RGB", (side, side), (235, 235, 235) if k % 2 else (120, 160, 200)))
    size = THINGS[name] * SIZES[k % len(SIZES)]
    DRAWN[name](np.random.Generator(np.random.Philox(key=k)), sketch, 50, 50, size)
    return np.asarray(sketch.done().convert("L").reduce(SCALE), np.float64) / 255
