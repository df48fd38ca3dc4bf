"""Simple scenes, and single things on a ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from milan_onnx.probe.synthetic import things
from milan_onnx.probe.synthetic.canvas import (
    COLOURS,
    Point,
    Recipe,
    Rgb,
    Rng,
    Sketch,
    chance,
    colour,
    gradient,
    grained,
    noise,
    pick,
    ramp,
    shaded,
    tint,
    vary,
)
from milan_onnx.probe.synthetic.textures import brick, grass, planks, water

if TYPE_CHECKING:
    from PIL import Image

Painter = Callable[[Rng, int], "Image.Image"]

SKIES: tuple[tuple[Rgb, Rgb], ...] = (
    ((86, 150, 222), (206, 228, 244)),
    ((120, 176, 228), (238, 240, 236)),
    ((250, 150, 80), (252, 222, 150)),
    ((90, 70, 130), (246, 150, 110)),
    ((150, 160, 172), (214, 218, 222)),
)
NIGHT: tuple[Rgb, Rgb] = ((10, 14, 44), (44, 58, 104))


def sky(rng: Rng, size: int, stops: tuple[Rgb, Rgb] | None = None) -> Image.Image:
    """A sky with a breath of cloud."""
    top, low = stops or pick(rng, SKIES)
    base = gradient(size, vary(rng, top, 8), vary(rng, low, 8), angle=90)
    return shaded(base, noise(rng, size, 3, octaves=4, stretch=(2, 1)), 0.12)


def heavens(rng: Rng, sk: Sketch, horizon: float) -> None:
    """A sun or some clouds above the horizon."""
    if chance(rng, 0.6):
        x, y = float(rng.uniform(15, 85)), float(rng.uniform(12, horizon * 0.5))
        for radius, tone in ((9, (255, 240, 190)), (7, (255, 226, 110))):
            sk.circle(x, y, radius, tone)
    for _ in range(int(rng.integers(0, 4))):
        place = float(rng.uniform(5, 95)), float(rng.uniform(8, horizon * 0.6))
        things.cloud(rng, sk, *place, float(rng.uniform(5, 9)))


def ridge(rng: Rng, sk: Sketch, base: float, height: float, rgb: Rgb, rough: float = 0.0) -> None:
    """Hills (rough 0) or mountains (rough 1) that fill the picture from their crest down."""
    phases, turns = rng.uniform(0, 6.28, 3), rng.uniform(0.6, 2.2, 3)
    points: list[Point] = [(-2, 102)]
    for x in np.arange(-2, 103, 2.0 if rough < 0.5 else 6.0):
        soft = sum(
            math.sin(x * 0.03 * t * (j + 1) + p) / (j + 1)
            for j, (t, p) in enumerate(zip(turns, phases, strict=True))
        )
        jag = rough * float(rng.uniform(-1, 1))
        points.append((float(x), base - height * (0.5 + soft * 0.3 + jag * 0.5)))
    sk.polygon([*points, (102, 102)], rgb)


def _far(rgb: Rgb, steps: int) -> Rgb:
    return tint(rgb, 0.16 * steps)


def meadow(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size))
    green = vary(rng, pick(rng, ((86, 150, 62), (120, 160, 60), (190, 170, 80))))
    heavens(rng, sk, 50)
    for step in (3, 2, 1, 0):
        ridge(rng, sk, 80 - step * 8, 16, tint(_far(green, step), -0.12))
        for _ in range(int(rng.integers(0, 4))):
            x, s = float(rng.uniform(4, 96)), 11 - step * 2.6
            pick(rng, (things.tree, things.fir))(rng, sk, x, 74 - step * 7, s)
    if chance(rng, 0.4):
        things.house(rng, sk, float(rng.uniform(25, 75)), 78, 13)
    return grained(rng, sk.done(), 0.06)


def mountains(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size))
    heavens(rng, sk, 40)
    rock = vary(rng, (110, 116, 132))
    for step in (2, 1, 0):
        for _ in range(3):
            x, top = float(rng.uniform(-5, 105)), 24 + (2 - step) * 9 + float(rng.uniform(0, 12))
            wide = (90 - top) * float(rng.uniform(0.5, 0.8))
            sk.polygon([(x, top), (x + wide, 92), (x - wide, 92)], _far(rock, step))
            sk.polygon(
                [(x, top), (x + wide, 92), (x + wide * 0.15, 92)], tint(_far(rock, step), -0.2)
            )
            cut = (90 - top) * 0.24
            snow = [
                (x, top),
                (x + wide * 0.25, top + cut),
                (x + wide * 0.08, top + cut * 0.75),
                (x - wide * 0.05, top + cut * 1.1),
                (x - wide * 0.25, top + cut),
            ]
            sk.polygon(snow, (246, 248, 252))
    ridge(rng, sk, 92, 12, vary(rng, (60, 104, 62)))
    for x in rng.uniform(0, 100, 12):
        things.fir(rng, sk, float(x), float(rng.uniform(82, 96)), float(rng.uniform(5, 9)))
    return grained(rng, sk.done(), 0.07)


def sea(rng: Rng, size: int) -> Image.Image:
    from PIL import Image as Pil

    horizon = float(rng.uniform(35, 60))
    image = sky(rng, size)
    waves = water(rng, size, vary(rng, pick(rng, ((40, 104, 170), (30, 130, 150)))))
    top = round(size * horizon / 100)
    image.paste(waves.resize((size, size - top), Pil.Resampling.BILINEAR), (0, top))
    sk = Sketch(image)
    heavens(rng, sk, horizon)
    for _ in range(int(rng.integers(1, 4))):
        s = float(rng.uniform(5, 17))
        things.boat(rng, sk, float(rng.uniform(12, 88)), horizon + s * 0.2, s)
    return sk.done()


def beach(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size, SKIES[int(rng.integers(2))]))
    heavens(rng, sk, 40)
    sk.box(0, 42, 101, 102, vary(rng, (40, 140, 186)))
    sk.box(0, 50, 101, 102, vary(rng, (70, 176, 200)))
    ridge(rng, sk, 70, 9, (244, 246, 244))
    ridge(rng, sk, 73, 9, vary(rng, (236, 208, 150)))
    things.palm(rng, sk, float(rng.choice((16, 84))), 56, 30)
    for x in (40, 62):
        things.umbrella(rng, sk, x + float(rng.uniform(-6, 6)), 78, float(rng.uniform(8, 12)))
    return grained(rng, sk.done(), 0.08)


def night(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size, NIGHT))
    for x, y in rng.uniform(0, 100, (70, 2)):
        sk.circle(float(x), float(y) * 0.7, float(rng.uniform(0.2, 0.6)), (240, 240, 220))
    x, y = float(rng.uniform(20, 80)), float(rng.uniform(15, 32))
    sk.circle(x, y, 9, (250, 244, 214))
    if chance(rng, 0.5):
        sk.circle(x + 4, y - 2, 8, (22, 28, 64))
    if chance(rng, 0.5):
        ridge(rng, sk, 82, 18, (14, 20, 34))
        things.house(rng, sk, float(rng.uniform(25, 75)), 80, 13)
    else:
        _skyline(rng, sk, (24, 28, 48), lit=0.45)
    return grained(rng, sk.done(), 0.08)


def city(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size))
    heavens(rng, sk, 40)
    _skyline(rng, sk, vary(rng, (150, 162, 180)), lit=0.1)
    _skyline(rng, sk, vary(rng, (92, 102, 122)), lit=0.15)
    return grained(rng, sk.done(), 0.05)


def _skyline(rng: Rng, sk: Sketch, rgb: Rgb, lit: float) -> None:
    x = -4.0
    while x < 102:
        wide, top = float(rng.uniform(8, 19)), float(rng.uniform(34, 76))
        wall = tint(rgb, float(rng.uniform(-0.2, 0.2)))
        sk.box(x, top, x + wide, 102, wall)
        for v in np.arange(top + 3, 100, 5.0):
            for u in np.arange(x + 2, x + wide - 2, 3.6):
                glow = (252, 222, 120) if chance(rng, lit) else tint(wall, -0.35)
                sk.box(float(u), float(v), float(u) + 1.8, float(v) + 2.6, glow)
        x += wide + float(rng.uniform(-1, 2))


def street(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size))
    heavens(rng, sk, 30)
    x = -2.0
    while x < 100:
        wide, top = float(rng.uniform(17, 27)), float(rng.uniform(18, 40))
        wall = vary(
            rng, tint(COLOURS[pick(rng, ("red", "yellow", "orange", "brown", "blue"))], 0.4)
        )
        sk.polygon([(x - 1, top), (x + wide / 2, top - 11), (x + wide + 1, top)], (120, 62, 50))
        sk.box(x, top, x + wide, 76, wall)
        for v in np.arange(top + 5, 60, 12.0):
            for u in np.linspace(x + 5, x + wide - 5, 2 if wide < 22 else 3):
                sk.box(float(u) - 2.4, float(v), float(u) + 2.4, float(v) + 6.5, (250, 248, 240))
                sk.box(float(u) - 1.8, float(v) + 0.6, float(u) + 1.8, float(v) + 6, (96, 126, 154))
        sk.box(x + wide / 2 - 2.6, 64, x + wide / 2 + 2.6, 76, tint(wall, -0.6))
        x += wide
    sk.box(0, 76, 101, 80, (186, 184, 180))
    sk.box(0, 80, 101, 102, (84, 86, 92))
    pick(rng, (things.car, things.bus, things.bicycle))(rng, sk, float(rng.uniform(25, 75)), 83, 9)
    return grained(rng, sk.done(), 0.08)


def road(rng: Rng, size: int) -> Image.Image:
    horizon, middle = float(rng.uniform(38, 52)), float(rng.uniform(35, 65))
    sk = Sketch(sky(rng, size))
    heavens(rng, sk, horizon)
    land = vary(rng, pick(rng, ((96, 150, 70), (206, 176, 112), (236, 240, 246))))
    ridge(rng, sk, horizon + 4, 14, tint(land, -0.3), 0.5)
    sk.box(0, horizon, 101, 102, land)
    sk.polygon([(middle - 1, horizon), (middle + 1, horizon), (104, 102), (-4, 102)], (90, 92, 98))
    for k in range(6):
        a, b = (horizon + (102 - horizon) * v**2 for v in ((k + 0.3) / 6, (k + 0.75) / 6))
        half = [0.06 + 1.9 * (y - horizon) / 60 for y in (a, b)]
        x0, x1 = (middle + (50 - middle) * (y - horizon) / (102 - horizon) for y in (a, b))
        sk.polygon(
            [(x0 - half[0], a), (x0 + half[0], a), (x1 + half[1], b), (x1 - half[1], b)],
            (250, 246, 220),
        )
    for side in (-1, 1):
        for far in (0.25, 0.5, 0.9):
            x = middle + side * (8 + 60 * far)
            pick(rng, (things.tree, things.fir))(rng, sk, x, horizon + 14 * far, 4 + 16 * far)
    return grained(rng, sk.done(), 0.07)


def forest(rng: Rng, size: int) -> Image.Image:
    from PIL import Image as Pil

    mist = vary(rng, (196, 214, 190))
    sk = Sketch(gradient(size, mist, tint(mist, -0.2)))
    for step in (3, 2, 1, 0):
        tone = tint((64, 52, 42), 0.2 * step)
        for x in rng.uniform(-2, 102, 9 - step):
            wide = (4 - step) * float(rng.uniform(0.5, 1.0))
            sk.box(float(x) - wide, 0, float(x) + wide, 92, tone)
        for x in rng.uniform(-2, 102, 16):
            leaf = tint(vary(rng, (62, 116, 54)), 0.17 * step)
            sk.circle(
                float(x), float(rng.uniform(-6, 12 + step * 5)), float(rng.uniform(4, 10)), leaf
            )
    done = sk.done()
    low = grass(rng, size, vary(rng, (70, 120, 50))).resize((size, size // 4))
    done.paste(low, (0, size - size // 4), Pil.new("L", low.size, 225))
    return grained(rng, done, 0.1)


def room(rng: Rng, size: int) -> Image.Image:
    wall = vary(rng, tint(COLOURS[pick(rng, ("yellow", "green", "blue", "pink", "gray"))], 0.5))
    image = gradient(size, tint(wall, 0.1), tint(wall, -0.12))
    low = round(size * 0.7)
    floor = planks(rng, size, vary(rng, (156, 108, 66)))
    image.paste(floor.crop((0, 0, size, size - low)), (0, low))
    sk = Sketch(image)
    sk.box(0, 68.5, 101, 70.5, (246, 244, 238))
    things.window(rng, sk, float(rng.uniform(22, 40)), 32, 18)
    timber = vary(rng, (120, 78, 46))
    sk.box(50, 60, 96, 63.5, timber)
    for x in (53, 90):
        sk.box(x, 63, x + 3, 88, tint(timber, -0.2))
    for thing, x in ((things.lamp, 60), (things.cup, 76), (things.bottle, 88)):
        thing(rng, sk, x, 52, 7.5)
    pick(rng, (things.chair, things.dog, things.cat))(rng, sk, 30, 79, 14)
    return grained(rng, sk.done(), 0.04)


def shelf(rng: Rng, size: int) -> Image.Image:
    timber = vary(rng, (126, 84, 50))
    sk = Sketch(gradient(size, tint(timber, -0.5), tint(timber, -0.6)))
    for row in range(4):
        floor = 24.0 + row * 25
        x = 1.0
        while x < 97:
            wide, high = float(rng.uniform(2.4, 6)), float(rng.uniform(13, 21))
            back = things.bright(rng) if chance(rng, 0.7) else vary(rng, (150, 130, 110), 40)
            sk.box(x, floor - high, x + wide - 0.4, floor, tint(back, -0.15))
            sk.box(x, floor - high + 3, x + wide - 0.4, floor - high + 4.2, tint(back, 0.5))
            x += wide
        sk.box(0, floor, 101, floor + 2.4, timber)
    return grained(rng, sk.done(), 0.08)


def fence(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(meadow(rng, size))
    paint = vary(rng, pick(rng, ((246, 246, 242), (120, 84, 54), (40, 42, 46))))
    step = float(rng.uniform(7, 13))
    for y in (58, 80):
        sk.box(0, y, 101, y + 4, tint(paint, -0.15))
    for x in np.arange(2, 104, step):
        w = step * 0.3
        sk.polygon([(x - w, 102), (x - w, 46), (x, 40), (x + w, 46), (x + w, 102)], paint)
    return sk.done()


def bars(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size))
    inmate = pick(rng, (things.cat, things.dog, things.bird, things.face, things.robot))
    inmate(rng, sk, 50, 56, 28)
    steel = vary(rng, (72, 74, 82))
    for x in np.arange(6, 104, float(rng.uniform(11, 17))):
        sk.box(float(x) - 1.8, 0, float(x) + 1.8, 101, steel)
        sk.box(float(x) - 1.2, 0, float(x) - 0.4, 101, tint(steel, 0.5))
    return sk.done()


def under_water(rng: Rng, size: int) -> Image.Image:
    deep = vary(rng, (20, 90, 150))
    image = gradient(size, tint(deep, 0.5), deep, tint(deep, -0.5))
    sk = Sketch(shaded(image, noise(rng, size, 3, stretch=(1, 3)), 0.2))
    for x in rng.uniform(2, 98, 14):
        sway = float(rng.uniform(-3, 3))
        top = float(rng.uniform(60, 85))
        points = [(float(x) + sway * math.sin((100 - y) / 7), y) for y in np.arange(101, top, -3.0)]
        sk.line(points, vary(rng, (40, 120, 70)), 2.2)
    for _ in range(int(rng.integers(3, 9))):
        spot = float(rng.uniform(12, 82)), float(rng.uniform(12, 82))
        things.fish(rng, sk, *spot, float(rng.uniform(4, 11)))
    for x, y in rng.uniform(0, 100, (18, 2)):
        sk.ring(float(x), float(y), float(rng.uniform(0.7, 2)), 0.4, (214, 236, 246))
    return sk.done()


def garden(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size, SKIES[int(rng.integers(2))]))
    sk.box(0, 34, 101, 102, vary(rng, (70, 134, 58)))
    kinds = pick(rng, ((things.flower,), (things.tulip,), (things.flower, things.tulip)))
    for row in range(7):
        y, s = 36.0 + row * 9.5, 3.2 + row * 1.1
        for x in np.arange(float(rng.uniform(-4, 4)), 104, s * 2.3):
            pick(rng, kinds)(rng, sk, float(x) + float(rng.uniform(-1, 1)), y, s)
    return sk.done()


def crowd(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(ramp(noise(rng, size, 3), (140, 160, 190), (210, 214, 220)))
    people = chance(rng, 0.5)
    for row in range(4):
        y, s = 22.0 + row * 21, 11.0 + row * 1.5
        for x in np.arange(float(rng.uniform(-2, 8)), 106, s * (1.0 if people else 1.9)):
            (things.person if people else things.face)(rng, sk, float(x), y, s * 0.95)
    return sk.done()


def space(rng: Rng, size: int) -> Image.Image:
    image = ramp(noise(rng, size, 3, octaves=5), (6, 6, 22), (20, 14, 44), (86, 44, 110))
    sk = Sketch(image)
    for x, y in rng.uniform(0, 100, (160, 2)):
        sk.circle(float(x), float(y), float(rng.uniform(0.12, 0.6)), (250, 248, 230))
    for _ in range(int(rng.integers(1, 4))):
        x, y = (float(v) for v in rng.uniform(15, 85, 2))
        r, tone = float(rng.uniform(5, 18)), things.bright(rng)
        sk.circle(x, y, r, tint(tone, -0.7))
        sk.ellipse(x - r * 0.14, y - r * 0.1, r * 0.86, r * 0.9, tone)
        sk.ellipse(x - r * 0.3, y - r * 0.3, r * 0.45, r * 0.4, tint(tone, 0.25))
        if chance(rng, 0.5):
            sk.line(
                [(x - r * 1.8, y + r * 0.5), (x + r * 1.8, y - r * 0.5)], (230, 214, 180), r * 0.16
            )
    return sk.done()


def snow(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size, ((150, 170, 196), (222, 228, 236))))
    for step in (2, 1, 0):
        ridge(rng, sk, 84 - step * 9, 14, tint((196, 210, 228), 0.5 - step * 0.15))
        for x in rng.uniform(2, 98, 4):
            things.fir(rng, sk, float(x), 74 - step * 8, 12 - step * 3)
    things.snowman(rng, sk, float(rng.uniform(25, 75)), 76, 15)
    for x, y in rng.uniform(0, 100, (120, 2)):
        sk.circle(float(x), float(y), float(rng.uniform(0.3, 0.9)), (255, 255, 255))
    return sk.done()


def wall(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(brick(rng, size, vary(rng, pick(rng, ((176, 84, 60), (150, 130, 114))))))
    if chance(rng, 0.5):
        things.keyhole_door(rng, sk, 68, 62, 38)
        things.window(rng, sk, 26, 42, 18)
    else:
        for x in (26, 74):
            for y in (28, 76):
                things.window(rng, sk, x, y, 16)
    return sk.done()


def sunset(rng: Rng, size: int) -> Image.Image:
    sk = Sketch(sky(rng, size, pick(rng, (SKIES[2], SKIES[3]))))
    x, horizon = float(rng.uniform(25, 75)), float(rng.uniform(60, 72))
    for radius, tone in ((17, (255, 200, 110)), (13, (255, 232, 150))):
        sk.circle(x, horizon - 4, radius, tone)
    ridge(rng, sk, horizon + 10, 14, (90, 50, 70), 0.3)
    ridge(rng, sk, horizon + 18, 12, (42, 26, 44))
    for u in rng.uniform(5, 95, 6):
        wide = float(rng.uniform(1.4, 3))
        y = float(rng.uniform(10, 45))
        sk.line([(u - wide, y - wide * 0.5), (u, y), (u + wide, y - wide * 0.5)], (50, 30, 44), 0.6)
    return grained(rng, sk.done(), 0.05)


def rows_of_things(rng: Rng, size: int) -> Image.Image:
    ground = tint(COLOURS[pick(rng, list(COLOURS))], 0.55)
    sk = Sketch(gradient(size, tint(ground, 0.1), tint(ground, -0.1)))
    name = pick(rng, list(things.THINGS))
    count = int(rng.integers(2, 6))
    step = 100 / count
    for row in range(count):
        for column in range(count):
            place = (column + 0.5) * step, (row + 0.5) * step
            things.THINGS[name](rng, sk, *place, step * 0.29)
    return sk.done()


def table(rng: Rng, size: int) -> Image.Image:
    cloth = vary(rng, pick(rng, ((200, 60, 60), (60, 110, 180), (240, 236, 226), (120, 80, 50))))
    sk = Sketch(gradient(size, tint(cloth, 0.15), tint(cloth, -0.2)))
    for x in np.arange(0, 101, 12.5):
        sk.box(float(x), 0, float(x) + 5, 101, tint(cloth, 0.18))
    food = (things.pizza, things.cake, things.apple, things.banana, things.cup)
    for x, y in ((30, 32), (70, 34), (32, 74), (72, 74)):
        sk.circle(x, y, 20, (226, 228, 232))
        sk.circle(x, y, 18, (250, 250, 250))
        pick(rng, food)(rng, sk, x, y, 11)
    return sk.done()


SCENES: dict[str, Painter] = {
    "meadow": meadow, "street": street, "sea": sea, "room": room, "mountains": mountains,
    "night": night, "garden": garden, "road": road, "beach": beach, "crowd": crowd,
    "forest": forest, "city": city, "book-shelf": shelf, "sunset": sunset, "fence": fence,
    "under-water": under_water, "rows-of-things": rows_of_things, "snow": snow, "house-wall": wall,
    "space": space, "table": table, "bars": bars,
}  # fmt: skip


def scene(rng: Rng, k: int) -> Recipe:
    """One of the scenes."""
    name = list(SCENES)[k % len(SCENES)]
    return Recipe(f"scene-{name}", lambda size: SCENES[name](rng, size))


def thing(rng: Rng, k: int) -> Recipe:
    """One thing on a ground."""
    name = list(things.THINGS)[k % len(things.THINGS)]

    def paint(size: int) -> Image.Image:
        sketch = Sketch(backdrop(rng, size))
        s = float(rng.uniform(22, 31))
        x, y = (50 + float(v) for v in rng.uniform(-6, 6, 2))
        things.THINGS[name](rng, sketch, x, y, s)
        return sketch.done()

    return Recipe(f"thing-{name}", paint)


# Things that look alike wherever they are drawn.
ALIKE = ("car", "clock", "heart", "butterfly", "star")


def several(rng: Rng, k: int) -> Recipe:
    """Two or three of one thing, large and small, on a ground."""
    name = ALIKE[k % len(ALIKE)]
    spots = (((30, 30), (70, 70)), ((72, 28), (28, 68)), ((28, 26), (72, 40), (40, 76)))[
        k // len(ALIKE) % 3
    ]

    def paint(size: int) -> Image.Image:
        sketch = Sketch(backdrop(rng, size))
        for x, y in spots:
            s = float(rng.uniform(14, 20))
            dx, dy = (float(v) for v in rng.uniform(-4, 4, 2))
            things.THINGS[name](rng, sketch, x + dx, y + dy, s)
        return sketch.done()

    return Recipe(f"several-{name}", paint)


def backdrop(rng: Rng, size: int) -> Image.Image:
    """A ground to draw a thing on: land under a sky, a floor, a wall, or hardly anything."""
    kind = int(rng.integers(5))
    if kind == 0:
        image = sky(rng, size)
        low = round(size * float(rng.uniform(0.55, 0.8)))
        land = grass(rng, size, vary(rng, (86, 150, 62)))
        image.paste(land.crop((0, 0, size, size - low)), (0, low))
        return image
    tone = tint(vary(rng, colour(pick(rng, list(COLOURS)))), 0.55)
    if kind == 1:
        return gradient(size, tint(tone, 0.2), tint(tone, -0.15))
    if kind == 2:
        image = gradient(size, tone, tint(tone, -0.1))
        floor = planks(rng, size, vary(rng, (150, 104, 64)))
        image.paste(floor.crop((0, 0, size, size // 3)), (0, size - size // 3))
        return image
    if kind == 3:
        return ramp(noise(rng, size, 4, octaves=2), tint(tone, -0.2), tint(tone, 0.3))
    return shaded(gradient(size, (250, 250, 250), (226, 228, 232)), noise(rng, size, 2), 0.03)
