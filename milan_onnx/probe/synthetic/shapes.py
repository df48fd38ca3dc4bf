"""Plain shapes: one or many, filled or in outline, flat or round as a ball."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from milan_onnx.probe.synthetic.canvas import (
    COLOURS,
    Point,
    Recipe,
    Rgb,
    Rng,
    Sketch,
    axes,
    colour,
    contrasting,
    pick,
    polar,
    tint,
    vary,
)
from milan_onnx.probe.synthetic.textures import ground

if TYPE_CHECKING:
    from PIL import Image

NAMES = list(COLOURS)


def circle(x: float, y: float, r: float, turn: float) -> list[Point]:
    return polar(x, y, r, 60)


def ellipse(x: float, y: float, r: float, turn: float) -> list[Point]:
    return _turned(x, y, turn, [(u * 1.25, v * 0.65) for u, v in polar(0, 0, r, 60)])


def square(x: float, y: float, r: float, turn: float) -> list[Point]:
    return polar(x, y, r, 4, turn + 45)


def rectangle(x: float, y: float, r: float, turn: float) -> list[Point]:
    w, h = r * 1.2, r * 0.55
    return _turned(x, y, turn, [(-w, -h), (w, -h), (w, h), (-w, h)])


def triangle(x: float, y: float, r: float, turn: float) -> list[Point]:
    return polar(x, y, r, 3, turn)


def hexagon(x: float, y: float, r: float, turn: float) -> list[Point]:
    return polar(x, y, r, 6, turn)


def diamond(x: float, y: float, r: float, turn: float) -> list[Point]:
    return _turned(x, y, turn, [(0, -r), (r * 0.65, 0), (0, r), (-r * 0.65, 0)])


def star(x: float, y: float, r: float, turn: float) -> list[Point]:
    outer, inner = polar(x, y, r, 5, turn), polar(x, y, r * 0.42, 5, turn + 36)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def cross(x: float, y: float, r: float, turn: float) -> list[Point]:
    a, b = r * 0.95, r * 0.32
    half = [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b)]
    return _turned(x, y, turn, half + [(-u, -v) for u, v in half])


def heart(x: float, y: float, r: float, turn: float) -> list[Point]:
    angles = [2 * math.pi * k / 60 for k in range(60)]
    curve = [
        (
            16 * math.sin(a) ** 3,
            -13 * math.cos(a) + 5 * math.cos(2 * a) + 2 * math.cos(3 * a) + math.cos(4 * a),
        )
        for a in angles
    ]
    return _turned(x, y, turn / 3, [(u * r / 16, v * r / 16) for u, v in curve])


def arrow(x: float, y: float, r: float, turn: float) -> list[Point]:
    shaft = [(-1, -0.25), (0.1, -0.25), (0.1, -0.7), (1, 0)]
    points = shaft + [(u, -v) for u, v in reversed(shaft[:-1])]
    return _turned(x, y, turn, [(u * r, v * r) for u, v in points])


def crescent(x: float, y: float, r: float, turn: float) -> list[Point]:
    outer = [(math.cos(a) * r, math.sin(a) * r) for a in np.linspace(0.6, 5.68, 50)]
    inner = [
        (r * 0.42 + math.cos(a) * r * 0.69, math.sin(a) * r * 0.69)
        for a in np.linspace(5.3, 0.98, 40)
    ]
    return _turned(x, y, turn, outer + inner)


def _turned(x: float, y: float, turn: float, points: list[Point]) -> list[Point]:
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(x + u * c - v * s, y + u * s + v * c) for u, v in points]


Outline = Callable[[float, float, float, float], list[Point]]

SHAPES: dict[str, Outline] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "rectangle": rectangle,
    "ellipse": ellipse,
    "heart": heart,
    "hexagon": hexagon,
    "diamond": diamond,
    "arrow": arrow,
    "crescent": crescent,
}


def single(rng: Rng, k: int) -> Recipe:
    """One shape, filled or in outline."""
    kind = list(SHAPES)[k % len(SHAPES)]
    name = NAMES[(k * 7 + k // len(SHAPES)) % len(NAMES)]
    hollow = k % 3 == 2
    rgb = vary(rng, colour(name), 10)

    def paint(size: int) -> Image.Image:
        sketch = Sketch(ground(rng, size, name))
        radius = float(rng.uniform(18, 40))
        reach = 50 - radius * 0.8
        x, y = 50 + rng.uniform(-reach, reach, 2) * 0.7
        points = SHAPES[kind](float(x), float(y), radius, float(rng.uniform(-25, 25)))
        if hollow:
            sketch.line([*points, points[0]], rgb, float(rng.uniform(2, 6)))
        else:
            sketch.polygon([(px + 1.2, py + 1.6) for px, py in points], tint(rgb, -0.55))
            sketch.polygon(points, rgb)
        return sketch.done()

    style = "outline-" if hollow else ""
    return Recipe(f"{style}{kind}-{name}", paint)


def many(rng: Rng, k: int) -> Recipe:
    """Many of one shape, or a mixture: in rows or scattered."""
    kinds = [*SHAPES, "mixed-shapes"]
    kind = kinds[(k * 5) % len(kinds)]
    name = NAMES[(k * 5 + 3) % len(NAMES)]
    rows = k % 2 == 0
    rgb = vary(rng, colour(name), 10)
    radius = float(pick(rng, (4, 6, 9, 12)))

    def paint(size: int) -> Image.Image:
        sketch = Sketch(ground(rng, size, name))
        for x, y in _places(rng, radius, rows):
            mixed = kind == "mixed-shapes"
            outline = SHAPES[pick(rng, list(SHAPES)) if mixed else kind]
            fill = vary(rng, colour(pick(rng, NAMES))) if mixed else vary(rng, rgb, 14)
            turn = 0.0 if rows else float(rng.uniform(0, 360))
            sketch.polygon(outline(x, y, radius * float(rng.uniform(0.85, 1.1)), turn), fill)
        return sketch.done()

    way = "rows" if rows else "scattered"
    what = kind if kind == "mixed-shapes" else f"{kind}-{name}"
    return Recipe(f"many-{what}-{way}", paint)


def _places(rng: Rng, radius: float, rows: bool) -> list[Point]:
    step = radius * 2.6
    places = [
        (x, y) for y in np.arange(step / 2, 100, step) for x in np.arange(step / 2, 100, step)
    ]
    if rows:
        return places
    keep = rng.random(len(places)) < 0.72
    shifts = rng.uniform(-radius * 0.8, radius * 0.8, (len(places), 2))
    return [
        (x + float(dx), y + float(dy))
        for (x, y), (dx, dy), kept in zip(places, shifts, keep, strict=True)
        if kept
    ]


def ball(rng: Rng, k: int) -> Recipe:
    """Balls with light and shadow, on a floor."""
    name = NAMES[(k * 5 + 1) % len(NAMES)]
    count = (1, 1, 3, 6)[k % 4]
    rgb = vary(rng, colour(name), 10)

    def paint(size: int) -> Image.Image:
        image = ground(rng, size, name)
        for _ in range(count):
            radius = float(rng.uniform(0.34, 0.62)) / math.sqrt(count)
            cx, cy = (float(v) for v in rng.uniform(-0.8 + radius, 0.8 - radius, 2))
            image = _lit_ball(image, cx, cy, radius, rgb)
        return image

    return Recipe(f"{'ball' if count == 1 else 'balls'}-{name}", paint)


def _lit_ball(image: Image.Image, cx: float, cy: float, radius: float, rgb: Rgb) -> Image.Image:
    from PIL import Image as Pil

    size = image.width
    pixels = np.asarray(image).copy()
    # Only the square around the ball and its shadow is worked on.
    x0, x1, y0, y1 = (
        min(size, max(0, round((centre + reach * radius + 1) * size / 2)))
        for centre, reach in ((cx, -1.9), (cx, 1.9), (cy, -1.1), (cy, 1.7))
    )
    part = (slice(y0, y1), slice(x0, x1))
    y, x = axes(size)
    u, v = (x[part] - np.float32(cx)) / radius, (y[part] - np.float32(cy)) / radius
    edge = np.clip((1 - u * u - v * v) * (size * radius / 4), 0, 1)[..., None]
    light = np.exp(-((u + 0.35) ** 2 + (v + 0.4) ** 2) * 1.3)
    glint = np.clip(light * 8 - 7, 0, 1)[..., None]
    shadow = np.exp(-(u * u + ((v - 0.95) * 3.2) ** 2))[..., None] * 0.55
    body = np.array(rgb, np.float32) * (light * 0.9 + 0.3)[..., None] + glint * 120
    mixed = pixels[part] * (1 - shadow) * (1 - edge) + body * edge
    pixels[part] = np.clip(mixed, 0, 255).astype(np.uint8)
    return Pil.fromarray(pixels)


def lines(rng: Rng, k: int) -> Recipe:
    """Rings, arcs, zigzags, crossing lines, a spider's web, a maze of squares."""
    kind = ("ring", "arcs", "zigzag", "crossing-lines", "waves", "web", "nested-squares")[k % 7]
    name = NAMES[(k * 7 + 2) % len(NAMES)]
    rgb = vary(rng, colour(name), 10)

    def paint(size: int) -> Image.Image:
        sketch = Sketch(ground(rng, size, name))
        _LINES[kind](rng, sketch, rgb)
        return sketch.done()

    return Recipe(f"{kind}-{name}", paint)


