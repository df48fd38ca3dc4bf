"""Surfaces: what wood, stone, cloth, fur, grass and water look like from near."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from milan_onnx.probe.synthetic.canvas import (
    COLOURS,
    Field,
    Recipe,
    Rgb,
    Rng,
    Sketch,
    axes,
    colour,
    contrasting,
    grained,
    mix,
    noise,
    pick,
    ramp,
    shaded,
    shades,
    tint,
    vary,
)

if TYPE_CHECKING:
    from PIL import Image

NAMES = list(COLOURS)
Painter = Callable[[Rng, int, Rgb], "Image.Image"]


def wood(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Boards or a cut trunk: rings stretched along the grain."""
    y, x = axes(size)
    bend = noise(rng, size, 3) * np.float32(1.6)
    fine = noise(rng, size, 24, stretch=(1, 8), octaves=2)
    lines = np.sin((x * 3 + bend * 2 + y * np.float32(0.15)) * np.float32(rng.uniform(4, 8)))
    field = lines * np.float32(0.25) + fine * np.float32(0.5) + np.float32(0.25)
    return ramp(field, tint(rgb, -0.4), rgb, tint(rgb, 0.3))


def planks(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Boards side by side."""
    from PIL import Image as Pil

    grain = np.asarray(wood(rng, size, rgb)).copy()
    count = int(rng.integers(3, 7))
    width = size // count + 1
    for board in range(count):
        part = slice(board * width, (board + 1) * width)
        shifted = np.roll(grain[:, part], int(rng.integers(size)), axis=0)
        grain[:, part] = np.clip(shifted * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
        grain[:, board * width : board * width + max(1, size // 90)] //= 3
    image = Pil.fromarray(grain)
    return image.transpose(Pil.Transpose.ROTATE_90) if rng.random() < 0.5 else image


def marble(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Veins in stone."""
    y, x = axes(size)
    cloud = noise(rng, size, 4, octaves=5)
    veins = np.abs(np.sin((x + y * np.float32(rng.uniform(-1, 1))) * 3 + cloud * 9))
    return ramp(np.sqrt(veins), tint(rgb, -0.55), mix(rgb, (238, 236, 232), 0.7), (246, 245, 242))


def clouds(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Smoke and clouds."""
    return ramp(noise(rng, size, 3, octaves=6), tint(rgb, -0.6), rgb, tint(rgb, 0.75))


def grain(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Sand and film grain."""
    field = noise(rng, size, size) * np.float32(0.6) + noise(rng, size, 6) * np.float32(0.4)
    return ramp(field, tint(rgb, -0.6), rgb, tint(rgb, 0.6))


def gravel(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Pebbles, each with its own grey and a shadow below."""
    from PIL import Image as Pil

    sketch = Sketch(Pil.new("RGB", (size, size), tint(rgb, -0.75)))
    step = float(rng.uniform(7, 12))
    rows = np.arange(0, 101 + step, step * 0.8).tolist()
    places = [(x, y) for y in rows for x in np.arange(0, 101 + step, step).tolist()]
    moved = (np.array(places) + rng.uniform(-2, 2, (len(places), 2))).tolist()
    radii = (rng.uniform((0.4, 0.34), (0.62, 0.5), (len(places), 2)) * step).tolist()
    tones = shades(rng, mix(rgb, (150, 145, 138), 0.5), len(places), 0.3, 30)
    for (x, y), (rx, ry), tone in zip(moved, radii, tones, strict=True):
        sketch.ellipse(x, y, rx, ry, tint(tone, -0.3))
        sketch.ellipse(x - rx * 0.1, y - ry * 0.16, rx * 0.85, ry * 0.8, tone)
    return grained(rng, sketch.done(), 0.14)


def brick(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """A wall of bricks."""
    from PIL import Image as Pil

    mortar = vary(rng, (198, 192, 182))
    sketch = Sketch(Pil.new("RGB", (size, size), mortar))
    height = float(rng.choice((6, 9, 13)))
    width, gap = height * 2.3, height * 0.12
    for row in range(int(100 / height) + 1):
        for column in range(-1, int(100 / width) + 1):
            x, y = (column + row % 2 / 2) * width, row * height
            face = tint(vary(rng, rgb, 10), float(rng.uniform(-0.25, 0.15)))
            sketch.box(x + gap, y + gap, x + width - gap, y + height - gap, face)
    return shaded(sketch.done(), noise(rng, size, 20, octaves=3), 0.22)


def tiles(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Square or six-sided tiles with joints."""
    from PIL import Image as Pil

    sketch = Sketch(Pil.new("RGB", (size, size), tint(rgb, 0.75)))
    step = float(rng.choice((10, 14, 20)))
    six = rng.random() < 0.5
    corners = [
        (math.cos(a) * 0.53, math.sin(a) * 0.53) for a in np.arange(6) * math.pi / 3 + 0.5236
    ]
    for row in range(int(100 / step * 1.3) + 2):
        for column in range(int(100 / step) + 2):
            face = tint(vary(rng, rgb, 8), float(rng.uniform(-0.2, 0.2)))
            if six:
                x, y = (column - row % 2 / 2) * step, row * step * 0.87
                sketch.polygon([(x + step * u, y + step * v) for u, v in corners], face)
            else:
                x, y = column * step, row * step
                sketch.box(x, y, x + step * 0.92, y + step * 0.92, face)
    return shaded(sketch.done(), noise(rng, size, 3), 0.12)


def woven(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Threads over and under: cloth or a basket."""
    y, x = axes(size)
    threads = float(rng.choice((7, 13, 26)))
    step = np.float32(math.pi * threads / 2)
    over = np.sin(y * step) * np.sin(x * step) > 0
    along = np.where(over, np.abs(np.sin(x * step)), np.abs(np.sin(y * step)))
    fibre = np.where(
        over, noise(rng, size, 30, stretch=(6, 1)), noise(rng, size, 30, stretch=(1, 6))
    )
    field = along.astype(np.float32) * np.float32(0.65) + fibre * np.float32(0.35)
    return ramp(field, tint(rgb, -0.65), rgb, tint(rgb, 0.35))


def knitted(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Rows of V stitches, as of a pullover."""
    y, x = axes(size)
    rows = float(rng.choice((8, 12, 18)))
    step = np.float32(math.pi * rows)
    slope = np.abs(np.sin(x * step / 2))
    stitch = np.sin(y * step + slope * np.float32(3.2)) * np.float32(0.5) + np.float32(0.5)
    valley = np.clip(np.abs(np.sin(x * step / 2 + np.float32(math.pi / 2))) * 3, 0, 1)
    field = stitch * valley * np.float32(0.8) + noise(rng, size, 90) * np.float32(0.2)
    return ramp(field, tint(rgb, -0.6), rgb, tint(rgb, 0.3))


def fur(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Hair that lies one way, in tufts."""
    from PIL import Image as Pil

    sketch = Sketch(ramp(noise(rng, size, 5), tint(rgb, -0.6), tint(rgb, -0.25)))
    lean, count = float(rng.uniform(-1, 1)), 700
    roots = rng.uniform(-5, 103, (count, 2))
    lengths = rng.uniform(5, 12, (count, 1))
    tips = roots + lengths * (lean, 1) + rng.uniform((-2, 0), (2, 0), (count, 2))
    tones = shades(rng, rgb, count, 0.45, 10)
    for (x, y), tip, tone in zip(roots.tolist(), tips.tolist(), tones, strict=True):
        sketch.polygon([(x - 0.45, y), (x + 0.45, y), tip], tone)
    return sketch.done().transpose(pick(rng, tuple(Pil.Transpose)[:5]))


def grass(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Blades that grow upwards, the lower ones in front."""
    from PIL import Image as Pil

    sketch = Sketch(Pil.new("RGB", (size, size), tint(rgb, -0.6)))
    count = 480
    roots = rng.uniform((-3, 12), (103, 118), (count, 2))
    tips = roots + rng.uniform((-6, -20), (6, -9), (count, 2))
    order = np.argsort(roots[:, 1], kind="stable")
    tones = shades(rng, rgb, count, 0.4)
    for (x, y), tip, tone in zip(roots[order].tolist(), tips[order].tolist(), tones, strict=True):
        sketch.polygon([(x - 0.9, y), (x + 0.9, y), tip], tone)
    return sketch.done()


def leaves(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Foliage: pointed leaves over each other, each with a midrib."""
    from PIL import Image as Pil

    sketch = Sketch(Pil.new("RGB", (size, size), tint(rgb, -0.75)))
    scale = float(rng.uniform(5, 9))
    count = int(2000 / scale**1.4)
    turns = rng.uniform(0, 2 * math.pi, count)
    ways = (np.stack([np.cos(turns), np.sin(turns)], 1) * scale).tolist()
    tones = shades(rng, tint(rgb, -0.12), count, 0.3, 18)
    for (x, y), (u, v), leaf in zip(
        rng.uniform(-4, 104, (count, 2)).tolist(), ways, tones, strict=True
    ):
        left, right = (x - v * 0.4, y + u * 0.4), (x + v * 0.4, y - u * 0.4)
        sketch.polygon([(x - u, y - v), left, (x + u, y + v), right], leaf)
        sketch.polygon([(x - u, y - v), (x + v * 0.04, y), (x + u, y + v)], tint(leaf, 0.25))
    return sketch.done()


def water(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Ripples that catch the light."""
    warp = noise(rng, size, 5, octaves=3)
    bands = noise(rng, size, 4, stretch=(5, 1), octaves=3)
    glints = np.clip(np.sin((bands * 3 + warp) * np.float32(11)) * 2 - np.float32(1.2), 0, 1)
    field = bands * np.float32(0.55) + glints * np.float32(0.45)
    return ramp(field, tint(rgb, -0.5), rgb, tint(rgb, 0.8))


def scales(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Rows of half circles: fish, roof tiles."""
    from PIL import Image as Pil

    sketch = Sketch(Pil.new("RGB", (size, size), tint(rgb, -0.6)))
    step = float(rng.choice((8, 12, 17)))
    for row in range(int(200 / step) + 2, -2, -1):
        for column in range(-1, int(100 / step) + 2):
            x, y = (column + row % 2 / 2) * step, row * step * 0.5 - step / 2
            face = tint(vary(rng, rgb, 12), float(rng.uniform(-0.15, 0.25)))
            sketch.circle(x, y, step * 0.56, tint(rgb, -0.6))
            sketch.circle(x, y - step * 0.03, step * 0.5, face)
    return shaded(sketch.done(), noise(rng, size, 4), 0.18)


def cracked(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Cells with dark joints: dry earth, a giraffe's coat, a net of leaf veins."""
    first, second = _nearest(rng, size, int(rng.choice((18, 40, 80))))
    joint = np.clip((second - first) * np.float32(14), 0, 1)
    field = joint * (np.float32(0.75) + noise(rng, size, 8, octaves=3) * np.float32(0.25))
    return ramp(field, tint(rgb, -0.75), rgb, tint(rgb, 0.3))


def spotted(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Blotches of a second colour: an animal's coat, camouflage, rust."""
    field = noise(rng, size, int(rng.choice((5, 9, 14))), octaves=2)
    sharp = np.clip((field - np.float32(0.5)) * 14 + np.float32(0.5), 0, 1)
    dark = vary(rng, (44, 34, 28)) if rng.random() < 0.6 else tint(rgb, -0.6)
    return grained(rng, ramp(sharp, tint(rgb, 0.3), dark), 0.12)


def metal(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Brushed metal under a lamp."""
    _, x = axes(size)
    brushed = noise(rng, size, 2, stretch=(100, 1)) * np.float32(0.35)
    lamp = np.exp(-((x - np.float32(rng.uniform(-0.6, 0.6))) ** 2) * 4) * np.float32(0.6)
    return ramp(brushed + lamp, (70, 72, 78), mix(rgb, (170, 172, 178), 0.75), (246, 247, 250))


def bubbles(rng: Rng, size: int, rgb: Rgb) -> Image.Image:
    """Drops and bubbles with a glint."""
    sketch = Sketch(ramp(noise(rng, size, 2), tint(rgb, -0.5), tint(rgb, -0.1)))
    for _ in range(int(rng.integers(25, 90))):
        x, y = rng.uniform(-2, 102, 2)
        radius = float(rng.uniform(1.2, 9)) ** float(rng.uniform(0.7, 1))
        sketch.circle(x, y, radius, tint(rgb, 0.25))
        sketch.circle(x + radius * 0.08, y + radius * 0.1, radius * 0.86, tint(rgb, -0.15))
        sketch.circle(x - radius * 0.35, y - radius * 0.38, radius * 0.2, (250, 250, 250))
    return sketch.done()


def _nearest(rng: Rng, size: int, count: int) -> tuple[Field, Field]:
    """Distances to the nearest and second nearest of random points, drawn coarse and enlarged."""
    from PIL import Image as Pil

    small = max(8, size // 2)
    y, x = axes(small)
    points = rng.uniform(-1.1, 1.1, (count, 2)).astype(np.float32)
    far = np.full((small, small), 9, np.float32)
    first, second = far, far
    for py, px in points:
        distance = np.sqrt((y - py) ** 2 + (x - px) ** 2)
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    resize = Pil.Resampling.BILINEAR
    grown = [np.asarray(Pil.fromarray(f).resize((size, size), resize)) for f in (first, second)]
    return grown[0], grown[1]


# Each surface with the colours it comes in.
SURFACES: dict[str, tuple[Painter, tuple[str, ...]]] = {
    "wood": (wood, ("brown", "orange", "dark-brown")),
    "brick-wall": (brick, ("red", "brown", "gray", "orange")),
    "grass": (grass, ("green",)),
    "water": (water, ("blue", "cyan", "dark-blue")),
    "woven-cloth": (woven, ("brown", "red", "blue", "light-brown", "gray")),
    "fur": (fur, ("brown", "black", "white", "orange", "gray")),
    "clouds": (clouds, ("light-blue", "gray", "purple", "orange")),
    "marble": (marble, ("gray", "green", "pink", "brown")),
    "leaves": (leaves, ("green", "orange", "dark-green", "red")),
    "gravel": (gravel, ("gray", "brown")),
    "planks": (planks, ("brown", "light-brown", "gray")),
    "tiles": (tiles, ("blue", "white", "cyan", "brown", "green")),
    "sand": (grain, ("light-orange", "brown", "gray")),
    "scales": (scales, ("cyan", "green", "red", "gray")),
    "cracks": (cracked, ("brown", "orange", "gray", "green")),
    "spotted-coat": (spotted, ("orange", "white", "brown", "green")),
    "metal": (metal, ("gray", "orange", "blue")),
    "knitting": (knitted, ("red", "blue", "white", "green", "pink", "gray")),
    "bubbles": (bubbles, ("blue", "cyan", "green", "purple")),
}


def surface(rng: Rng, k: int) -> Recipe:
    """One of the surfaces, in one of its colours."""
    kind = list(SURFACES)[k % len(SURFACES)]
    painter, shades = SURFACES[kind]
    name = shades[k // len(SURFACES) % len(shades)]
    rgb = vary(rng, colour(name))
    return Recipe(f"{kind}-{name}", lambda size: painter(rng, size, rgb))


def ground(rng: Rng, size: int, avoid: str) -> Image.Image:
    """A background for a thing of the colour ``avoid``: plain, shaded or a surface."""
    from PIL import Image as Pil

    name = contrasting(rng, avoid)
    # Away from the thing: paler behind dark colours, deeper behind light ones.
    pale = sum(COLOURS[avoid]) < 400
    rgb = tint(
        vary(rng, colour(name)), float(rng.uniform(0.1, 0.6) if pale else rng.uniform(-0.5, 0))
    )
    kind = int(rng.integers(4))
    if kind == 0:
        return Pil.new("RGB", (size, size), rgb)
    if kind == 1:
        return ramp(noise(rng, size, 2), tint(rgb, -0.2), tint(rgb, 0.25))
    if kind == 2:
        return ramp(noise(rng, size, 6, octaves=3), tint(rgb, -0.25), tint(rgb, 0.15))
    painter = pick(rng, (woven, grain, marble, wood))
    return painter(rng, size, rgb)
