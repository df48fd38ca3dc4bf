"""Plain colours and regular patterns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from milan_onnx.probe.synthetic.canvas import (
    COLOURS,
    Field,
    Recipe,
    Rng,
    Sketch,
    axes,
    colour,
    contrasting,
    gradient,
    grained,
    mix,
    noise,
    pick,
    ramp,
    shaded,
    tint,
    vary,
)

if TYPE_CHECKING:
    from PIL import Image

NAMES = list(COLOURS)


def solid(rng: Rng, k: int) -> Recipe:
    """One colour under even or slightly uneven light."""
    name = NAMES[k % len(NAMES)]
    shade = ("", "light-", "dark-")[k // len(NAMES) % 3]
    if name in ("black", "white", "gray"):
        shade = ""
    rgb = vary(rng, colour(shade + name), 8)

    def paint(size: int) -> Image.Image:
        lit = gradient(size, tint(rgb, 0.06), tint(rgb, -0.08), angle=float(rng.uniform(30, 150)))
        return grained(rng, lit, float(pick(rng, (0.0, 0.02, 0.05))))

    return Recipe(f"solid-{shade}{name}", paint)


def blend(rng: Rng, k: int) -> Recipe:
    """From one colour to another: straight, from the centre, or in soft clouds of colour."""
    first = NAMES[(k * 5) % len(NAMES)]
    second = contrasting(rng, first)
    kind = ("linear", "radial", "soft")[k % 3]
    a, b = vary(rng, colour(first)), vary(rng, colour(second))

    def paint(size: int) -> Image.Image:
        if kind == "linear":
            return gradient(size, a, b, angle=float(rng.integers(0, 360)))
        if kind == "soft":
            return ramp(noise(rng, size, 3), a, mix(a, b, 0.5), b)
        return ramp(np.clip(_distance(rng, size, 0.35) / 1.3, 0, 1), a, b)

    return Recipe(f"gradient-{kind}-{first}-{second}", paint)


def _distance(rng: Rng, size: int, spread: float) -> Field:
    y, x = axes(size)
    cy, cx = (np.float32(v) for v in rng.uniform(-spread, spread, 2))
    return np.sqrt((y - cy) ** 2 + (x - cx) ** 2)


def grating(rng: Rng, k: int) -> Recipe:
    """Stripes: orientation by frequency by profile by contrast."""
    turn = (0, 90, 45, 135, 20, 110, 70, 160)[k % 8]
    way = {0: "vertical", 90: "horizontal"}.get(turn, "diagonal")
    cycles = (4, 9, 18, 34)[k // 2 % 4]
    profile = ("sine", "square", "wavy")[k % 3]
    first = NAMES[(k * 7) % len(NAMES)]
    second = contrasting(rng, first)
    contrast = pick(rng, (1.0, 1.0, 0.6, 0.25))
    a = vary(rng, colour(first))
    b = mix(a, vary(rng, colour(second)), contrast)

    def paint(size: int) -> Image.Image:
        angle = math.radians(turn + float(rng.uniform(-4, 4)) * (way == "diagonal"))
        y, x = axes(size)
        along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
        if profile == "wavy":
            across = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
            along = along + np.sin(across * np.float32(7)) * np.float32(0.09)
        wave = np.sin(along * np.float32(math.pi * cycles) + np.float32(rng.uniform(0, 6)))
        steep = cycles if profile == "sine" else size / cycles / 2
        return ramp(np.clip(wave * (0.5 if profile == "sine" else steep / 3) + 0.5, 0, 1), a, b)

    stripes = "stripes" if profile == "square" else f"{profile}-stripes"
    return Recipe(f"{way}-{stripes}-{first}-{second}", paint)


def stripes(rng: Rng, k: int) -> Recipe:
    """Even stripes with hard edges: each direction, thin and thick."""
    way = ("vertical", "horizontal", "diagonal")[k % 3]
    width = ("thin", "thick")[k // 3 % 2]
    turn = {"vertical": 0.0, "horizontal": 90.0}.get(way, (45.0, 135.0)[k // 6 % 2])
    cycles = float(rng.uniform(20, 36) if width == "thin" else rng.uniform(2.5, 5))
    first, second = _two_tones(rng, k * 5 + k // 6 + 8, k // 6)
    a, b = vary(rng, colour(first)), vary(rng, colour(second))

    def paint(size: int) -> Image.Image:
        y, x = axes(size)
        angle = math.radians(turn)
        along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
        wave = np.sin(along * np.float32(math.pi * cycles) + np.float32(rng.uniform(0, 6)))
        return ramp(np.clip(wave * np.float32(size / cycles / 6) + 0.5, 0, 1), a, b)

    return Recipe(f"{way}-{width}-stripes-{first}-{second}", paint)


def _two_tones(rng: Rng, k: int, turn: int) -> tuple[str, str]:
    """Two colours that stand out: any, blue and white, black and white, in turn."""
    first = NAMES[k % len(NAMES)]
    usual = {1: ("blue", "white"), 2: ("black", "white")}
    return usual.get(turn % 3) or (first, contrasting(rng, first))


def chequers(rng: Rng, k: int) -> Recipe:
    """A checkerboard, from a flag of large squares to a cloth of small ones."""
    first, second = _two_tones(rng, k * 7 + 3, 2 * (k % 2))
    a, b = vary(rng, colour(first)), vary(rng, colour(second))
    side = 1 / (4, 6, 8, 11, 14)[k % 5]

    def paint(size: int) -> Image.Image:
        y, x = axes(size)
        shifts = rng.uniform(0, 2, 2).astype(np.float32)
        waves = [
            np.sin((v + s) * np.float32(math.pi / side / 2))
            for v, s in zip((y, x), shifts, strict=True)
        ]
        return ramp(np.clip(waves[0] * waves[1] * np.float32(size * side) + 0.5, 0, 1), a, b)

    return Recipe(f"checkerboard-{first}-{second}", paint)


def checks(rng: Rng, k: int) -> Recipe:
    """A checkerboard, a tartan of soft checks, diamonds, or a grid of lines."""
    kind = ("checkerboard", "plaid", "diamonds", "grid")[k % 4]
    first = NAMES[(k * 5 + 9) % len(NAMES)]
    second = contrasting(rng, first)
    a, b = vary(rng, colour(first)), vary(rng, colour(second))
    cells = int(pick(rng, (3, 5, 8, 12, 20)))

    def paint(size: int) -> Image.Image:
        y, x = axes(size)
        if kind == "diamonds":
            y, x = y * np.float32(0.7) + x, y * np.float32(0.7) - x
        step = np.float32(math.pi * cells / 2)
        waves = np.sin(y * step), np.sin(x * step)
        if kind == "plaid":
            bands = [np.clip(w * 6, -1, 1) for w in waves]
            fine = [np.clip(np.sin(v * step * 4) * 4 - 3, 0, 1) for v in (y, x)]
            field = (bands[0] + bands[1]) / 4 + 0.5 + (fine[0] + fine[1]) / 4
            return ramp(np.clip(field, 0, 1), a, mix(a, b, 0.5), b)
        if kind == "grid":
            thin = np.maximum(np.abs(waves[0]), np.abs(waves[1]))
            return ramp(np.clip((thin - 0.97) * 40, 0, 1), a, b)
        return ramp(np.clip(waves[0] * waves[1] * size / cells / 2 + 0.5, 0, 1), a, b)

    return Recipe(f"{kind}-{first}-{second}", paint)


def dots(rng: Rng, k: int) -> Recipe:
    """Polka dots in rows, scattered spots, confetti of all colours."""
    kind = ("polka-dots", "spots", "polka-dots", "confetti")[k % 4]
    first = NAMES[(k * 7 + 4) % len(NAMES)]
    second = contrasting(rng, first)
    a, b = vary(rng, colour(first)), vary(rng, colour(second))

    def paint(size: int) -> Image.Image:
        from PIL import Image as Pil

        sketch = Sketch(Pil.new("RGB", (size, size), a))
        step = float(rng.choice((7, 11, 16, 24)))
        if kind == "polka-dots":
            radius = step * float(rng.uniform(0.2, 0.36))
            for row in range(int(110 / step) + 1):
                for column in range(int(110 / step) + 2):
                    sketch.circle((column - row % 2 / 2) * step, row * step, radius, b)
            return sketch.done()
        for _ in range(int(1600 / step)):
            x, y = rng.uniform(-3, 103, 2)
            fill = b if kind == "spots" else vary(rng, COLOURS[pick(rng, NAMES)])
            sketch.circle(x, y, float(rng.uniform(0.08, 0.3)) * step, fill)
        return sketch.done()

    title = f"confetti-on-{first}" if kind == "confetti" else f"{kind}-{second}-on-{first}"
    return Recipe(title, paint)


def rings(rng: Rng, k: int) -> Recipe:
    """Concentric rings, a sunburst, a spiral, ripples, a target."""
    kind = ("concentric-rings", "sunburst", "spiral", "ripples")[k % 4]
    first = NAMES[(k * 5 + 2) % len(NAMES)]
    second = contrasting(rng, first)
    a, b = vary(rng, colour(first)), vary(rng, colour(second))
    count = int(pick(rng, (4, 7, 11, 16)))

    def paint(size: int) -> Image.Image:
        y, x = axes(size)
        cy, cx = (np.float32(v) for v in rng.uniform(-0.25, 0.25, 2))
        radius = np.sqrt((y - cy) ** 2 + (x - cx) ** 2)
        angle = np.arctan2(y - cy, x - cx)
        turns = radius * np.float32(math.pi * count)
        if kind == "sunburst":
            turns = angle * np.float32(count)
        elif kind == "spiral":
            turns = turns + angle
        wave = np.sin(turns)
        if kind == "ripples":
            faded = shaded(ramp(wave / 2 + 0.5, a, b), 1 - radius / 2, 0.4)
            return grained(rng, faded)
        return ramp(np.clip(wave * size / count / 8 + 0.5, 0, 1), a, b)

    return Recipe(f"{kind}-{first}-{second}", paint)