def _ring(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    for _ in range(int(pick(rng, (1, 1, 3)))):
        x, y = rng.uniform(35, 65, 2)
        sketch.ring(x, y, float(rng.uniform(15, 33)), float(rng.uniform(2, 8)), rgb)


def _arcs(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    width = float(rng.uniform(2, 5))
    for k in range(int(rng.integers(1, 6))):
        sketch.arc(50, 80, 18 + k * width * 2, 190, 350, rgb, width)


def _zigzag(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    rows, step = int(rng.integers(1, 6)), float(rng.uniform(5, 12))
    for row in range(rows):
        y = 100 * (row + 0.5) / rows
        count = int(110 / step) + 2
        points = [(k * step - 5, y + (step if k % 2 else -step) * 0.6) for k in range(count)]
        sketch.line(points, rgb, float(20 / rows**0.5 / 3))


def _waves(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    rows, turns = int(rng.integers(2, 9)), float(rng.uniform(1, 4))
    for row in range(rows):
        y, high = 100 * (row + 0.5) / rows, 28 / rows
        points = [(x, y + high * math.sin(x * turns * 0.0628)) for x in np.arange(-2, 104, 2.0)]
        sketch.line(points, rgb, 14 / rows)


def _crossing(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    for _ in range(int(rng.integers(2, 12))):
        ends = rng.uniform(-10, 110, 4)
        start, end = (-5.0, float(ends[0])), (105.0, float(ends[1]))
        if rng.random() < 0.5:
            start, end = (float(ends[2]), -5.0), (float(ends[3]), 105.0)
        sketch.line([start, end], rgb, float(rng.uniform(0.8, 4)))


def _web(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    x, y = (float(v) for v in rng.uniform(35, 65, 2))
    spokes = int(rng.integers(7, 14))
    for end in polar(x, y, 90, spokes):
        sketch.line([(x, y), end], rgb, 0.7)
    for radius in np.arange(6, 90, 8.0):
        corners = polar(x, y, float(radius), spokes)
        sketch.line([*corners, corners[0]], rgb, 0.7)


def _nested(rng: Rng, sketch: Sketch, rgb: Rgb) -> None:
    twist = float(rng.uniform(-12, 12))
    for k, radius in enumerate(np.arange(8, 62, 8.0)):
        corners = square(50, 50, float(radius), twist * k)
        sketch.line([*corners, corners[0]], rgb, 2.5)


_LINES: dict[str, Callable[[Rng, Sketch, Rgb], None]] = {
    "ring": _ring,
    "arcs": _arcs,
    "zigzag": _zigzag,
    "crossing-lines": _crossing,
    "waves": _waves,
    "web": _web,
    "nested-squares": _nested,
}


def two(rng: Rng, k: int) -> Recipe:
    """Two shapes of two colours, beside, above or inside each other."""
    kinds = list(SHAPES)
    first, second = kinds[(k * 5) % len(kinds)], kinds[(k * 7 + 1) % len(kinds)]
    name = NAMES[(k * 7 + 5) % len(NAMES)]
    other = contrasting(rng, name)
    where = ("beside", "above", "inside")[k % 3]

    def paint(size: int) -> Image.Image:
        sketch = Sketch(ground(rng, size, name))
        big, small = {"inside": (42.0, 17.0)}.get(where, (22.0, 22.0))
        spot = {"beside": ((27, 50), (73, 50)), "above": ((50, 27), (50, 73))}
        (ax, ay), (bx, by) = spot.get(where, ((50, 50), (50, 52)))
        sketch.polygon(SHAPES[second](bx, by, big, 0), vary(rng, colour(other)))
        sketch.polygon(SHAPES[first](ax, ay, small, 0), vary(rng, colour(name)))
        return sketch.done()

    return Recipe(f"{first}-{name}-{where}-{second}-{other}", paint)
