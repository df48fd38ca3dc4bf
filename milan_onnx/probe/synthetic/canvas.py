"""What all drawings share: colours by name, smooth noise, gradients, an antialiased sketch pad."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

T = TypeVar("T")
Rgb = tuple[int, int, int]
Point = tuple[float, float]
Field = NDArray[np.floating[Any]]
Rng = np.random.Generator

COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "green": (44, 150, 62),
    "blue": (38, 84, 200),
    "yellow": (250, 214, 40),
    "orange": (244, 130, 32),
    "purple": (126, 52, 160),
    "pink": (244, 134, 172),
    "brown": (122, 76, 42),
    "black": (18, 18, 20),
    "white": (246, 246, 244),
    "gray": (128, 128, 130),
    "cyan": (56, 190, 204),
}

# Drawn at this multiple of the size and averaged down, which is the antialiasing.
SCALE = 2


@dataclass(frozen=True)
class Recipe:
    """An image that is decided on but not drawn yet."""

    title: str
    """What is in it, in words joined by hyphens."""

    paint: Callable[[int], Image.Image]
    """Draws it at a size in pixels; to be called once, for it goes on with the recipe's numbers."""


def pick(rng: Rng, options: Sequence[T]) -> T:
    """One of several."""
    return options[int(rng.integers(len(options)))]


