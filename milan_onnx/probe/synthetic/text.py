"""Letters, digits, words, signs and paragraphs in the font that Pillow brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from milan_onnx.probe.synthetic.canvas import (
    COLOURS,
    Recipe,
    Rgb,
    Rng,
    Sketch,
    colour,
    contrasting,
    gradient,
    grained,
    noise,
    pick,
    polar,
    ramp,
    shaded,
    tint,
    vary,
)
from milan_onnx.probe.synthetic.textures import ground

if TYPE_CHECKING:
    from PIL import Image, ImageFont

NAMES = list(COLOURS)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghkmnqrt&?!@%#"
WORDS = (
    "open", "hello", "STOP", "sale", "coffee", "music", "exit", "hotel", "news", "bread", "taxi",
    "garden", "2 for 1", "school", "market", "play", "fresh", "summer", "radio", "train", "ICE",
    "book", "north", "water", "light", "cinema", "apple", "city", "Bank", "love", "fish", "zoo",
)  # fmt: skip
PROSE = [
    "the",
    "old",
    "harbour",
    "lies",
    "below",
    "the",
    "town",
    "and",
    "in",
    "the",
    "morning",
    "boats",
    "come",
    "back",
    "with",
    "fish",
    "while",
    "people",
    "walk",
    "along",
    "the",
    "wall",
    "to",
    "see",
    "what",
    "the",
    "night",
    "has",
    "brought",
    "and",
    "children",
    "count",
    "the",
    "gulls",
    "then",
    "bells",
    "ring",
    "from",
    "the",
    "tower",
    "the",
    "market",
    "opens",
    "under",
    "red",
    "and",
    "white",
    "cloth",
    "and",
    "bread",
    "smells",
    "of",
    "the",
    "oven",
    "until",
    "rain",
    "begins",
    "and",
    "everyone",
    "runs",
    "home",
    "across",
    "the",
    "wet",
    "stones",
    "of",
    "the",
    "square",
]


@lru_cache(maxsize=32)
def font(pixels: int) -> ImageFont.FreeTypeFont:
    """Pillow's bundled font (Aileron) at a size; no font of the system is looked for."""
    from PIL import ImageFont

    loaded = ImageFont.load_default(pixels)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType")
    return loaded


def lettering(
    image: Image.Image,
    text: str,
    rgb: Rgb,
    *,
    height: float,
    centre: tuple[float, float] = (50, 50),
    turn: float = 0.0,
    widest: float = 92.0,
) -> None:
    """Write on an image; sizes and places in hundredths of its side, turned in degrees."""
    from PIL import Image as Pil
    from PIL import ImageDraw

    unit = image.width / 100
    face = font(max(6, round(height * unit)))
    left, top, right, bottom = face.getbbox(text)
    if right - left > widest * unit:
        face = font(max(6, int(height * unit * widest * unit / (right - left))))
        left, top, right, bottom = face.getbbox(text)
    mask = Pil.new("L", (int(right - left) + 8, int(bottom - top) + 8), 0)
    ImageDraw.Draw(mask).text((4 - left, 4 - top), text, fill=255, font=face)
    if turn:
        mask = mask.rotate(turn, Pil.Resampling.BICUBIC, expand=True)
    x, y = centre[0] * unit - mask.width / 2, centre[1] * unit - mask.height / 2
    image.paste(rgb, (round(x), round(y)), mask)


