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

# A resized photo of more pixels is never made whole: only the part under the crop is.
WHOLE_PIXELS = 16_000_000

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

    output: tuple[int, int] | None = None
    """(height, width) to which the crop is resized at the end; None: it stays as it is."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self.output or self.crop

    def scaled(self, height: int, width: int) -> Geometry:
        """The same view of the photo as a frame of (height, width) pixels."""
        if (height, width) == self.size:
            return self
        if self.resize is None or self.output is not None:
            return replace(self, output=None if (height, width) == self.crop else (height, width))
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

        method = Pil.Resampling[self.interpolation.upper()]
        resized = self._resized(image.height, image.width)
        top, left = map(_offset, resized, self.crop)
        if resized[0] * resized[1] > WHOLE_PIXELS:
            image, top, left = _resized_part(image, resized, (top, left), self.crop, method)
        elif resized != (image.height, image.width):
            image = image.resize((resized[1], resized[0]), method)
        height, width = self.crop
        if (top, left) != (0, 0) or (image.height, image.width) != self.crop:
            image = image.crop((left, top, left + width, top + height))
        if self.output not in (None, self.crop):
            image = image.resize((self.size[1], self.size[0]), method)
        return np.asarray(image, dtype=np.uint8)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if not isinstance(self.resize, int):
            return self.resize
        short, long = min(height, width), max(height, width)
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)


def _offset(length: int, crop: int) -> int:
    """Where the centre crop begins; negative where the photo is too small and is padded."""
    # torchvision pads first, the odd pixel after the photo, and rounds only for real crops.
    return round((length - crop) / 2.0) if length >= crop else -((crop - length) // 2)


def _resized_part(
    image: Image.Image,
    resized: tuple[int, int],
    offset: tuple[int, int],
    crop: tuple[int, int],
    method: Image.Resampling,
) -> tuple[Image.Image, int, int]:
    """The part of the resized image that the crop keeps, and the crop's offset in it.

    A photo of one by ten thousand pixels would otherwise be resized to gigabytes.
    """
    (y0, y1), (x0, x1) = (
        (max(0, start), min(length, start + kept))
        for length, start, kept in zip(resized, offset, crop, strict=True)
    )
    scale_y, scale_x = image.height / resized[0], image.width / resized[1]
    box = (x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)
    part = image.resize((x1 - x0, y1 - y0), method, box=box)
    return part, offset[0] - y0, offset[1] - x0


def interpolate(
    values: NDArray[np.float32], size: int, axis: int, *, padded: bool = False
) -> NDArray[np.float32]:
    """Bilinear resize along one axis to ``size``: half-pixel centres, clamped, without antialias.

    ``padded``: the first and last values lie outside the map, and are what is beyond its border.
    """
    source = values.shape[axis] - 2 * padded
    if source == size and not padded:
        return values
    # low + share * (high - low) gives exactly the value where neighbours are equal (plateaus).
    place = (np.arange(size) + 0.5) * (source / size) - 0.5 + padded
    low = np.floor(place)
    share = (place - low).astype(np.float32)
    last = values.shape[axis] - 1
    below = np.take(values, np.clip(low, 0, last).astype(np.int64), axis=axis)
    above = np.take(values, np.clip(low + 1, 0, last).astype(np.int64), axis=axis)
    shape = [1] * values.ndim
    shape[axis] = size
    return np.asarray(below + share.reshape(shape) * (above - below), dtype=np.float32)
