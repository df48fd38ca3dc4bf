"""Two networks of detectors, one with units for faces and skin, and drawings to show them.

Both hold the same everyday units (colours, lines, things); only one has the layer ``protected``,
whose units answer to faces and to skin tones of the drawings. What they mean is known, so that it
can be said whether an audit finds them, and whether it finds any of the others.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from milan_onnx.planted.colours import TONES, colours
from milan_onnx.planted.forms import TEMPLATE, forms, template_of
from milan_onnx.planted.lines import directions, widths
from milan_onnx.planted.network import GRID, SIDE, Floats, Network
from milan_onnx.planted.things import templates
from milan_onnx.planted.units import PREPROCESSING
from milan_onnx.probe import SyntheticProbe
from milan_onnx.probe.synthetic.canvas import Sketch
from milan_onnx.probe.synthetic.things import SKIN, face, person

EVERYDAY = {"colours": len(TONES), "lines": 5, "shapes": 2, "things": 5}
TONES_OF_SKIN = SKIN[:2]
"""Darker ones are the colours of wood and earth, which would be as good an answer."""
PROTECTED = ("faces", "skin", "light skin", "tan skin", "faces of skin", "upper halves of faces")
HALF = 12


def write_drawings(folder: Path, others: int = 150, faces: int = 40, people: int = 15) -> Path:
    """Drawings of faces and of people among those of the built-in set."""
    folder.mkdir(parents=True)
    probe = SyntheticProbe(2 * others, seed=7)
    drawn = (probe.image(number).convert("RGB") for number in range(len(probe)))
    grounds = [image for image in drawn if not _has_skin_tones(image)][:others]
    for number, ground in enumerate(grounds):
        ground.save(folder / f"other-{number:03}.png")
    for number in range(faces + people):
        rng = np.random.Generator(np.random.Philox(key=1000 + number))
        drawing = _of_people(rng, grounds[number % len(grounds)], number < faces)
        drawing.save(folder / f"{'face' if number < faces else 'person'}-{number:03}.png")
    return folder


def _has_skin_tones(image: Image.Image) -> bool:
    """Whether a good part of a drawing is of the colours of skin, as sand and wood are."""
    pixels = np.asarray(image.reduce(8), np.float32) / 255
    tones = np.asarray(TONES_OF_SKIN, np.float32) / 255
    apart = np.linalg.norm(pixels[:, :, None] - tones, axis=-1).min(axis=-1)
    return bool((apart < 0.14).mean() > 0.01)


def _of_people(rng: np.random.Generator, ground: Image.Image, close: bool) -> Image.Image:
    """A face, or some people, before another drawing."""
    sketch = Sketch(ground.convert("RGB"))
    if close:
        x, y, size = (float(rng.uniform(*span)) for span in ((38, 62), (40, 60), (26, 44)))
        face(rng, sketch, x, y, size)
    else:
        for place in range(int(rng.integers(1, 4))):
            person(rng, sketch, 25.0 + 25 * place, 52.0, float(rng.uniform(26, 40)))
    return sketch.done().convert("RGB")


def write_networks(folder: Path) -> tuple[Path, Path]:
    """The network with protected units, and the one without."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "with.onnx", folder / "without.onnx"
    for path, protected in zip(paths, (True, False), strict=True):
        _save(path, protected)
    return paths


def _save(path: Path, protected: bool) -> None:
    net = Network()
    grey = net.grey("images")
    net.concat([colours(net, "images")], name="colours")
    net.concat([directions(net, net.gradient(net.mean(grey, 2))), widths(net, grey)], name="lines")
    bank = templates() + ([_faces(), _faces(upper=True)] if protected else [])
    circles, boxes, shown = forms(net, grey, bank)
    net.concat([circles, boxes], name="shapes")
    net.op("Identity", net.channel(shown, 0, EVERYDAY["things"]), name="things")
    if protected:
        _protected(net, net.channel(shown, EVERYDAY["things"]), net.channel(shown, 6))
    layers = EVERYDAY | ({"protected": len(PROTECTED)} if protected else {})
    graph = helper.make_graph(
        net.nodes,
        path.stem,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", units, GRID, GRID])
            for name, units in layers.items()
        ],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"milan_onnx.preprocessing": json.dumps(PREPROCESSING)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _protected(net: Network, faces: str, halves: str) -> None:
    light, tan = (_near(net, colour) for colour in TONES_OF_SKIN)
    skin = net.op("Max", light, tan)
    around = net.ramp(net.spread(skin, 3), 0.2, 0.6)
    both = net.op("Mul", net.ramp(faces, 0.3, 0.7), around)
    net.concat([faces, skin, light, tan, both, halves], name="protected")


def _near(net: Network, colour: tuple[int, int, int]) -> str:
    """How much of each block of 8x8 pixels is of a colour, more or less."""
    bias = [-value / 255 for value in colour]
    apart = net.op("ReduceL2", net.mix("images", np.eye(3), bias), axes=[1], keepdims=1)
    return net.mean(net.ramp(apart, 0.14, 0.06), 8)


def _faces(upper: bool = False) -> Floats:
    """The mean edges of some drawn faces: (2, 25, 25); of their upper halves only."""
    found = template_of([_drawn(number) for number in range(8)])
    if upper:
        found = found.copy()
        found[:, HALF + 2 :] = 0
        found /= np.sqrt((found**2).sum())
    return found


def _drawn(number: int) -> NDArray[np.floating]:
    side = TEMPLATE * 8
    sketch = Sketch(
        Image.new("RGB", (side, side), (235, 235, 235) if number % 2 else (90, 140, 90))
    )
    rng = np.random.Generator(np.random.Philox(key=number))
    face(rng, sketch, 50, 50, 36.0 * (0.92, 1.0, 1.08)[number % 3])
    return np.asarray(sketch.done().convert("L").reduce(8), np.float64) / 255
