"""How a photo becomes the square (or not) uint8 frame that a network sees: resize, then crop.

A frame is what all parts share: the subject's activations, the exemplar masks, the encoder's view
and the report's thumbnails are all aligned to it. `Geometry.scaled` gives the same view of the
photo at another resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Geometry:
    """Resize and centre crop on uint8 RGB, as torchvision's ``Resize`` and ``CenterCrop`` do."""

    crop: tuple[int, int]
    """(height, width) of the frame, pixels."""

    resize: int | tuple[int, int] | None
    """Shorter side in pixels (aspect kept), or (height, width) exactly, or None: crop only."""

    interpolation: Interpolation = "bilinear"
    """Resampling filter; always antialiased, as Pillow does."""

    def scaled(self, height: int, width: int) -> Geometry:
        """The same view of the photo as a frame of (height, width) pixels."""
        if (height, width) == self.crop:
            return self
        if self.resize is None:
            raise ValueError("a geometry without a resize has no other scale")
        ratio = max(height / self.crop[0], width / self.crop[1])
        if isinstance(self.resize, int):
            return replace(self, crop=(height, width), resize=round(self.resize * ratio))
        resized = (
            max(height, round(self.resize[0] * height / self.crop[0])),
            max(width, round(self.resize[1] * width / self.crop[1])),
        )
        return replace(self, crop=(height, width), resize=resized)

    def frame(self, image: Image.Image) -> NDArray[np.uint8]:
        """The frame of an RGB image: uint8 (height, width, 3). Too small photos are zero-padded."""
        from PIL import Image as Pil

        filters = {
            "nearest": Pil.Resampling.NEAREST,
            "bilinear": Pil.Resampling.BILINEAR,
            "bicubic": Pil.Resampling.BICUBIC,
            "lanczos": Pil.Resampling.LANCZOS,
        }
        size = self._resized(image.height, image.width)
        if size != (image.height, image.width):
            image = image.resize((size[1], size[0]), filters[self.interpolation])
        height, width = self.crop
        top = round((image.height - height) / 2.0)
        left = round((image.width - width) / 2.0)
        if (top, left) != (0, 0) or (image.height, image.width) != self.crop:
            image = image.crop((left, top, left + width, top + height))
        return np.asarray(image, dtype=np.uint8)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if not isinstance(self.resize, int):
            return self.resize
        short, long = min(height, width), max(height, width)
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)
