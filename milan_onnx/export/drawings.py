"""Drawn training images of what photos show too seldom: stripes by direction and width, chequers,
dots, plain colours, simple shapes, digits and words, a few things.

Early layers are full of detectors of such, and labelled photos have few words for them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from milan_onnx.annotations import AnnotatedUnit, Annotation
from milan_onnx.annotations.units import Frame, Mask, Photo
from milan_onnx.files import sha256_bytes
from milan_onnx.regions import SMALLEST, blob_of, random_blob

SIZE = 224
DRAWN, FEW = 2000, 120
"""Drawings that units are made of, at most and at least; else four a unit."""
SHARES = {"name": 0.4, "colour": 0.3, "coloured": 0.3}
"""What units share."""
PAIRS = 0.35
"""Share of the units of names and of colours that show either of two."""
FEWEST = 5
"""Drawings that must show what a unit shares."""
Floats = NDArray[np.float32]
TONES = {
    "black": (22, 22, 24), "white": (246, 246, 244), "gray": (130, 130, 132), "red": (212, 34, 36),
    "orange": (245, 140, 22), "yellow": (246, 216, 40), "green": (48, 150, 62),
    "blue": (38, 84, 205), "purple": (132, 58, 172), "pink": (246, 128, 184),
    "brown": (118, 72, 36), "tan": (208, 178, 136),
}  # fmt: skip
DIRECTIONS = {"vertical": 0.0, "horizontal": 90.0, "diagonal": 45.0}
WIDTHS = {"thin": (5, 12), "": (14, 36), "thick": (42, 92)}
WORDS = (
    *("open", "house", "bread", "stop", "river", "garden", "market", "summer", "north", "hotel"),
    *("coffee", "music", "light", "water", "paper", "school", "window", "letter", "green"),
    *("happy", "street", "winter", "museum", "fresh", "sale", "today", "exit", "train", "orange"),
    *("world", "thank", "welcome", "library", "doctor", "silver", "bridge", "island", "morning"),
)
Rng = np.random.Generator
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Drawing:
    """One drawn image."""

    image: Image.Image
    """RGB (SIZE, SIZE)."""

    mask: Mask
    """Where the thing is."""

    colour: str
    """What colour it is of."""

    own: tuple[str, ...]
    """Names of it; none where only its colour has a name."""

    general: tuple[str, ...] = ()
    """More general names; units are called by them with a colour only ("blue stripes"), since
    alone they would hide what says more ("thick stripes")."""


class DrawnUnits:
    """Units of drawings: up to fifteen that show one thing or colour, or either of two."""

    def __init__(self, count: int, exemplars: int, seed: int) -> None:
        self._key = (count, exemplars, seed)
        drawn = min(DRAWN, FEW + 4 * count)
        self._drawings = [draw(np.random.default_rng((seed, 77, n))) for n in range(drawn)]
        self._groups = _groups(self._drawings)
        rngs = [np.random.default_rng((seed, 78, number)) for number in range(count)]
        self._chosen = [self._unit(rng, exemplars) for rng in rngs]

    def _unit(self, rng: Rng, exemplars: int) -> tuple[str, list[int]]:
        """A phrase, and the drawings that show what it says but for a few."""
        kind = str(rng.choice([*SHARES], p=[*SHARES.values()]))
        names = sorted(name for name, found in self._groups[kind].items() if len(found) >= FEWEST)
        first, second = (names[i] for i in rng.choice(len(names), 2, replace=False).tolist())
        if rng.random() < PAIRS and kind in ("name", "colour"):
            rows = [self._groups[kind][name] for name in (first, second)]
            share = rng.uniform(0.2, 0.8)  # units that answer to two things seldom do so alike
            shown = [int(rng.choice(rows[int(rng.random() > share)])) for _ in range(exemplars)]
            if kind == "colour":
                return f"{first} and {second} areas", shown
            return f"{first} and {second}", shown
        odd = int(rng.integers(0, 4)) if rng.random() < 0.5 else 0
        found = self._groups[kind][first]
        again = len(found) < exemplars
        shown = rng.choice(found, exemplars - min(odd, exemplars - 1), replace=again).tolist()
        shown += rng.integers(0, len(self._drawings), exemplars - len(shown)).tolist()
        return (f"{first} areas" if kind == "colour" else first), shown

    @cached_property
    def units(self) -> Sequence[AnnotatedUnit]:
        """All units."""
        return [
            AnnotatedUnit("drawings", phrase, number, (Annotation(phrase, "", 3),), len(shown))
            for number, (phrase, shown) in enumerate(self._chosen)
        ]

    def photo(self, unit: int, rank: int) -> Photo:
        """Number of an exemplar's drawing."""
        return self._chosen[unit][1][rank]

    def frames(self, photos: Sequence[Photo], size: int) -> Iterator[tuple[Photo, Frame]]:
        """Drawings uint8 (size, size, 3)."""
        for photo in photos:
            image = self._drawings[cast(int, photo)].image
            yield photo, np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

    def mask(self, unit: int, rank: int, size: int) -> Mask:
        """Where the thing is, bool (size, size): exactly, coarsely, or a part of it."""
        rng = np.random.default_rng((*self._key, unit, rank))
        exact = self._drawings[self._chosen[unit][1][rank]].mask
        kind = int(rng.integers(3))
        other = blob_of(exact, rng) if kind == 1 else exact & random_blob(SIZE, rng)
        mask = exact if kind == 0 or other.mean() <= SMALLEST else other
        plane = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
        return np.asarray(plane, np.bool_)

    def digest(self, units: Sequence[int]) -> str:
        """Hash of what the units are drawn from."""
        return sha256_bytes(repr((self._key, [self._chosen[unit] for unit in units])).encode())


