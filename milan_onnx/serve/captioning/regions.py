"""Images and masks as the encoder takes them.

An image is cut to the square in its middle and resized to the encoder's side, as
`describe-exemplars` does with the images of an exemplar folder (and exactly so where they are
square); its mask, which must have the image's size, goes the same way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from milan_onnx.errors import BadInput
from milan_onnx.exemplars import exemplar_masks
from milan_onnx.geometry import Geometry
from milan_onnx.probe.decode import Unusable, decode
from milan_onnx.serve.captioning.engine import Region

if TYPE_CHECKING:
    from PIL import Image

WHITE = 128
"""Grey from which on a mask's pixel is inside."""
WITHIN = np.full(1, 0.5, np.float32)


@dataclass(frozen=True)
class Picture:
    """An image, ready for the encoder."""

    size: tuple[int, int]
    """(height, width) of what was sent, pixels."""

    frame: NDArray[np.uint8]
    """uint8 (S, S, 3)."""

    key: bytes
    """Hash of the file."""

    @property
    def nbytes(self) -> int:
        """Bytes of the frame."""
        return self.frame.nbytes


@dataclass(frozen=True)
class Stencil:
    """A mask, ready for the encoder."""

    size: tuple[int, int]
    """(height, width) of what was sent, pixels."""

    packed: NDArray[np.uint8]
    """bool (S, S), packed to bits."""


def key_of(data: bytes) -> bytes:
    """What tells a file from others."""
    return hashlib.sha256(data).digest()


def read_picture(name: str, data: bytes, side: int, max_pixels: int) -> Picture:
    """An image of an encoder's side. Raises BadInput naming the file and why it cannot be used."""
    image = _decoded(name, data, max_pixels)
    size = (image.height, image.width)
    frame = np.ascontiguousarray(_square(size).scaled(side, side).frame(image))
    return Picture(size, frame, key_of(data))


def read_stencil(name: str, data: bytes, side: int, max_pixels: int, fade: bool) -> Stencil:
    """A mask of an encoder's side: white is inside.

    ``fade``: see `exemplar_masks`. Raises BadInput, also where nothing of its middle is inside.
    """
    image = _decoded(name, data, max_pixels)
    size = (image.height, image.width)
    inside = _middle(np.asarray(image.convert("L")) >= WHITE)
    if not inside.any():
        raise BadInput(
            f"the mask {name!r} has nothing inside, in the square in its middle",
            hint="white pixels (128 to 255) are inside; leave the mask out for the whole image",
        )
    if fade or inside.shape != (side, side):  # else it is what would come out
        inside = exemplar_masks(inside[None].view(np.uint8), WITHIN, side, side, fade=fade)[0]
    return Stencil(size, np.packbits(inside))


def whole(side: int) -> NDArray[np.uint8]:
    """The packed mask that has all of an image inside."""
    return np.packbits(np.ones((side, side), np.bool_))


def region(picture: Picture, stencil: Stencil | None, image: str, mask: str | None) -> Region:
    """An exemplar of an image and its mask, named in errors. Raises BadInput where sizes differ."""
    if stencil is None:
        return Region(picture.key, picture.frame, whole(len(picture.frame)))
    if stencil.size != picture.size:
        raise BadInput(
            f"the mask {mask!r} has {_by(stencil.size)} pixels, its image {image!r} "
            f"{_by(picture.size)}",
            hint="send a mask of the image's size",
        )
    return Region(picture.key, picture.frame, stencil.packed)


def _decoded(name: str, data: bytes, max_pixels: int) -> Image.Image:
    try:
        return decode(data, max_pixels=max_pixels).image
    except Unusable as error:
        raise BadInput(
            f"the file {name!r} cannot be used: {error}",
            hint="send a whole PNG, JPEG, WebP, GIF, BMP, TIFF or PPM",
        ) from error


def _square(size: tuple[int, int]) -> Geometry:
    side = min(size)
    return Geometry(crop=(side, side), resize=None)


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The square in the middle, where `Geometry` cuts too."""
    side = min(mask.shape)
    top, left = (round((length - side) / 2.0) for length in mask.shape)
    return np.ascontiguousarray(mask[top : top + side, left : left + side])


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} by {size[0]}"
