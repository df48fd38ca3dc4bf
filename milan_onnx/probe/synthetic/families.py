"""Which family of drawings an image of the built-in set belongs to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from milan_onnx.probe.synthetic import patterns, scenes, shapes, text, textures
from milan_onnx.probe.synthetic.canvas import Recipe, Rng

Family = Callable[[Rng, int], Recipe]

# One round: the families in the order in which they come, mixed so that any prefix is balanced.
ROUND: tuple[Family, ...] = (
    scenes.scene, textures.surface, shapes.single, patterns.grating, text.word,
    scenes.scene, patterns.solid, textures.surface, shapes.many, scenes.several,
    patterns.stripes, text.glyph, scenes.scene, patterns.chequers, shapes.ball,
    scenes.thing, textures.surface, patterns.dots, text.sign, scenes.several,
    patterns.blend, text.number, textures.surface, patterns.stripes, shapes.lines,
    scenes.scene, patterns.checks, textures.surface, scenes.thing, patterns.rings,
    text.paragraph, scenes.scene, shapes.two, textures.surface, patterns.grating,
    scenes.several, patterns.dots, text.number, shapes.single, textures.surface,
    scenes.scene, patterns.chequers, scenes.thing, text.poster, patterns.solid,
    textures.surface, scenes.several, patterns.stripes, scenes.scene, shapes.ball,
)  # fmt: skip


def recipe(seed: int, index: int) -> Recipe:
    """What image ``index`` of the set ``seed`` is."""
    place = index % len(ROUND)
    family = ROUND[place]
    # How many images of this family came before, so that it goes through all its kinds.
    before = index // len(ROUND) * ROUND.count(family) + ROUND[:place].count(family)
    key = np.array([seed & (2**64 - 1), index], np.uint64)
    return family(np.random.Generator(np.random.Philox(key=key)), before)