def draw(rng: Rng) -> Drawing:
    """A drawing of a kind by chance."""
    shares = np.array([share for share, _ in KINDS])
    return KINDS[int(rng.choice(len(KINDS), p=shares / shares.sum()))][1](rng)


def _groups(drawings: Sequence[Drawing]) -> dict[str, dict[str, list[int]]]:
    """Drawings by what they may be called, by their colour, and by both."""
    groups: dict[str, dict[str, list[int]]] = {kind: defaultdict(list) for kind in SHARES}
    for number, drawing in enumerate(drawings):
        for name in drawing.own:
            groups["name"][name].append(number)
        groups["colour"][drawing.colour].append(number)
        for name in (*drawing.own, *drawing.general):
            groups["coloured"][f"{drawing.colour} {name}"].append(number)
    return groups


# --- grounds and colours --------------------------------------------------------------------------


def _tone(rng: Rng, name: str) -> Rgb:
    r, g, b = (int(np.clip(v + rng.integers(-12, 13), 0, 255)) for v in TONES[name])
    return r, g, b


def _two(rng: Rng) -> tuple[str, str]:
    first, second = rng.choice(len(TONES), 2, replace=False)
    names = [*TONES]
    if rng.random() < 0.25:
        return ("black", "white") if rng.random() < 0.5 else ("white", "black")
    return names[first], names[second]


def _ground(rng: Rng, name: str) -> Image.Image:
    """A plain ground, or one with a little light and grain."""
    plane = np.ones((SIZE, SIZE, 3)) * _tone(rng, name)
    if rng.random() < 0.5:
        y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
        angle = rng.uniform(0, 2 * math.pi)
        plane += (rng.uniform(0, 50) * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
    plane += rng.normal(0, rng.choice([0, 0, 4, 8]), (SIZE, SIZE, 1))
    return Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))


def _paste(ground: Image.Image, top: NDArray[np.uint8], mask: Mask) -> Image.Image:
    ground.paste(Image.fromarray(top), mask=Image.fromarray(mask))
    return ground


def _area(rng: Rng) -> Mask:
    """The whole frame, or a large shape."""
    if rng.random() < 0.5:
        return np.ones((SIZE, SIZE), np.bool_)
    plane = Image.new("1", (SIZE, SIZE))
    side = rng.integers(90, 190, 2)
    left, top = (int(rng.integers(4, SIZE - s - 3)) for s in side)
    box = (left, top, left + int(side[0]), top + int(side[1]))
    pen = ImageDraw.Draw(plane)
    (pen.ellipse if rng.random() < 0.4 else pen.rectangle)(box, fill=1)
    return np.asarray(plane, np.bool_)


