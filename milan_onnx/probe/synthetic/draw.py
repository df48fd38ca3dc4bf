"""The built-in probe set as a probe set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from milan_onnx.probe.base import MadeProbe

if TYPE_CHECKING:
    from PIL import Image

    from milan_onnx.probe.synthetic.canvas import Recipe


class SyntheticProbe(MadeProbe):
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

    def digest(self, index: int) -> str:
        """What it is drawn of; the program that draws it is not in it."""
        return f"{self._size}:{self._seed}:{index}"

    def _recipe(self, index: int) -> Recipe:
        # Imported with the first drawing: a run on photos needs none of it.
        from milan_onnx.probe.synthetic.families import recipe

        return recipe(self._seed, index)
