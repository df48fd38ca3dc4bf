"""Bytes to 8-bit RGB: faithfully, saying what was converted, refusing what cannot be trusted."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

MAX_PIXELS = 64_000_000

# Pillow has readers that start other programs (EPS) or are rarely looked at; files do not choose.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")

MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")

ORIENTATION = 0x0112


class Unusable(Exception):
    """An image that cannot be used; the text is the reason, in a few words."""


@dataclass(frozen=True)
class Decoded:
    """A decoded photo."""

    image: Image.Image
    """RGB, turned upright as its EXIF orientation asks."""

    converted: str
    """What was changed ('16-bit to 8-bit', 'RGBA on white'), or '' for a plain RGB photo."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode one image file.

    Grey becomes RGB, 16 bits are scaled to 8, CMYK and palettes are converted, transparency is
    composited on white, of an animation the first frame is taken.

    Raises Unusable for an empty, broken or truncated file, an unknown format, and an image of more
    than ``max_pixels`` pixels (found in its header, before anything is decoded).
    """
    silence_pillow()
    image = _open(data, max_pixels)
    # Pillow's readers raise nearly anything on broken bytes, so what is caught is everything.
    try:
        frames = _frames_note(image)
        image.load()
        image, note = _to_rgb(image)
        return Decoded(image, ", ".join(part for part in (frames, note) if part))
    except Unusable:
        raise
    except Exception as error:
        raise _broken(error) from error


def silence_pillow() -> None:
    """Keep Pillow's warnings about odd files off the terminal: the reason is reported instead.

    A filter that stays, because ``warnings.catch_warnings`` must not be used in several threads.
    """
    pattern = r"PIL\."
    for category in (UserWarning, RuntimeWarning):
        entry = ("ignore", None, category, re.compile(pattern), 0)
        if entry not in warnings.filters:
            warnings.filterwarnings("ignore", category=category, module=pattern)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    from PIL import Image as Pil
    from PIL import UnidentifiedImageError

    if not data:
        raise Unusable("empty file")
    try:
        image = Pil.open(BytesIO(data), formats=FORMATS)
    except Pil.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_many(int(found[1]) if found else None, max_pixels) from error
    except UnidentifiedImageError as error:
        raise Unusable(_unidentified(data)) from error
    except Exception as error:
        raise _broken(error) from error
    if image.width * image.height > max_pixels:
        raise _too_many(image.width * image.height, max_pixels)
    if not image.width or not image.height:
        raise Unusable("an image without pixels")
    return image


def _too_many(pixels: int | None, limit: int) -> Unusable:
    size = f"{pixels / 1e6:.0f} Mpx" if pixels else "its size"
    return Unusable(f"{size} is over the limit of {limit / 1e6:.0f} Mpx")


def _unidentified(data: bytes) -> str:
    head = data[:512]
    if head.startswith(MAGIC):
        return "broken file (unreadable header)"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "a text file, not an image"
    return "not an image of a supported format"


def _broken(error: Exception) -> Unusable:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "truncated" in text.lower():
        return Unusable("truncated file")
    return Unusable(f"broken file ({text[:80]})")


def _frames_note(image: Image.Image) -> str:
    # A phone's MPO also has several pictures, but it is a JPEG with extras, not an animation.
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return ""
    return "first of several frames"


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """An RGB image the right way up, with the note on what was converted."""
    turn = _orientation(image)
    rgb, note = _convert(image)
    return (rgb.transpose(turn) if turn is not None else rgb), note


def _convert(image: Image.Image) -> tuple[Image.Image, str]:
    mode = image.mode
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image, "transparent " + mode if "A" not in mode.upper() else mode)
    if mode == "RGB":
        return image, ""
    if mode.startswith("I;16"):
        return _grey8(_scaled16(np.asarray(image))), "16-bit to 8-bit"
    if mode in ("I", "F"):
        return _wide(np.asarray(image))
    notes = {"L": "1-channel to RGB", "1": "1-bit to RGB", "P": "palette to RGB"}
    return image.convert("RGB"), notes.get(mode, f"{mode} to RGB")


def _on_white(image: Image.Image, mode: str) -> tuple[Image.Image, str]:
    from PIL import Image as Pil

    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        note = "" if image.mode in ("RGB", "RGBA") else f"{mode} to RGB"
        return image.convert("RGB"), note
    white = Pil.new("RGB", image.size, (255, 255, 255))
    white.paste(rgba.convert("RGB"), mask=alpha)
    return white, f"{mode} on white"


def _scaled16(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded to the nearest."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _wide(values: NDArray[np.generic]) -> tuple[Image.Image, str]:
    """Integers of 32 bits and floats: those that fit 16 bits as such, others by their range."""
    kind = "32-bit" if values.dtype.kind in "iu" else "float"
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    if kind == "32-bit" and low >= 0 and high <= 65535:
        return _grey8(_scaled16(values)), "16-bit to 8-bit"
    if kind == "float" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
        note = "float to 8-bit"
    else:
        note = f"{kind} stretched to 8-bit"
    scaled = (numbers - low) * (255 / max(high - low, 1e-30))
    return _grey8(np.rint(scaled).astype(np.uint8)), note


def _grey8(values: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image as Pil

    return Pil.fromarray(values).convert("RGB")


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """How to turn the image upright; nothing when its EXIF is absent or broken."""
    from PIL import Image as Pil

    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:
        return None
    return {
        2: Pil.Transpose.FLIP_LEFT_RIGHT,
        3: Pil.Transpose.ROTATE_180,
        4: Pil.Transpose.FLIP_TOP_BOTTOM,
        5: Pil.Transpose.TRANSPOSE,
        6: Pil.Transpose.ROTATE_270,
        7: Pil.Transpose.TRANSVERSE,
        8: Pil.Transpose.ROTATE_90,
    }.get(orientation or 1)