def _filled(rng: Rng, field: Mask, own: tuple[str, ...], general: tuple[str, ...]) -> Drawing:
    """A pattern of two tones in an area."""
    one, two = _two(rng)
    pattern = np.where(field[..., None], _tone(rng, one), _tone(rng, two)).astype(np.uint8)
    if rng.random() < 0.4:
        soft = Image.fromarray(pattern).resize((SIZE // 2,) * 2, Image.Resampling.BOX)
        pattern = np.asarray(soft.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    area = _area(rng)
    ground = _ground(rng, str(rng.choice([*TONES])))
    two_tones = "black and white" if {one, two} == {"black", "white"} else one
    return Drawing(_paste(ground, pattern, area), area, two_tones, own, general)


# --- patterns -------------------------------------------------------------------------------------


def _across(rng: Rng, degrees: float) -> Floats:
    """Distance along a direction, with a phase by chance."""
    angle = math.radians(degrees)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    found: Floats = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    return found + np.float32(rng.uniform(0, 100))


def _stripes(rng: Rng) -> Drawing:
    direction, width = str(rng.choice([*DIRECTIONS])), str(rng.choice([*WIDTHS]))
    degrees = DIRECTIONS[direction] + rng.uniform(-6, 6)
    if direction == "diagonal" and rng.random() < 0.5:
        degrees = -degrees
    field = _across(rng, degrees) % (period := rng.uniform(*WIDTHS[width])) < period * rng.uniform(
        0.35, 0.65
    )
    ways = [word for word in (direction, width) if word]
    own = tuple(f"{way} {noun}" for way in ways for noun in ("stripes", "lines"))
    return _filled(rng, field, own, ("stripes", "striped patterns", "lines"))


def _checks(rng: Rng) -> Drawing:
    turn, cell = float(rng.choice([0, 0, 45])) + rng.uniform(-8, 8), rng.uniform(7, 40)
    across, down = _across(rng, turn) // cell, _across(rng, turn + 90) // cell
    return _filled(rng, (across + down) % 2 < 1, ("checkered patterns", "checks"), ())


def _dots(rng: Rng) -> Drawing:
    turn, cell = float(rng.uniform(0, 90)), rng.uniform(14, 56)
    across, down = _across(rng, turn), _across(rng, turn + 90)
    if rng.random() < 0.5:
        across = across + cell / 2 * (down // cell % 2)
    radius = cell * rng.uniform(0.22, 0.36)
    near = ((across % cell) - cell / 2) ** 2 + ((down % cell) - cell / 2) ** 2 < radius**2
    return _filled(rng, near, ("polka dots", "dots"), ("spots",))


def _plain(rng: Rng) -> Drawing:
    one, two = _two(rng)
    area = _area(rng)
    top = np.asarray(_ground(rng, one))
    return Drawing(_paste(_ground(rng, two), top, area), area, one, ())


# --- shapes and things ----------------------------------------------------------------------------

Points = list[tuple[float, float]]


def _polygon(count: int, inner: float = 1.0) -> Points:
    steps = count if inner == 1 else 2 * count
    radius = [1.0 if i % 2 == 0 or inner == 1 else inner for i in range(steps)]
    turns = [2 * math.pi * i / steps - math.pi / 2 for i in range(steps)]
    return [(r * math.cos(t), r * math.sin(t)) for r, t in zip(radius, turns, strict=True)]


def _heart() -> Points:
    turns = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in turns
    ]


def _box(width: float, height: float) -> Points:
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


ROUND, STRAIGHT = ("round objects", "circular objects"), ("rectangular objects",)
SHAPES: dict[str, tuple[Points, tuple[str, ...]]] = {
    "circles": (_polygon(48), ROUND),
    "squares": (_box(0.85, 0.85), STRAIGHT),
    "rectangles": (_box(1.0, 0.55), STRAIGHT),
    "triangles": (_polygon(3), ()),
    "stars": (_polygon(5, 0.42), ()),
    "hearts": (_heart(), ()),
    "crosses": (
        [(-.3, -1), (.3, -1), (.3, -.3), (1, -.3), (1, .3), (.3, .3), (.3, 1), (-.3, 1),
         (-.3, .3), (-1, .3), (-1, -.3), (-.3, -.3)], (),
    ),
}  # fmt: skip


def _shapes(rng: Rng) -> Drawing:
    name = str(rng.choice([*SHAPES]))
    points, more = SHAPES[name]
    one, two = _two(rng)
    image, plane = _ground(rng, two), Image.new("1", (SIZE, SIZE))
    pens = ImageDraw.Draw(image), ImageDraw.Draw(plane)
    count = int(rng.choice([1, 1, 2, 4, 7]))
    tone, outlined = _tone(rng, one), rng.random() < 0.15
    turn = math.radians(rng.uniform(-25, 25) if name not in ("squares", "rectangles") else
                        rng.uniform(-10, 10))  # fmt: skip
    for _ in range(count):
        size = rng.uniform(40, 95) / math.sqrt(count)
        x, y = rng.uniform(size, SIZE - size, 2)
        placed = [
            (x + size * (math.cos(turn) * a - math.sin(turn) * b),
             y + size * (math.sin(turn) * a + math.cos(turn) * b)) for a, b in points
        ]  # fmt: skip
        if outlined:
            pens[0].line([*placed, placed[0]], fill=tone, width=int(rng.integers(3, 8)))
        else:
            pens[0].polygon(placed, fill=tone)
        pens[1].polygon(placed, fill=1)
    return Drawing(image, np.asarray(plane, np.bool_), one, (name, *more))


class _Pen:
    """Draws parts of a thing around a centre, and marks where they are."""

    def __init__(self, rng: Rng, image: Image.Image, mask: Image.Image) -> None:
        self.size = rng.uniform(38, 96)
        self.x, self.y = rng.uniform(self.size * 0.8, SIZE - self.size * 0.8, 2)
        self.pens = ImageDraw.Draw(image), ImageDraw.Draw(mask)

    def at(self, points: Points) -> Points:
        return [(self.x + self.size * a, self.y + self.size * b) for a, b in points]

    def shape(self, points: Points, tone: Rgb) -> None:
        self.pens[0].polygon(self.at(points), fill=tone)
        self.pens[1].polygon(self.at(points), fill=1)

    def disc(self, x: float, y: float, rx: float, tone: Rgb, ry: float = 0.0) -> None:
        self.shape([(x + rx * a, y + (ry or rx) * b) for a, b in _polygon(36)], tone)

    def line(self, points: Points, tone: Rgb, width: float) -> None:
        self.pens[0].line(self.at(points), fill=tone, width=max(1, int(width * self.size)))


def _car(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    pen.shape([(-1, 0.25), (-0.95, -0.1), (0.95, -0.1), (1, 0.25)], tone)
    pen.shape([(-0.6, -0.1), (-0.35, -0.5), (0.35, -0.5), (0.65, -0.1)], tone)
    pen.shape([(-0.45, -0.12), (-0.28, -0.42), (0.0, -0.42), (0.0, -0.12)], _tone(rng, "white"))
    pen.shape([(0.08, -0.12), (0.08, -0.42), (0.28, -0.42), (0.48, -0.12)], _tone(rng, "white"))
    for x in (-0.55, 0.55):
        pen.disc(x, 0.27, 0.22, _tone(rng, "black"))
        pen.disc(x, 0.27, 0.1, _tone(rng, "gray"))


def _clock(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    pen.disc(0, 0, 1.0, tone)
    pen.disc(0, 0, 0.86, _tone(rng, "white"))
    dark = _tone(rng, "black")
    for a, b in _polygon(12):
        pen.line([(0.7 * a, 0.7 * b), (0.82 * a, 0.82 * b)], dark, 0.05)
    for length in (0.45, 0.68):
        turn = rng.uniform(0, 2 * math.pi)
        pen.line([(0, 0), (length * math.cos(turn), length * math.sin(turn))], dark, 0.07)


def _butterfly(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    low, spot = rng.uniform(0.3, 0.42), _tone(rng, str(rng.choice([*TONES])))
    for side in (-1, 1):
        pen.disc(0.5 * side, -0.35, 0.48, tone, 0.5)
        pen.disc(0.4 * side, 0.42, low, tone, 0.4)
        pen.disc(0.5 * side, -0.35, 0.18, spot)
        pen.line([(0, -0.5), (0.25 * side, -0.95)], _tone(rng, "black"), 0.03)
    pen.disc(0, 0, 0.09, _tone(rng, "black"), 0.65)


def _flower(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    for a, b in _polygon(int(rng.integers(5, 9))):
        pen.disc(0.55 * a, 0.55 * b, 0.34, tone)
    pen.disc(0, 0, 0.3, _tone(rng, "yellow" if rng.random() < 0.7 else "brown"))


def _house(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    pen.shape(_box(0.75, 0.55), tone)
    pen.shape([(-0.95, -0.5), (0, -1.05), (0.95, -0.5)], _tone(rng, "red"))
    pen.shape([(-0.15, 0.55), (-0.15, 0.0), (0.15, 0.0), (0.15, 0.55)], _tone(rng, "brown"))
    for x in (-0.45, 0.45):
        pen.shape([(x + a * 0.15, -0.15 + b * 0.15) for a, b in _box(1, 1)], _tone(rng, "white"))


def _fish(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    pen.disc(0, 0, 0.8, tone, 0.45)
    pen.shape([(0.65, 0), (1.1, -0.4), (1.1, 0.4)], tone)
    pen.disc(-0.45, -0.1, 0.1, _tone(rng, "white"))
    pen.disc(-0.45, -0.1, 0.05, _tone(rng, "black"))


def _tree(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    green = _tone(rng, "green")
    pen.shape([(-0.12, 0.1), (0.12, 0.1), (0.15, 1), (-0.15, 1)], _tone(rng, "brown"))
    for x, y in ((-0.35, -0.1), (0.35, -0.1), (0, -0.5), (0, 0)):
        pen.disc(x, y, 0.45, green)


def _face(rng: Rng, pen: _Pen, tone: Rgb) -> None:
    pen.disc(0, 0, 0.9, tone)
    for x in (-0.32, 0.32):
        pen.disc(x, -0.2, 0.12, _tone(rng, "black"))
    pen.line([(0.5 * math.cos(t), 0.15 + 0.4 * math.sin(t)) for t in np.linspace(0.3, 2.8, 9)],
             _tone(rng, "black"), 0.07)  # fmt: skip


# Without more general names: one kind of vehicle is drawn, and would teach that such cars are
# "vehicles".
THINGS: dict[str, Callable[[Rng, _Pen, Rgb], None]] = {
    "cars": _car,
    "clocks": _clock,
    "butterflies": _butterfly,
    "flowers": _flower,
    "houses": _house,
    "fish": _fish,
    "trees": _tree,
    "faces": _face,
}


def _things(rng: Rng) -> Drawing:
    name = str(rng.choice([*THINGS]))
    one, two = _two(rng)
    image, plane = _ground(rng, two), Image.new("1", (SIZE, SIZE))
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        THINGS[name](rng, _Pen(rng, image, plane), _tone(rng, one))
    return Drawing(image, np.asarray(plane, np.bool_), one, (name,))


# --- text -----------------------------------------------------------------------------------------


def _number(rng: Rng) -> str:
    a, b = (int(v) for v in rng.integers(0, 60, 2))
    whole = int(rng.integers(0, 10 ** int(rng.integers(1, 5))))
    return str(rng.choice([f"{whole}", f"{whole}.{b:02d}", f"{a % 24}:{b:02d}", f"{a}", f"{b}%"]))


def _word(rng: Rng) -> str:
    word = str(rng.choice(WORDS))
    return str(rng.choice([word, word.upper(), word.title()]))


def _text(rng: Rng) -> Drawing:
    digits = rng.random() < 0.5
    make = _number if digits else _word
    one, two = _two(rng)
    image, plane = _ground(rng, two), Image.new("1", (SIZE, SIZE))
    if rng.random() < 0.4:  # a plate or a sign behind it
        box = (*rng.integers(4, 30, 2).tolist(), *rng.integers(194, 220, 2).tolist())
        ImageDraw.Draw(image).rectangle(box, fill=_tone(rng, "white"), outline=_tone(rng, one))
    size = int(rng.integers(16, 84))
    font, tone = ImageFont.load_default(size), _tone(rng, one)
    pens = ImageDraw.Draw(image), ImageDraw.Draw(plane)
    for top in range(int(rng.integers(6, 40)), SIZE - size, int(size * rng.uniform(1.2, 2.5))):
        left = float(rng.uniform(4, 40))
        while left < SIZE - size / 2:
            said = make(rng)
            box = pens[0].textbbox((left, top), said, font=font)
            if box[2] > SIZE - 2:
                break
            pens[0].text((left, top), said, fill=tone, font=font)
            pens[1].rectangle(box, fill=1)
            left = box[2] + size * rng.uniform(0.3, 1.2)
    mask = np.asarray(plane, np.bool_)
    if not mask.any():
        return _text(rng)
    if digits:
        return Drawing(image, mask, one, ("numbers", "digits"), ("text",))
    return Drawing(image, mask, one, ("words", "letters", "text"))


KINDS: tuple[tuple[float, Callable[[Rng], Drawing]], ...] = (
    (0.26, _stripes),
    (0.08, _checks),
    (0.08, _dots),
    (0.20, _plain),
    (0.14, _shapes),
    (0.12, _things),
    (0.12, _text),
)
"""Kinds of drawings and how often each is made."""
