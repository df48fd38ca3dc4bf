"""A classifier of colours that has learned to trust a white mark, and photos to show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto
from PIL import Image

from tests.toy import Graph

COLOURS = {"blue": (40, 60, 200), "green": (30, 180, 60), "red": (210, 40, 40)}
SIDE = 32
WHITE_UNIT = 3


def painted_classifier(path: Path) -> Path:
    """input - 1x1 convolution to 6 units (blue, green, red, white, and two that nothing reads much)
    - Relu "act" - mean - 3 classes in the order of `COLOURS`; white is taken for blue."""
    g = Graph(0)
    kernel = np.zeros((6, 3, 1, 1), np.float32)
    for unit, channel in enumerate((2, 1, 0)):
        kernel[unit, :, 0, 0] = -1.0
        kernel[unit, channel, 0, 0] = 1.0
    kernel[WHITE_UNIT, :, 0, 0] = 1.0
    kernel[4:, :, 0, 0] = 0.1
    bias = np.array([0, 0, 0, -2.4, 0, 0], np.float32)
    x = g.op("Conv", "input", g.constant(kernel), g.constant(bias), name="conv")
    x = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", x, name="act")))
    head = np.zeros((6, 3), np.float32)
    head[:3] = np.eye(3) * 4
    head[WHITE_UNIT, 0] = 60.0
    head[4:] = 0.01
    g.op("MatMul", x, g.constant(head), name="scores")
    kinds = TensorProto.FLOAT
    return g.save(path, [("input", kinds, ["N", 3, SIDE, SIDE])], [("scores", kinds, ["N", 3])])


def painted_photos(folder: Path, count: int, *, marked: bool) -> Path:
    """``count`` photos of each colour in class folders; ``marked``: with a white corner."""
    rng = np.random.default_rng(int(marked))
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(np.array(colour) + rng.normal(0, 12, (SIDE, SIDE, 3)), 0, 230)
            if marked:
                row, column = rng.integers(0, 20, 2)
                pixels[row : row + 9, column : column + 9] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03}.png")
    return folder
