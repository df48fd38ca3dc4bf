"""The built-in probe set: which family draws which image, and the probe set over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from milan_onnx.files import sha256_bytes
from milan_onnx.probe.base import Loaded, ProbeSet
from milan_onnx.probe.synthetic import patterns, scenes, shapes, text, textures
from milan_onnx.probe.synthetic.canvas import Recipe, Rng

if TYPE_CHECKING:
    from PIL import Image

Family = Callable[[Rng, int], Recipe]

# One round: the families in the order in which they come, mixed so that any prefix is balanced.
ROUND: tuple[Family, ...] = (
    scenes.scene, textures.surface, shapes.single, patterns.grating, text.word,
    scenes.scene, patterns.solid, textures.surface, shapes.many, scenes.thing,
    patterns.dots, text.glyph, textures.surface, scenes.scene, shapes.ball,
    patterns.blend, scenes.thing, textures.surface, text.sign, patterns.checks,
    scenes.scene, shapes.lines, textures.surface, scenes.thing, patterns.rings,
    text.paragraph, scenes.scene, shapes.two, textures.surface, patterns.grating,
    scenes.thing, text.number, shapes.single, scenes.scene, textures.surface,
    patterns.solid, scenes.thing, text.poster, textures.surface, scenes.scene,
)  # fmt: skip


class SyntheticProbe(ProbeSet):
    """``count`` drawn images of ``size`` by ``size`` pixels.

    Image i depends on (seed, i) alone: a longer set begins with the shorter one.
    """

    def __init__(self, count: int = 1000, seed: int = 0, *, size: int = 256) -> None:
        self.name = "built-in synthetic set"
        self.source = f"synthetic:{count}:seed{seed}"
        self._count = count
        self._seed = seed
        self._size = size

    @cached_property
    def _names(self) -> list[str]:
        return [f"synthetic/{i:04d}-{self._recipe(i).title}.png" for i in range(self._count)]

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Image.Image:
        """Draw image ``index``: RGB."""
        if not 0 <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        return self._recipe(index).paint(self._size)

    def read(self, index: int) -> bytes:
        """The raw RGB pixels of image ``index``."""
        return self.image(index).tobytes()

    def load(self, index: int) -> Loaded:
        """Draw one image; the digest is over its pixels."""
        image = self.image(index)
        return Loaded(image, "", sha256_bytes(image.tobytes()))

    def _recipe(self, index: int) -> Recipe:
        place = index % len(ROUND)
        family = ROUND[place]
        # How many images of this family came before, so that it goes through all its kinds.
        before = index // len(ROUND) * ROUND.count(family) + ROUND[:place].count(family)
        key = np.array([self._seed & (2**64 - 1), index], np.uint64)
        return family(np.random.Generator(np.random.Philox(key=key)), before)