def glyph(rng: Rng, k: int) -> Recipe:
    """One letter, digit or mark."""
    digit = k % 3 == 2
    char = str(k // 3 % 10) if digit else LETTERS[(k * 7) % len(LETTERS)]
    name = NAMES[(k * 5 + 8) % len(NAMES)]
    kind = "digit" if digit else "letter" if char.isalpha() else "mark"
    turn = float(pick(rng, (0, 0, 0, -20, 15, 90)))

    def paint(size: int) -> Image.Image:
        image = ground(rng, size, name)
        place = (float(rng.uniform(40, 60)), float(rng.uniform(42, 58)))
        height = float(rng.uniform(55, 105))
        lettering(image, char, vary(rng, colour(name)), height=height, centre=place, turn=turn)
        return image

    return Recipe(f"{kind}-{_safe(char)}-{name}", paint)


def word(rng: Rng, k: int) -> Recipe:
    """One word, level, leaning or upright along the edge."""
    text = WORDS[(k * 7) % len(WORDS)]
    name = NAMES[(k * 5 + 2) % len(NAMES)]
    turn = float(pick(rng, (0, 0, 0, 12, -15, 30, 90)))

    def paint(size: int) -> Image.Image:
        image = ground(rng, size, name)
        height = float(rng.uniform(16, 40))
        rgb = vary(rng, colour(name))
        lettering(image, text, rgb, height=height, turn=turn)
        if height < 24 and not turn:
            lettering(image, pick(rng, WORDS), rgb, height=height * 0.7, centre=(50, 78))
        return image

    return Recipe(f"word-{_safe(text)}-{name}", paint)


def number(rng: Rng, k: int) -> Recipe:
    """A number, a price, a clock time or a table of digits."""
    name = NAMES[(k * 7 + 6) % len(NAMES)]
    kind = ("number", "price", "time", "digits")[k % 4]

    def paint(size: int) -> Image.Image:
        image = ground(rng, size, name)
        rgb = vary(rng, colour(name))
        if kind == "digits":
            for y in np.arange(14, 96, 18.0):
                row = " ".join(str(d) for d in rng.integers(0, 10, 6))
                lettering(image, row, rgb, height=18, centre=(50, float(y)))
            return image
        text = {
            "number": str(int(rng.integers(10, 9999))),
            "price": f"{int(rng.integers(1, 99))}.{int(rng.integers(0, 10))}9",
            "time": f"{int(rng.integers(0, 24))}:{int(rng.integers(0, 60)):02d}",
        }[kind]
        lettering(image, text, rgb, height=float(rng.uniform(30, 50)))
        return image

    return Recipe(f"{kind}-{name}", paint)


def sign(rng: Rng, k: int) -> Recipe:
    """A street sign on a post, a shop sign, a button, a number plate."""
    kind = ("stop-sign", "round-sign", "warning-sign", "shop-sign", "road-sign", "plate")[k % 6]
    text = pick(rng, WORDS)

    def paint(size: int) -> Image.Image:
        sky = colour("light-" + pick(rng, ("blue", "gray", "cyan", "green", "orange")))
        soft = shaded(gradient(size, tint(sky, 0.2), tint(sky, -0.25)), noise(rng, size, 4), 0.12)
        return _SIGNS[kind](rng, soft, text)

    return Recipe(kind, paint)


def _post(sketch: Sketch) -> None:
    sketch.box(47.5, 50, 52.5, 101, (120, 122, 126))
    sketch.box(47.5, 50, 49, 101, (160, 162, 166))


def _stop(rng: Rng, image: Image.Image, text: str) -> Image.Image:
    sketch = Sketch(image)
    _post(sketch)
    radius = float(rng.uniform(28, 38))
    sketch.polygon(polar(50, 42, radius + 2.5, 8, 22.5), (245, 245, 245))
    sketch.polygon(polar(50, 42, radius, 8, 22.5), vary(rng, (200, 28, 34)))
    done = sketch.done()
    lettering(done, "STOP", (250, 250, 250), height=radius * 0.72, centre=(50, 42))
    return done


def _round(rng: Rng, image: Image.Image, text: str) -> Image.Image:
    sketch = Sketch(image)
    _post(sketch)
    sketch.circle(50, 42, 34, vary(rng, (200, 28, 34)))
    sketch.circle(50, 42, 26, (248, 248, 246))
    done = sketch.done()
    limit = str(10 * int(rng.integers(2, 13)))
    lettering(done, limit, (20, 20, 22), height=32, centre=(50, 42), widest=42)
    return done


def _warning(rng: Rng, image: Image.Image, text: str) -> Image.Image:
    sketch = Sketch(image)
    _post(sketch)
    sketch.polygon(polar(50, 50, 46, 3), vary(rng, (204, 32, 36)))
    inner = pick(rng, ((250, 250, 246), (250, 214, 40)))
    sketch.polygon(polar(50, 50, 33, 3), inner)
    done = sketch.done()
    lettering(done, pick(rng, "!?!12"), (20, 20, 22), height=42, centre=(50, 51))
    return done


def _shop(rng: Rng, image: Image.Image, text: str) -> Image.Image:
    board = vary(rng, colour("dark-" + pick(rng, ("red", "blue", "green", "purple", "brown"))))
    sketch = Sketch(image)
    sketch.line([(25, -5), (25, 32)], (60, 60, 64), 1)
    sketch.line([(75, -5), (75, 32)], (60, 60, 64), 1)
    sketch.rounded(6, 30, 94, 70, 6, tint(board, 0.75))
    sketch.rounded(8, 32, 92, 68, 5, board)
    done = sketch.done()
    lettering(done, text, (252, 236, 180), height=26, widest=76)
    return done


def _road(rng: Rng, image: Image.Image, text: str) -> Image.Image:
    board = vary(rng, pick(rng, ((24, 96, 58), (28, 70, 160), (240, 200, 40))))
    ink = (20, 20, 22) if sum(board) > 400 else (250, 250, 250)
    sketch = Sketch(image)
    _post(sketch)
    sketch.polygon([(8, 26), (78, 26), (95, 42), (78, 58), (8, 58)], ink)
    sketch.polygon([(10, 28), (77, 28), (92, 42), (77, 56), (10, 56)], board)
    done = sketch.done()
    lettering(done, text, ink, height=22, centre=(44, 42), widest=60)
    return done


def _plate(rng: Rng, image: Image.Image, text: str) -> Image.Image:
    car = vary(rng, colour(pick(rng, ("red", "blue", "gray", "black", "green"))))
    letters = "".join(pick(rng, "ABCDEFGHKLMNPRSTXZ") for _ in range(3))
    sketch = Sketch(gradient(image.width, tint(car, 0.2), tint(car, -0.5)))
    sketch.rounded(7, 36, 93, 64, 3, (24, 24, 26))
    sketch.rounded(8.5, 37.5, 91.5, 62.5, 2.5, vary(rng, (244, 240, 226), 8))
    sketch.box(8.5, 39, 15, 61, (30, 60, 150))
    done = sketch.done()
    plate = f"{letters} {int(rng.integers(100, 999))}"
    lettering(done, plate, (26, 26, 30), height=23, centre=(54, 50), widest=72)
    return grained(rng, done)


_SIGNS = {
    "stop-sign": _stop,
    "round-sign": _round,
    "warning-sign": _warning,
    "shop-sign": _shop,
    "road-sign": _road,
    "plate": _plate,
}


def paragraph(rng: Rng, k: int) -> Recipe:
    """A page: lines of text with a heading, in one or two columns."""
    paper = pick(rng, ("white", "white", "light-yellow", "light-brown", "black", "dark-blue"))
    columns = 1 + k % 2
    lines_in = int(pick(rng, (8, 12, 17)))

    def paint(size: int) -> Image.Image:
        dark = paper in ("black", "dark-blue")
        sheet = vary(rng, colour(paper), 6)
        image = ramp(noise(rng, size, 3), tint(sheet, -0.06), sheet)
        ink = (232, 232, 226) if dark else (36, 34, 38)
        title = " ".join(PROSE[int(rng.integers(len(PROSE)))] for _ in range(2))
        lettering(image, title.upper(), ink, height=10, centre=(50, 9), widest=86)
        _columns(rng, image, ink, columns, lines_in)
        return image

    return Recipe(f"page-of-text-{paper}", paint)


def _columns(rng: Rng, image: Image.Image, ink: Rgb, columns: int, lines_in: int) -> None:
    from PIL import ImageDraw

    unit, step = image.width / 100, 80 / lines_in
    face = font(max(6, round(step * 0.72 * unit)))
    lengths = [face.getlength(word + " ") for word in PROSE]
    draw = ImageDraw.Draw(image)
    width = (94 / columns - 5) * unit
    at = int(rng.integers(len(PROSE)))
    for column in range(columns):
        for row in range(lines_in):
            words: list[str] = []
            room = width
            while (room := room - lengths[at % len(PROSE)]) > 0:
                words.append(PROSE[at % len(PROSE)])
                at += 1
            place = ((5 + column * 47) * unit, (18 + row * step) * unit)
            draw.text(place, " ".join(words), fill=ink, font=face)


def poster(rng: Rng, k: int) -> Recipe:
    """A poster or label: a big word, a shape, a small line."""
    name = NAMES[(k * 5 + 4) % len(NAMES)]
    text = WORDS[(k * 5 + 3) % len(WORDS)]
    other = contrasting(rng, name)

    def paint(size: int) -> Image.Image:
        base = vary(rng, colour(name))
        image = gradient(size, tint(base, 0.15), tint(base, -0.2))
        sketch = Sketch(image)
        accent = vary(rng, colour(other))
        if k % 2:
            sketch.circle(50, 40, 30, accent)
        else:
            sketch.box(0, 18, 101, 58, accent)
        done = sketch.done()
        lettering(done, text, base, height=28, centre=(50, 39), widest=54 if k % 2 else 84)
        lettering(done, " ".join(WORDS[(k + j) % 20] for j in range(3)), accent, height=9,
                  centre=(50, 80))  # fmt: skip
        return done

    return Recipe(f"poster-{_safe(text)}-{name}", paint)


def _safe(text: str) -> str:
    """Text as a part of a file name."""
    marks = {"&": "and", "?": "question", "!": "exclamation", "@": "at", "%": "percent",
             "#": "hash"}  # fmt: skip
    return "".join(marks.get(char, char) for char in text).replace(" ", "-")