def chance(rng: Rng, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def colour(name: str) -> Rgb:
    """A colour by name, with 'light-' or 'dark-' before it where wanted."""
    shade, _, base = name.rpartition("-")
    return tint(COLOURS[base], {"light": 0.5, "dark": -0.45}.get(shade, 0.0))


def tint(rgb: Rgb, amount: float) -> Rgb:
    """Towards white (amount up to 1) or black (down to -1)."""
    target = 255 if amount > 0 else 0
    return mix(rgb, (target, target, target), abs(amount))


def mix(a: Rgb, b: Rgb, amount: float) -> Rgb:
    """From a (0) to b (1)."""
    r, g, c = (round(x + (y - x) * amount) for x, y in zip(a, b, strict=True))
    return r, g, c


def vary(rng: Rng, rgb: Rgb, amount: int = 14) -> Rgb:
    """A colour near this one."""
    shift = rng.integers(-amount, amount + 1, 3)
    r, g, b = (min(255, max(0, x + int(d))) for x, d in zip(rgb, shift, strict=True))
    return r, g, b


def shades(rng: Rng, rgb: Rgb, count: int, spread: float, amount: int = 16) -> list[Rgb]:
    """``count`` variations of a colour, of few distinct ones: for drawings of many small parts."""
    tones = [tint(vary(rng, rgb, amount), float(rng.uniform(-spread, spread))) for _ in range(24)]
    return [tones[k] for k in rng.integers(0, 24, count).tolist()]


def contrasting(rng: Rng, first: str) -> str:
    """The name of a colour that stands out from another."""
    a = np.array(COLOURS[first], np.float32)
    far = [n for n, c in COLOURS.items() if float(np.abs(a - np.array(c)).sum()) > 190]
    return pick(rng, far)


@lru_cache(maxsize=8)
def axes(size: int) -> tuple[Field, Field]:
    """y and x of pixel centres, -1 to 1: each (size, size)."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def noise(
    rng: Rng, size: int, cells: int, *, octaves: int = 1, stretch: tuple[int, int] = (1, 1)
) -> Field:
    """Smooth noise in 0..1, (size, size): ``cells`` blobs a side, finer ones with each octave.

    ``stretch`` multiplies the cells down and across, for streaks.
    """
    from PIL import Image

    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        shape = [min(size, max(2, (cells << octave) * s)) for s in stretch]
        grid = rng.random(shape, dtype=np.float32)
        scaled = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        total += np.asarray(scaled) * np.float32(0.5**octave)
    low, high = float(total.min()), float(total.max())
    return (total - np.float32(low)) / np.float32(max(high - low, 1e-6))


def ramp(values: Field, *stops: Rgb) -> Image.Image:
    """Colour a field of 0..1 along evenly spaced stops."""
    from PIL import Image

    steps = np.linspace(0, 255, len(stops))
    table = np.stack([np.interp(np.arange(256), steps, c) for c in zip(*stops, strict=True)], 1)
    index = Image.fromarray(np.clip(values * 255, 0, 255).astype(np.uint8))
    lookups = np.rint(table).astype(int).T.tolist()
    return Image.merge("RGB", [index.point(lookup) for lookup in lookups])


def shaded(image: Image.Image, field: Field, strength: float) -> Image.Image:
    """Lighten and darken an image by a field of 0..1 around its middle."""
    from PIL import Image

    # Fixed point with seven bits after the point: several times faster than floats.
    factor = (128.5 + (field - 0.5) * (256 * strength)).astype(np.uint16)
    pixels = np.asarray(image, np.uint16) * factor[..., None] >> 7
    return Image.fromarray(np.minimum(pixels, 255).astype(np.uint8))


def grained(rng: Rng, image: Image.Image, amount: float = 0.03) -> Image.Image:
    """A little film grain, so that nothing is mathematically flat."""
    return shaded(image, rng.random((image.height, image.width), dtype=np.float32), amount)


def gradient(size: int, *stops: Rgb, angle: float = 90.0) -> Image.Image:
    """A linear gradient; 90 runs from the top down, 0 from left to right."""
    y, x = axes(size)
    turn = math.radians(angle)
    along = x * np.float32(math.cos(turn)) + y * np.float32(math.sin(turn))
    reach = np.float32(abs(math.cos(turn)) + abs(math.sin(turn)))
    return ramp((along / reach + 1) * np.float32(0.5), *stops)


def polar(cx: float, cy: float, radius: float, count: int, turn: float = 0.0) -> list[Point]:
    """Corners of a regular polygon; turn 0 puts the first at the top."""
    angles = [math.radians(turn - 90 + 360 * k / count) for k in range(count)]
    return [(cx + radius * math.cos(a), cy + radius * math.sin(a)) for a in angles]


class Sketch:
    """Antialiased drawing in units of a hundredth of the side; (0, 0) is the top left corner."""

    def __init__(self, ground: Image.Image) -> None:
        from PIL import Image, ImageDraw

        self._size = ground.width
        big = (self._size * SCALE, self._size * SCALE)
        self._image = ground.resize(big, Image.Resampling.NEAREST)
        self._draw: ImageDraw.ImageDraw = ImageDraw.Draw(self._image)
        self._unit = self._size * SCALE / 100

    def done(self) -> Image.Image:
        """The finished image at its own size."""
        return self._image.reduce(SCALE)

    def polygon(self, points: Sequence[Point], fill: Rgb) -> None:
        """A filled polygon."""
        self._draw.polygon(self._scaled(points), fill=fill)

    def line(self, points: Sequence[Point], fill: Rgb, width: float = 1.0) -> None:
        """Joined lines with round ends."""
        scaled = self._scaled(points)
        self._draw.line(scaled, fill=fill, width=self._thick(width), joint="curve")
        for x, y in points:
            self.circle(x, y, width / 2, fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        """A filled rectangle."""
        self._draw.rectangle(self._scaled([(x0, y0), (x1, y1)]), fill=fill)

    def rounded(self, x0: float, y0: float, x1: float, y1: float, radius: float, fill: Rgb) -> None:
        """A filled rectangle with round corners."""
        corners = self._scaled([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle(corners, radius * self._unit, fill=fill)

    def circle(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        """A filled circle."""
        self.ellipse(x, y, radius, radius, fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Rgb) -> None:
        """A filled ellipse."""
        self._draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Rgb) -> None:
        """A circle's outline."""
        corners = self._scaled([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse(corners, outline=fill, width=self._thick(width))

    def arc(
        self,
        x: float,
        y: float,
        radius: float,
        start: float,
        end: float,
        fill: Rgb,
        width: float = 1.0,
    ) -> None:
        """A part of a circle's outline, degrees clockwise from three o'clock."""
        corners = self._scaled([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.arc(corners, start, end, fill=fill, width=self._thick(width))

    def _thick(self, width: float) -> int:
        return max(1, round(width * self._unit))

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._unit, y * self._unit) for x, y in points]
