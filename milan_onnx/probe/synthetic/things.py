"""Single things, drawn anywhere on a sketch at any size: x, y is the middle, s half the height."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from milan_onnx.probe.synthetic.canvas import (
    COLOURS,
    Rgb,
    Rng,
    Sketch,
    chance,
    mix,
    pick,
    polar,
    tint,
    vary,
)
from milan_onnx.probe.synthetic.shapes import heart, star

INK: Rgb = (34, 30, 34)
PAPER: Rgb = (248, 247, 242)
SKIN: tuple[Rgb, ...] = ((248, 214, 184), (226, 176, 136), (176, 120, 82), (112, 72, 50))
BRIGHT = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan")

Drawing = Callable[[Rng, Sketch, float, float, float], None]


def bright(rng: Rng) -> Rgb:
    """A strong colour."""
    return vary(rng, COLOURS[pick(rng, BRIGHT)])


def face(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    skin, hair = (
        vary(rng, pick(rng, SKIN)),
        vary(rng, pick(rng, ((40, 30, 28), (150, 96, 44), (220, 180, 90), (120, 120, 124)))),
    )
    long = chance(rng, 0.5)
    sk.ellipse(x, y - s * 0.18, s * 0.84, s * 0.86, hair)
    if long:
        sk.rounded(x - s * 0.84, y - s * 0.2, x + s * 0.84, y + s * 0.85, s * 0.3, hair)
    for side in (-1, 1):
        sk.circle(x + side * s * 0.7, y + s * 0.1, s * 0.15, tint(skin, -0.1))
    sk.ellipse(x, y + s * 0.08, s * 0.7, s * 0.86, skin)
    sk.ellipse(x, y - s * 0.62, s * 0.5, s * 0.22, hair)
    iris = vary(rng, pick(rng, ((60, 90, 150), (80, 56, 36), (70, 110, 70))))
    for side in (-1, 1):
        ex, ey = x + side * s * 0.28, y - s * 0.06
        sk.ellipse(ex, ey, s * 0.15, s * 0.1, PAPER)
        sk.circle(ex, ey, s * 0.075, iris)
        sk.line([(ex - s * 0.14, ey - s * 0.2), (ex + s * 0.14, ey - s * 0.2)], hair, s * 0.06)
    sk.line(
        [(x, y), (x + s * 0.08, y + s * 0.26), (x - s * 0.04, y + s * 0.28)],
        tint(skin, -0.25),
        s * 0.045,
    )
    sk.arc(x, y + s * 0.32, s * 0.3, 25, 155, (176, 50, 56), s * 0.08)


def smiley(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    body = vary(rng, (250, 206, 46))
    sk.circle(x, y, s, tint(body, -0.35))
    sk.circle(x, y, s * 0.95, body)
    for side in (-1, 1):
        sk.ellipse(x + side * s * 0.34, y - s * 0.25, s * 0.11, s * 0.19, INK)
    if chance(rng, 0.6):
        sk.arc(x, y + s * 0.05, s * 0.58, 20, 160, INK, s * 0.1)
    else:
        sk.arc(x, y + s * 0.85, s * 0.48, 215, 325, INK, s * 0.1)


def eye(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    iris = vary(rng, pick(rng, ((70, 120, 180), (96, 130, 70), (110, 72, 40))))
    lid = [(x + s * math.cos(a) * 1.5, y - s * math.sin(a) * 0.8) for a in np.linspace(0, 6.28, 50)]
    pointed = [(x - s * 1.65, y + s * 0.1), *lid[25:], (x + s * 1.65, y), *lid[:25]]
    sk.polygon(pointed, PAPER)
    sk.line([*lid, lid[0]], INK, s * 0.09)
    sk.circle(x, y, s * 0.66, tint(iris, -0.5))
    sk.circle(x, y, s * 0.6, iris)
    for px, py in polar(x, y, s * 0.56, 24):
        sk.line([(x, y), (px, py)], tint(iris, 0.3), s * 0.03)
    sk.circle(x, y, s * 0.3, (12, 12, 14))
    sk.circle(x + s * 0.2, y - s * 0.22, s * 0.13, (255, 255, 255))


def flower(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    petal, count = bright(rng), int(rng.integers(5, 11))
    stem = vary(rng, (52, 130, 52))
    sk.line([(x, y), (x + s * 0.1, y + s * 1.3)], stem, s * 0.1)
    sk.polygon([(x + s * 0.05, y + s), (x + s * 0.55, y + s * 0.55), (x + s * 0.4, y + s)], stem)
    for k, (px, py) in enumerate(polar(x, y, s * 0.45, count)):
        sk.circle(px, py, s * 1.5 / count + s * 0.1, tint(petal, -0.12 * (k % 2)))
    sk.circle(
        x, y, s * 0.28, vary(rng, pick(rng, ((250, 206, 50), (110, 66, 30), (246, 240, 200))))
    )


def tulip(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    petal, stem = bright(rng), vary(rng, (60, 140, 60))
    sk.line([(x, y), (x, y + s * 1.4)], stem, s * 0.12)
    sk.polygon([(x, y + s * 1.4), (x - s * 0.5, y + s * 0.3), (x - s * 0.15, y + s)], stem)
    cup = [
        (-0.5, -0.6),
        (-0.22, -0.25),
        (0, -0.7),
        (0.22, -0.25),
        (0.5, -0.6),
        (0.45, 0.2),
        (0, 0.5),
        (-0.45, 0.2),
    ]
    sk.polygon([(x + u * s, y + v * s) for u, v in cup], petal)
    sk.ellipse(x, y + s * 0.05, s * 0.2, s * 0.42, tint(petal, 0.2))


def tree(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    leaf = vary(rng, pick(rng, ((52, 128, 48), (76, 150, 58), (206, 120, 40), (36, 100, 60))))
    trunk = vary(rng, (98, 66, 42))
    sk.polygon(
        [(x - s * 0.14, y + s), (x - s * 0.07, y), (x + s * 0.07, y), (x + s * 0.14, y + s)], trunk
    )
    for _ in range(26):
        turn, far = float(rng.uniform(0, 6.28)), float(rng.uniform(0, 0.5)) * s
        px, py = x + far * math.cos(turn) * 1.1, y - s * 0.35 + far * math.sin(turn)
        light = (y - py) / s * 0.35 - 0.25 + float(rng.uniform(-0.1, 0.15))
        sk.circle(px, py, s * float(rng.uniform(0.14, 0.24)), tint(leaf, light))


def fir(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    leaf, snow = vary(rng, (32, 92, 56)), chance(rng, 0.3)
    sk.box(x - s * 0.09, y + s * 0.7, x + s * 0.09, y + s, (90, 62, 42))
    for k in range(4):
        top, wide = y - s + k * s * 0.4, s * (0.26 + k * 0.12)
        low = top + s * 0.58
        sk.polygon([(x, top), (x + wide, low), (x - wide, low)], tint(leaf, 0.12 - k * 0.07))
        if snow:
            sk.polygon(
                [(x, top), (x + wide * 0.4, top + s * 0.23), (x - wide * 0.4, top + s * 0.23)],
                PAPER,
            )


def palm(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    leaf, bend = vary(rng, (54, 140, 66)), float(rng.uniform(-0.3, 0.3)) * s
    sk.line([(x + bend, y + s), (x + bend * 0.3, y), (x, y - s * 0.5)], (134, 98, 62), s * 0.12)
    for turn in np.linspace(-2.9, 0.1, 7):
        tip = (x + s * 0.85 * math.cos(turn), y - s * 0.5 + s * 0.6 * math.sin(turn) + s * 0.22)
        mid = (x + s * 0.5 * math.cos(turn), y - s * 0.6 + s * 0.5 * math.sin(turn))
        low = (mid[0], mid[1] + s * 0.17)
        sk.polygon([(x, y - s * 0.5), mid, tip, low], tint(leaf, float(rng.uniform(-0.25, 0.15))))


def house(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    wall = vary(rng, pick(rng, ((236, 222, 190), (214, 120, 90), (190, 208, 220), (250, 244, 236))))
    roof = vary(rng, pick(rng, ((164, 62, 46), (92, 72, 66), (70, 80, 100))))
    w = s * 0.9
    sk.box(x + w * 0.4, y - s * 0.9, x + w * 0.62, y - s * 0.3, tint(roof, -0.35))
    sk.box(x - w, y - s * 0.2, x + w, y + s, wall)
    sk.polygon([(x - w * 1.18, y - s * 0.18), (x, y - s), (x + w * 1.18, y - s * 0.18)], roof)
    sk.box(x - s * 0.17, y + s * 0.35, x + s * 0.17, y + s, vary(rng, (110, 70, 44)))
    lit = pick(rng, ((150, 196, 226), (250, 224, 130)))
    for side in (-1, 1):
        _window(sk, x + side * w * 0.6, y + s * 0.28, s * 0.2, lit)


def _window(sk: Sketch, x: float, y: float, r: float, glass: Rgb) -> None:
    sk.box(x - r, y - r, x + r, y + r, PAPER)
    for u in (-0.47, 0.47):
        for v in (-0.47, 0.47):
            sk.box(
                x + r * (u - 0.36),
                y + r * (v - 0.36),
                x + r * (u + 0.36),
                y + r * (v + 0.36),
                tint(glass, -0.1 * (v > 0)),
            )


def tower(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    wall = vary(rng, pick(rng, ((120, 130, 146), (156, 140, 124), (92, 108, 132))))
    night = chance(rng, 0.5)
    w = s * float(rng.uniform(0.35, 0.6))
    sk.box(x - w, y - s, x + w, y + s, wall)
    sk.box(x - w, y - s, x - w * 0.8, y + s, tint(wall, 0.2))
    for v in np.arange(y - s * 0.88, y + s * 0.9, s * 0.22):
        for u in np.linspace(x - w * 0.6, x + w * 0.65, 3):
            lit = (250, 222, 130) if chance(rng, 0.6 if night else 0.1) else tint(wall, -0.45)
            sk.box(u - w * 0.14, v, u + w * 0.14, v + s * 0.12, lit)


def car(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    body = bright(rng)
    roof = [(-1.0, 0), (-0.7, -0.62), (0.45, -0.62), (0.95, 0)]
    sk.polygon([(x + u * s, y + v * s) for u, v in roof], tint(body, -0.12))
    glass = vary(rng, (172, 206, 226))
    for pane in (
        [(-0.82, -0.05), (-0.6, -0.5), (-0.15, -0.5), (-0.15, -0.05)],
        [(-0.03, -0.05), (-0.03, -0.5), (0.38, -0.5), (0.72, -0.05)],
    ):
        sk.polygon([(x + u * s, y + v * s) for u, v in pane], glass)
    sk.rounded(x - s * 1.5, y - s * 0.05, x + s * 1.5, y + s * 0.5, s * 0.2, body)
    sk.box(x - s * 1.5, y + s * 0.22, x + s * 1.5, y + s * 0.28, tint(body, -0.3))
    sk.circle(x + s * 1.38, y + s * 0.12, s * 0.11, (252, 240, 170))
    sk.circle(x - s * 1.42, y + s * 0.12, s * 0.09, (180, 30, 30))
    for side in (-0.85, 0.85):
        wheel(rng, sk, x + side * s, y + s * 0.5, s * 0.34)


def wheel(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    sk.circle(x, y, s, (28, 28, 30))
    sk.circle(x, y, s * 0.62, (184, 186, 192))
    for px, py in polar(x, y, s * 0.58, 8):
        sk.line([(x, y), (px, py)], (70, 72, 78), s * 0.07)
    sk.circle(x, y, s * 0.18, (60, 60, 66))


def bus(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    body = bright(rng)
    sk.rounded(x - s * 1.6, y - s * 0.7, x + s * 1.6, y + s * 0.6, s * 0.18, body)
    sk.box(x - s * 1.6, y + s * 0.1, x + s * 1.6, y + s * 0.24, PAPER)
    for k in range(5):
        left = x - s * 1.48 + k * s * 0.6
        sk.rounded(left, y - s * 0.52, left + s * 0.5, y - s * 0.02, s * 0.06, (160, 200, 224))
    for side in (-0.95, 0.95):
        wheel(rng, sk, x + side * s, y + s * 0.6, s * 0.32)


def bicycle(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    frame = bright(rng)
    for side in (-1, 1):
        sk.ring(x + side * s * 0.85, y + s * 0.4, s * 0.6, s * 0.07, INK)
        for px, py in polar(x + side * s * 0.85, y + s * 0.4, s * 0.55, 10):
            sk.line([(x + side * s * 0.85, y + s * 0.4), (px, py)], (140, 140, 146), s * 0.02)
    a, b, c, d = (-0.85, 0.4), (-0.35, -0.4), (0.05, 0.4), (0.6, -0.4)
    for first, second in (
        (a, b),
        (a, c),
        (b, c),
        (b, d),
        (c, d),
        (d, (0.85, 0.4)),
        (d, (0.5, -0.75)),
        ((0.5, -0.75), (0.8, -0.75)),
        ((-0.55, -0.55), (-0.15, -0.55)),
        (b, (-0.38, -0.55)),
    ):
        ends = [(x + u * s, y + v * s) for u, v in (first, second)]
        sk.line(ends, frame, s * 0.09)


def boat(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    hull, sail = bright(rng), vary(rng, pick(rng, (PAPER, (250, 226, 200), (214, 60, 50))))
    sk.line([(x, y - s), (x, y + s * 0.4)], (96, 70, 48), s * 0.08)
    sk.polygon(
        [(x + s * 0.07, y - s), (x + s * 0.85, y + s * 0.25), (x + s * 0.07, y + s * 0.25)], sail
    )
    sk.polygon(
        [(x - s * 0.07, y - s * 0.75), (x - s * 0.6, y + s * 0.25), (x - s * 0.07, y + s * 0.25)],
        tint(sail, -0.12),
    )
    sk.polygon(
        [
            (x - s, y + s * 0.4),
            (x + s, y + s * 0.4),
            (x + s * 0.65, y + s * 0.85),
            (x - s * 0.65, y + s * 0.85),
        ],
        hull,
    )
    sk.box(x - s * 0.9, y + s * 0.47, x + s * 0.9, y + s * 0.54, tint(hull, 0.6))


def balloon(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    first, second = bright(rng), pick(rng, (PAPER, bright(rng)))
    basket = (x - s * 0.16, y + s * 0.8, x + s * 0.16, y + s)
    for side in (-1, 1):
        sk.line([(x + side * s * 0.14, y + s * 0.8), (x + side * s * 0.45, y + s * 0.2)], INK, 0.4)
    for k, wide in enumerate((0.72, 0.52, 0.3, 0.1)):
        sk.ellipse(x, y - s * 0.3, s * wide, s * 0.72, first if k % 2 == 0 else second)
    sk.box(*basket, (140, 92, 52))


def fish(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    body, way = bright(rng), pick(rng, (-1, 1))
    sk.polygon(
        [
            (x - way * s * 0.9, y),
            (x - way * s * 1.6, y - s * 0.6),
            (x - way * s * 1.4, y),
            (x - way * s * 1.6, y + s * 0.6),
        ],
        tint(body, -0.2),
    )
    sk.polygon(
        [(x - s * 0.3, y - s * 0.5), (x, y - s * 1.0), (x + s * 0.4, y - s * 0.5)], tint(body, -0.2)
    )
    sk.ellipse(x, y, s * 1.1, s * 0.62, body)
    if chance(rng, 0.6):
        for u in (-0.35, 0.05, 0.42):
            half = 0.62 * math.sqrt(1 - u * u / 1.21) * s * 0.97
            px = x + way * u * s
            sk.box(px - s * 0.08, y - half, px + s * 0.08, y + half, tint(body, 0.6))
    sk.circle(x + way * s * 0.75, y - s * 0.14, s * 0.15, PAPER)
    sk.circle(x + way * s * 0.78, y - s * 0.14, s * 0.08, INK)


def bird(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    body, way = bright(rng), pick(rng, (-1, 1))
    tail = [(-0.7, 0.1), (-1.5, 0.3), (-1.4, 0.62), (-0.5, 0.5)]
    sk.polygon([(x + way * u * s, y + v * s) for u, v in tail], tint(body, -0.35))
    for u in (-0.1, 0.18):
        sk.line(
            [(x + way * u * s, y + s * 0.5), (x + way * u * s, y + s)], (210, 130, 40), s * 0.06
        )
    sk.ellipse(x, y + s * 0.15, s * 0.85, s * 0.55, body)
    sk.circle(x + way * s * 0.62, y - s * 0.35, s * 0.4, body)
    wing = [(0.3, 0), (-0.25, 0.5), (-0.95, 0.35), (-0.4, -0.1)]
    sk.polygon([(x + way * u * s, y + v * s) for u, v in wing], tint(body, -0.25))
    beak = [(0.98, -0.45), (1.38, -0.3), (0.96, -0.2)]
    sk.polygon([(x + way * u * s, y + v * s) for u, v in beak], (240, 160, 40))
    sk.circle(x + way * s * 0.74, y - s * 0.44, s * 0.09, INK)


def cat(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    coat = vary(rng, pick(rng, ((226, 140, 60), (90, 88, 92), (40, 38, 42), (236, 226, 210))))
    for side in (-1, 1):
        ear = [(0.2, -0.65), (0.78, -1.05), (0.84, -0.25)]
        sk.polygon([(x + side * u * s, y + v * s) for u, v in ear], coat)
        inner = [(0.36, -0.66), (0.7, -0.88), (0.72, -0.4)]
        sk.polygon([(x + side * u * s, y + v * s) for u, v in inner], (240, 170, 170))
    sk.ellipse(x, y, s * 0.92, s * 0.8, coat)
    for side in (-1, 1):
        ex = x + side * s * 0.38
        sk.ellipse(ex, y - s * 0.12, s * 0.19, s * 0.2, vary(rng, (170, 206, 90)))
        sk.ellipse(ex, y - s * 0.12, s * 0.06, s * 0.18, INK)
        for v in (0.2, 0.3, 0.4):
            sk.line(
                [(x + side * s * 0.25, y + s * 0.28), (x + side * s * 1.15, y + s * v)],
                tint(coat, 0.6 if sum(coat) < 300 else -0.6),
                0.35,
            )
    sk.ellipse(x, y + s * 0.34, s * 0.32, s * 0.22, tint(coat, 0.6))
    sk.polygon(
        [(x - s * 0.1, y + s * 0.18), (x + s * 0.1, y + s * 0.18), (x, y + s * 0.3)],
        (226, 110, 116),
    )


def dog(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    coat = vary(rng, pick(rng, ((166, 112, 66), (222, 186, 132), (72, 58, 50), (240, 236, 228))))
    sk.ellipse(x, y, s * 0.72, s * 0.85, coat)
    for side in (-1, 1):
        sk.ellipse(x + side * s * 0.72, y - s * 0.1, s * 0.26, s * 0.6, tint(coat, -0.4))
        sk.circle(x + side * s * 0.28, y - s * 0.2, s * 0.12, PAPER)
        sk.circle(x + side * s * 0.28, y - s * 0.18, s * 0.085, INK)
    sk.ellipse(x, y + s * 0.38, s * 0.4, s * 0.36, tint(coat, 0.55))
    sk.ellipse(x, y + s * 0.2, s * 0.17, s * 0.12, INK)
    sk.line([(x, y + s * 0.3), (x, y + s * 0.48)], INK, s * 0.04)
    sk.rounded(x - s * 0.12, y + s * 0.5, x + s * 0.12, y + s * 0.8, s * 0.12, (230, 100, 110))


def butterfly(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    wing, spot = bright(rng), bright(rng)
    for side in (-1, 1):
        for u, v, r in ((0.6, -0.38, 0.58), (0.48, 0.45, 0.42)):
            sk.circle(x + side * u * s, y + v * s, r * s, tint(wing, -0.6))
            sk.circle(x + side * u * s, y + v * s, r * s * 0.86, wing)
            sk.circle(x + side * (u + 0.1) * s, y + v * s, r * s * 0.38, spot)
        sk.line([(x, y - s * 0.6), (x + side * s * 0.25, y - s)], INK, s * 0.05)
    sk.ellipse(x, y, s * 0.1, s * 0.72, INK)


def snail(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    shell, skin = bright(rng), vary(rng, (206, 180, 140))
    sk.rounded(x - s * 1.1, y + s * 0.55, x + s * 1.1, y + s * 0.9, s * 0.17, skin)
    sk.line([(x + s * 0.95, y + s * 0.7), (x + s * 1.1, y - s * 0.1)], skin, s * 0.24)
    for u in (1.0, 1.28):
        sk.line([(x + s * 1.1, y - s * 0.1), (x + s * u, y - s * 0.5)], skin, s * 0.06)
    cx, cy = x - s * 0.12, y + s * 0.05
    sk.circle(cx, cy, s * 0.75, shell)
    spiral = [
        (cx + s * 0.07 * a * math.cos(a) * 0.72, cy + s * 0.07 * a * math.sin(a) * 0.72)
        for a in np.linspace(0.5, 13.5, 90)
    ]
    sk.line(spiral, tint(shell, -0.5), s * 0.08)


def apple(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    skin = vary(rng, pick(rng, ((206, 36, 42), (110, 170, 50), (236, 190, 60))))
    for side in (-1, 1):
        sk.ellipse(x + side * s * 0.32, y + s * 0.12, s * 0.56, s * 0.78, skin)
    sk.ellipse(x - s * 0.42, y - s * 0.18, s * 0.14, s * 0.24, tint(skin, 0.5))
    sk.line([(x, y - s * 0.5), (x + s * 0.1, y - s)], (96, 64, 40), s * 0.1)
    sk.polygon(
        [
            (x + s * 0.1, y - s * 0.75),
            (x + s * 0.45, y - s * 1.05),
            (x + s * 0.75, y - s * 0.8),
            (x + s * 0.4, y - s * 0.65),
        ],
        (70, 150, 60),
    )


def banana(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    skin = vary(rng, (250, 214, 60))
    for k, width in enumerate((0.5, 0.34, 0.1)):
        tone = (tint(skin, -0.25), skin, tint(skin, 0.4))[k]
        points = [
            (x + s * 1.05 * math.cos(a), y - s * 0.7 + s * 1.15 * math.sin(a))
            for a in np.linspace(0.35, 2.7, 24)
        ]
        sk.line(points, tone, s * width)
    sk.circle(x + s * 1.02, y - s * 0.34, s * 0.12, (80, 58, 34))


def bottle(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    glass = vary(rng, pick(rng, ((40, 110, 66), (122, 70, 34), (150, 196, 210), (90, 40, 60))))
    sk.rounded(x - s * 0.4, y - s * 0.2, x + s * 0.4, y + s, s * 0.12, glass)
    sk.polygon(
        [
            (x - s * 0.4, y - s * 0.1),
            (x - s * 0.14, y - s * 0.5),
            (x + s * 0.14, y - s * 0.5),
            (x + s * 0.4, y - s * 0.1),
        ],
        glass,
    )
    sk.box(x - s * 0.14, y - s * 0.95, x + s * 0.14, y - s * 0.4, glass)
    sk.box(x - s * 0.17, y - s, x + s * 0.17, y - s * 0.84, tint(glass, -0.4))
    sk.box(x - s * 0.4, y + s * 0.15, x + s * 0.4, y + s * 0.68, (244, 238, 220))
    sk.box(x - s * 0.3, y - s * 0.12, x - s * 0.22, y + s * 0.92, tint(glass, 0.45))


def cup(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    clay = bright(rng) if chance(rng, 0.7) else PAPER
    sk.ellipse(x, y + s * 0.82, s * 1.25, s * 0.2, tint(clay, 0.5))
    sk.ring(x + s * 0.85, y + s * 0.1, s * 0.38, s * 0.13, tint(clay, -0.1))
    sk.polygon(
        [
            (x - s * 0.85, y - s * 0.4),
            (x + s * 0.85, y - s * 0.4),
            (x + s * 0.55, y + s * 0.8),
            (x - s * 0.55, y + s * 0.8),
        ],
        clay,
    )
    sk.ellipse(x, y - s * 0.4, s * 0.85, s * 0.2, tint(clay, 0.35))
    sk.ellipse(x, y - s * 0.38, s * 0.74, s * 0.14, (88, 54, 34))
    for u in (-0.3, 0.05, 0.4):
        wave = [
            (x + u * s + math.sin(v * 7) * s * 0.07, y - s * (0.6 + v))
            for v in np.linspace(0, 0.5, 12)
        ]
        sk.line(wave, (238, 238, 240), s * 0.05)


def clock(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    rim = bright(rng)
    sk.circle(x, y, s, rim)
    sk.circle(x, y, s * 0.86, PAPER)
    for k, (px, py) in enumerate(polar(x, y, s * 0.74, 12)):
        sk.circle(px, py, s * (0.075 if k % 3 == 0 else 0.04), INK)
    for length, width in ((0.42, 0.09), (0.64, 0.05)):
        turn = float(rng.uniform(0, 6.28))
        sk.line(
            [(x, y), (x + s * length * math.cos(turn), y + s * length * math.sin(turn))],
            INK,
            s * width,
        )
    sk.circle(x, y, s * 0.07, rim)


def umbrella(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    cloth, other = bright(rng), pick(rng, (PAPER, bright(rng)))
    sk.line([(x, y - s * 0.2), (x, y + s * 0.8)], (90, 64, 44), s * 0.08)
    sk.arc(x + s * 0.16, y + s * 0.8, s * 0.2, 0, 180, (90, 64, 44), s * 0.08)
    for k in range(6):
        first, second = (math.pi * (1 + j / 6) for j in (k, k + 1))
        curve = [
            (x + s * math.cos(a), y + s * 0.9 * math.sin(a)) for a in np.linspace(first, second, 8)
        ]
        sk.polygon([(x, y - s * 0.9), *curve, (x, y)], cloth if k % 2 else other)
        sk.polygon([(x, y), *curve], cloth if k % 2 else other)


def mushroom(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    cap = vary(rng, pick(rng, ((204, 40, 40), (160, 106, 62), (236, 150, 60))))
    sk.rounded(x - s * 0.26, y, x + s * 0.26, y + s, s * 0.2, (222, 204, 172))
    curve = [
        (x + s * math.cos(a), y + s * 0.15 + s * math.sin(a))
        for a in np.linspace(math.pi, 2 * math.pi, 40)
    ]
    sk.polygon(curve, cap)
    for u, v, r in ((-0.5, -0.2, 0.14), (0.05, -0.5, 0.17), (0.5, -0.25, 0.12), (0, -0.08, 0.09)):
        sk.circle(x + u * s, y + v * s, r * s, PAPER)


def chair(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    timber = vary(rng, pick(rng, ((150, 100, 58), (60, 60, 66), (200, 60, 50))))
    sk.box(x - s * 0.55, y - s, x - s * 0.42, y + s, timber)
    sk.box(x + s * 0.42, y + s * 0.1, x + s * 0.55, y + s, timber)
    sk.box(x - s * 0.2, y + s * 0.1, x - s * 0.1, y + s * 0.8, tint(timber, -0.35))
    sk.box(x + s * 0.1, y + s * 0.1, x + s * 0.2, y + s * 0.8, tint(timber, -0.35))
    for v in (-0.85, -0.55, -0.25):
        sk.box(x - s * 0.55, y + v * s, x + s * 0.12, y + (v + 0.13) * s, tint(timber, 0.1))
    sk.rounded(x - s * 0.62, y + s * 0.03, x + s * 0.66, y + s * 0.2, s * 0.06, tint(timber, 0.3))


def lamp(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    shade = bright(rng)
    sk.line([(x, y - s * 0.2), (x, y + s * 0.9)], (96, 90, 86), s * 0.09)
    sk.ellipse(x, y + s * 0.92, s * 0.5, s * 0.1, (70, 66, 64))
    sk.circle(x, y - s * 0.15, s * 0.2, (255, 246, 200))
    sk.polygon(
        [
            (x - s * 0.35, y - s),
            (x + s * 0.35, y - s),
            (x + s * 0.75, y - s * 0.15),
            (x - s * 0.75, y - s * 0.15),
        ],
        shade,
    )
    sk.polygon(
        [
            (x - s * 0.2, y - s),
            (x, y - s),
            (x - s * 0.1, y - s * 0.15),
            (x - s * 0.45, y - s * 0.15),
        ],
        tint(shade, 0.35),
    )


def book(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    cover = bright(rng)
    sk.polygon(
        [
            (x - s * 1.25, y - s * 0.55),
            (x, y - s * 0.4),
            (x + s * 1.25, y - s * 0.55),
            (x + s * 1.25, y + s * 0.72),
            (x, y + s * 0.85),
            (x - s * 1.25, y + s * 0.72),
        ],
        cover,
    )
    for side in (-1, 1):
        sk.polygon(
            [
                (x, y - s * 0.45),
                (x + side * s * 1.15, y - s * 0.62),
                (x + side * s * 1.15, y + s * 0.6),
                (x, y + s * 0.75),
            ],
            PAPER,
        )
        for v in np.arange(-0.35, 0.5, 0.15):
            ends = [(x + side * s * 0.15, y + v * s), (x + side * s * 1.0, y + (v - 0.12) * s)]
            sk.line(ends, (150, 148, 146), s * 0.035)
    sk.line([(x, y - s * 0.45), (x, y + s * 0.75)], (170, 166, 160), s * 0.05)


def gift(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    paper, band = bright(rng), pick(rng, (PAPER, (240, 200, 60), (190, 30, 40)))
    sk.box(x - s * 0.8, y - s * 0.2, x + s * 0.8, y + s, paper)
    sk.box(x - s * 0.9, y - s * 0.45, x + s * 0.9, y - s * 0.15, tint(paper, 0.15))
    sk.box(x - s * 0.12, y - s * 0.45, x + s * 0.12, y + s, band)
    for side in (-1, 1):
        sk.ring(x + side * s * 0.26, y - s * 0.65, s * 0.25, s * 0.1, band)


def robot(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    steel = vary(rng, pick(rng, ((150, 160, 172), (110, 150, 180), (200, 160, 80))))
    sk.line([(x, y - s), (x, y - s * 0.6)], tint(steel, -0.4), s * 0.07)
    sk.circle(x, y - s, s * 0.1, (220, 50, 50))
    sk.rounded(x - s * 0.6, y - s * 0.75, x + s * 0.6, y + s * 0.1, s * 0.12, steel)
    sk.rounded(x - s * 0.75, y + s * 0.2, x + s * 0.75, y + s, s * 0.1, tint(steel, -0.25))
    for side in (-1, 1):
        sk.circle(x + side * s * 0.27, y - s * 0.42, s * 0.17, PAPER)
        sk.circle(x + side * s * 0.27, y - s * 0.42, s * 0.09, (30, 90, 190))
        sk.box(
            x + side * s * 0.95 - s * 0.12,
            y + s * 0.25,
            x + side * s * 0.95 + s * 0.12,
            y + s * 0.9,
            steel,
        )
    for u in (-0.3, -0.1, 0.1, 0.3):
        sk.box(x + (u - 0.07) * s, y - s * 0.15, x + (u + 0.07) * s, y - s * 0.02, INK)


def person(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    skin, shirt, legs = vary(rng, pick(rng, SKIN)), bright(rng), vary(rng, (50, 60, 96), 26)
    for side in (-1, 1):
        sk.line(
            [(x + side * s * 0.08, y + s * 0.2), (x + side * s * 0.17, y + s * 0.95)],
            legs,
            s * 0.17,
        )
        lift = float(rng.uniform(-0.3, 0.45))
        elbow = (x + side * s * 0.38, y + s * (lift - 0.1))
        sk.line([(x + side * s * 0.2, y - s * 0.35), elbow], shirt, s * 0.12)
        sk.circle(*elbow, s * 0.07, skin)
    sk.rounded(x - s * 0.25, y - s * 0.46, x + s * 0.25, y + s * 0.28, s * 0.1, shirt)
    sk.circle(x, y - s * 0.75, s * 0.2, vary(rng, (64, 44, 34), 30))
    sk.ellipse(x, y - s * 0.7, s * 0.17, s * 0.19, skin)


def rainbow(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    for k, name in enumerate(("red", "orange", "yellow", "green", "blue", "purple")):
        sk.arc(x, y + s * 0.6, s * (1.3 - k * 0.13), 180, 360, COLOURS[name], s * 0.14)
    for side in (-1, 1):
        cloud(rng, sk, x + side * s * 0.95, y + s * 0.6, s * 0.35)


def cloud(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    for tone, drop in (((206, 212, 222), 0.12), ((250, 250, 252), 0.0)):
        for u, v, r in (
            (-0.8, 0.1, 0.42),
            (-0.25, -0.2, 0.58),
            (0.4, -0.08, 0.5),
            (0.9, 0.12, 0.36),
        ):
            sk.circle(x + u * s, y + (v + drop) * s, r * s, tone)
        sk.box(x - s * 0.8, y + s * (0.1 + drop), x + s * 0.9, y + s * (0.48 + drop * 0.6), tone)


def cake(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    cream = bright(rng)
    sk.ellipse(x, y + s * 0.9, s * 1.2, s * 0.14, (214, 216, 222))
    for wide, top, low in ((1.0, 0.25, 0.88), (0.7, -0.35, 0.25)):
        sk.box(x - s * wide, y + s * top, x + s * wide, y + s * low, (226, 178, 116))
        sk.box(x - s * wide, y + s * top, x + s * wide, y + s * (top + 0.2), tint(cream, 0.35))
        for u in np.linspace(-wide + 0.1, wide - 0.1, 7):
            sk.circle(x + float(u) * s, y + s * (top + 0.22), s * 0.1, tint(cream, 0.35))
    for u in (-0.4, 0, 0.4):
        sk.box(x + (u - 0.04) * s, y - s * 0.75, x + (u + 0.04) * s, y - s * 0.35, PAPER)
        sk.ellipse(x + u * s, y - s * 0.86, s * 0.06, s * 0.12, (252, 180, 50))


def pizza(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    sk.circle(x, y, s, (196, 134, 70))
    sk.circle(x, y, s * 0.86, vary(rng, (246, 206, 100)))
    for _ in range(16):
        turn, far = float(rng.uniform(0, 6.28)), math.sqrt(float(rng.random())) * s * 0.7
        spot = (x + far * math.cos(turn), y + far * math.sin(turn))
        topping = pick(rng, ((190, 50, 40), (190, 50, 40), (70, 130, 50), (50, 46, 44)))
        sk.circle(*spot, s * (0.12 if topping[0] > 150 else 0.06), topping)
    for px, py in polar(x, y, s, 8, 10):
        sk.line([(x, y), (px, py)], (176, 110, 50), s * 0.025)


def keyhole_door(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    timber = bright(rng) if chance(rng, 0.6) else vary(rng, (130, 84, 50))
    sk.box(x - s * 0.62, y - s, x + s * 0.62, y + s, tint(timber, 0.6))
    sk.box(x - s * 0.52, y - s * 0.92, x + s * 0.52, y + s, timber)
    for side in (-1, 1):
        for top, low in ((-0.8, -0.1), (0.1, 0.85)):
            px = x + side * s * 0.25
            sk.box(px - s * 0.18, y + top * s, px + s * 0.18, y + low * s, tint(timber, -0.25))
    sk.circle(x + s * 0.42, y + s * 0.02, s * 0.06, (236, 206, 90))


def window(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    frame = pick(rng, (PAPER, (130, 88, 54), (60, 70, 90)))
    sk.box(x - s * 0.8, y - s, x + s * 0.8, y + s, frame)
    for side in (-1, 1):
        for v in (-0.48, 0.48):
            px, py = x + side * s * 0.38, y + v * s
            pane = tint((140, 190, 226), 0.3 if v < 0 else 0.05)
            sk.box(px - s * 0.32, py - s * 0.42, px + s * 0.32, py + s * 0.42, pane)
            sk.polygon(
                [
                    (px - s * 0.1, py - s * 0.42),
                    (px + s * 0.1, py - s * 0.42),
                    (px - s * 0.2, py + s * 0.42),
                    (px - s * 0.32, py + s * 0.42),
                ],
                tint(pane, 0.4),
            )
    sk.box(x - s * 0.92, y + s, x + s * 0.92, y + s * 1.1, mix(frame, INK, 0.3))


def snowman(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    snow, scarf = (242, 246, 250), bright(rng)
    for v, r in ((0.55, 0.48), (-0.12, 0.36), (-0.66, 0.27)):
        sk.circle(x, y + v * s, r * s, tint(snow, -0.14))
        sk.circle(x - s * 0.03, y + (v - 0.03) * s, r * s * 0.93, snow)
    for u, v in ((-0.09, -0.72), (0.09, -0.72), (0, -0.15), (0, 0.02), (0, 0.4)):
        sk.circle(x + u * s, y + v * s, s * 0.04, INK)
    sk.polygon([(x, y - s * 0.66), (x + s * 0.32, y - s * 0.58), (x, y - s * 0.57)], (240, 130, 40))
    sk.box(x - s * 0.25, y - s * 0.46, x + s * 0.25, y - s * 0.35, scarf)
    sk.box(x - s * 0.28, y - s * 0.94, x + s * 0.28, y - s * 0.88, INK)
    sk.box(x - s * 0.18, y - s * 1.2, x + s * 0.18, y - s * 0.9, INK)


def star_thing(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    gold = vary(rng, (250, 200, 60))
    sk.polygon(star(x + s * 0.04, y + s * 0.06, s, 0), tint(gold, -0.5))
    sk.polygon(star(x, y, s, 0), gold)
    sk.polygon(star(x, y, s * 0.6, 0), tint(gold, 0.35))


def heart_thing(rng: Rng, sk: Sketch, x: float, y: float, s: float) -> None:
    red = vary(rng, pick(rng, ((214, 36, 56), (240, 110, 150))))
    sk.polygon(heart(x + s * 0.04, y + s * 0.06, s, 0), tint(red, -0.5))
    sk.polygon(heart(x, y, s, 0), red)
    sk.ellipse(x - s * 0.45, y - s * 0.4, s * 0.2, s * 0.14, tint(red, 0.55))


THINGS: dict[str, Drawing] = {
    "face": face, "flower": flower, "car": car, "cat": cat, "tree": tree, "apple": apple,
    "house": house, "bird": bird, "cup": cup, "fish": fish, "clock": clock, "dog": dog,
    "boat": boat, "butterfly": butterfly, "wheel": wheel, "bottle": bottle, "eye": eye,
    "umbrella": umbrella, "person": person, "mushroom": mushroom, "bus": bus, "chair": chair,
    "balloon": balloon, "tulip": tulip, "bicycle": bicycle, "smiley": smiley, "book": book,
    "fir-tree": fir, "pizza": pizza, "lamp": lamp, "rainbow": rainbow, "robot": robot,
    "palm-tree": palm, "cake": cake, "door": keyhole_door, "banana": banana, "gift": gift,
    "window": window, "snail": snail, "tower": tower, "snowman": snowman, "star": star_thing,
    "cloud": cloud, "heart": heart_thing,
}  # fmt: skip
