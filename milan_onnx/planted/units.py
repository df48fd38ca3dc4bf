"""Which units are planted, what may rightly be said of each, and the model that holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from milan_onnx.files import write_bytes
from milan_onnx.planted.colours import TONES, colours
from milan_onnx.planted.forms import dots, forms
from milan_onnx.planted.glyphs import glyphs
from milan_onnx.planted.lines import checks, directions, widths
from milan_onnx.planted.network import GRID, SIDE, Network
from milan_onnx.planted.things import THINGS, templates

if TYPE_CHECKING:
    from onnx import ModelProto

PREPROCESSING = {
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": False,
}


@dataclass(frozen=True)
class PlantedUnit:
    """A unit whose meaning is known."""

    layer: str
    """Tensor of the planted model."""

    unit: int
    """Channel of the layer."""

    plants: str
    """What it detects, in plain words."""

    accepted: tuple[str, ...]
    """Phrases that are true of it; `milan_onnx.wording.right` compares."""


def _each(nouns: Sequence[str], before: str) -> tuple[str, ...]:
    return tuple(f"{before} {noun}" for noun in nouns)


def _colour(name: str) -> tuple[str, ...]:
    nouns = ("areas", "regions", "surfaces", "objects", "things", "items", "colors")
    return (name, *_each(nouns, name), f"the color {name}")


def _lines(way: str) -> tuple[str, ...]:
    return _each(("lines", "stripes", "edges", "bars", "striped patterns"), way)


def _stripes(*widths: str) -> tuple[str, ...]:
    nouns = ("lines", "stripes", "bars", "striped patterns")
    return tuple(f"{width} {noun}" for width in widths for noun in nouns)


def _joined(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    """Both, in either order."""
    pairs = [(a, b) for a in one for b in other] + [(b, a) for a in one for b in other]
    return tuple(f"{a} {word} {b}" for a, b in pairs for word in ("and", "or"))


CHECKS = (
    "checks", "checkers", "checkerboards", "checkered patterns", "chequered patterns",
    "checked patterns", "checkered areas", "chessboards", "checkerboard patterns",
    "checkered surfaces", "checkered objects", "checkered things", "chequers",
)  # fmt: skip
DOTS = (
    "dots", "polka dots", "spots", "dotted patterns", "polka dot patterns", "spotted patterns",
    "dotted areas", "polka dotted patterns", "spotted areas", "small circles",
)  # fmt: skip
ROUND = (
    "round objects", "round shapes", "circles", "circular objects", "circular shapes",
    "round things", "round areas", "rounded objects", "round items", "discs",
)  # fmt: skip
STRAIGHT = (
    "rectangles", "rectangular objects", "rectangular shapes", "squares", "square objects",
    "square shapes", "boxes", "rectangular things", "rectangular areas",
)  # fmt: skip
DIGITS = ("digits", "numbers", "numerals")
WORDS = ("words", "letters", "text", "lettering", "writing", "printed words", "printed text")
TEXT = ("text", "writing", "lettering", "characters", *_joined(DIGITS, WORDS))

# Of each layer, each unit with what may be said of it. Only what is true of everything the unit
# answers to counts: neither "patterns" (too broad) nor "red apples" (too narrow) is right for red.
LAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "colours": {name: _colour(name) for name in TONES},
    "lines": {
        "vertical lines": _lines("vertical"),
        "horizontal lines": _lines("horizontal"),
        "diagonal lines": (*_lines("diagonal"), *_lines("slanted")),
        "thin stripes": _stripes("thin", "narrow", "fine"),
        "thick stripes": _stripes("thick", "wide", "broad", "bold"),
    },
    "patterns": {"checks": CHECKS, "dots": DOTS},
    "shapes": {"round shapes": ROUND, "rectangular shapes": STRAIGHT},
    "text": {"digits": DIGITS, "words": WORDS},
    "things": {
        "cars": ("cars", "automobiles"),
        "clocks": ("clocks", "clock faces"),
        "hearts": ("hearts", "heart shapes"),
        "butterflies": ("butterflies",),
        "stars": ("stars", "star shapes"),
    },
    "pairs": {
        "black AND white": (
            "black and white", *_each(("areas", "objects", "patterns"), "black and white"),
        ),
        "red AND hearts": ("red hearts", "red heart shapes"),
        "blue AND stripes": (
            *_each(("stripes", "lines", "striped patterns"), "blue"),
            *_each(("stripes", "lines", "striped patterns"), "blue and white"),
        ),
        "red OR green": _joined(_colour("red"), _colour("green")),
        "digits OR words": TEXT,
        "checks OR dots": _joined(CHECKS, DOTS),
    },
}  # fmt: skip

PLANTED: tuple[PlantedUnit, ...] = tuple(
    PlantedUnit(layer, unit, plants, accepted)
    for layer, units in LAYERS.items()
    for unit, (plants, accepted) in enumerate(units.items())
)
"""All planted units, by layer and channel."""


@cache
def planted_model() -> ModelProto:
    """The model: float32 (N,3,224,224) of 0..1 to layers (N,units,28,28) named as in LAYERS."""
    from onnx import TensorProto, checker, helper

    net = Network()
    _layers(net, "images")
    graph = helper.make_graph(
        net.nodes,
        "planted",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", len(units), GRID, GRID])
            for name, units in LAYERS.items()
        ],
        net.constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="milan-onnx"
    )
    helper.set_model_props(model, {"milan_onnx.preprocessing": json.dumps(PREPROCESSING)})
    checker.check_model(model, full_check=True)
    return model


def save_planted_model(path: Path) -> None:
    """Write the model. Raises OutputUnwritable."""
    write_bytes(path, planted_model().SerializeToString(deterministic=True))


def _layers(net: Network, rgb: str) -> None:
    grey = net.grey(rgb)
    gradient = net.gradient(net.mean(grey, 2))
    tones = net.concat([colours(net, rgb)], name="colours")
    stripes = widths(net, grey)
    net.concat([directions(net, gradient), stripes], name="lines")
    checked, dotted = checks(net, grey, gradient), dots(net, grey)
    net.concat([checked, dotted], name="patterns")
    circles, boxes, things = forms(net, grey, templates())
    # A square of a chequer is part of a pattern, not a shape.
    alone = net.ramp(_around(net, checked), 0.1, 0.02)
    net.concat([circles, net.op("Mul", boxes, alone)], name="shapes")
    text = net.concat([glyphs(net, grey)], name="text")
    net.concat([things], name="things")
    tone = {name: net.channel(tones, channel) for channel, name in enumerate(TONES)}
    hearts = net.channel(things, list(THINGS).index("heart"))
    net.concat(
        [
            net.times(net.op("Min", _around(net, tone["black"]), _around(net, tone["white"])), 2),
            net.op("Min", net.ramp(net.spread(tone["red"], 3), 0, 0.5), hearts),
            net.op("Min", net.ramp(_around(net, tone["blue"]), 0, 0.4), net.highest(stripes)),
            net.op(
                "Max", *(net.ramp(_around(net, tone[name]), 0, 0.9) for name in ("red", "green"))
            ),
            # Scaled so that both parts have as many of the best images.
            net.op("Max", net.channel(text, 0), net.times(net.channel(text, 1), 1.3)),
            net.op("Max", checked, net.times(dotted, 0.36)),
        ],
        name="pairs",
    )


def _around(net: Network, plane: str) -> str:
    """The mean over 40 pixels."""
    return net.mean(plane, 5, stride=1)
