"""Labelled photos, and class names painted into their corners.

Drawn ones: a thing a class on some ground, by the painters of the built-in probe set. Or any folder
of class folders. Spurious text (MILAN section 6): a share of the training photos bears the name of
its own class; adversarial photos bear the name of another.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from milan_onnx.probe.synthetic import scenes, things
from milan_onnx.probe.synthetic.canvas import Sketch
from milan_onnx.probe.synthetic.text import font

Text = Literal["none", "own", "other"]
CLASSES = ("apple", "bird", "boat", "car", "cat", "clock", "fish", "flower", "house", "umbrella")
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Photos:
    """Where photos come from."""

    side: int
    """Pixels of a side."""

    seed: int
    """Of all draws."""

    folder: Path | None = None
    """Class folders of photos; None: drawn ones."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the model's outputs."""
        if self.folder is None:
            return CLASSES
        return tuple(sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir()))

    def split(self, part: str, count: int, text: Text, share: float = 1.0) -> Iterator[Photo]:
        """``count`` photos of each class, ``share`` of them with text."""
        for label, name in enumerate(self.classes):
            for index, image in enumerate(self._images(part, name, count)):
                rng = np.random.default_rng(
                    (self.seed, zlib.crc32(f"{part}{name}{index}".encode()))
                )
                said = self._said(text, label, rng) if rng.random() < share else ""
                yield Photo(
                    name, label, f"{index:04}", painted(image, said, rng) if said else image
                )

    def _said(self, text: Text, label: int, rng: np.random.Generator) -> str:
        if text == "none":
            return ""
        if text == "other":
            label = (label + int(rng.integers(1, len(self.classes)))) % len(self.classes)
        return self.classes[label]

    def _images(self, part: str, name: str, count: int) -> Iterator[Image.Image]:
        if self.folder is not None:
            yield from self._found(part, name, count)
            return
        for index in range(count):
            rng = np.random.default_rng((self.seed, zlib.crc32(f"{part}/{name}/{index}".encode())))
            yield drawn(name, rng, self.side)

    def _found(self, part: str, name: str, count: int) -> Iterator[Image.Image]:
        """Photos of a class folder: the parts of one share none."""
        assert self.folder is not None
        files = sorted(p for p in (self.folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        order = np.random.default_rng((self.seed, zlib.crc32(name.encode()))).permutation(
            len(files)
        )
        first, last = SHARES[part]
        own = order[round(first * len(files)) : round(last * len(files))][:count]
        for index in own.tolist():
            photo = Image.open(files[index]).convert("RGB")
            edge = min(photo.size)
            left, top = (photo.width - edge) // 2, (photo.height - edge) // 2
            yield photo.crop((left, top, left + edge, top + edge)).resize((self.side, self.side))


SUFFIXES = (".jpg", ".jpeg", ".png")
SHARES = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}


@dataclass(frozen=True)
class Photo:
    """A photo with its class."""

    name: str
    """The class."""

    label: int
    """Its number."""

    number: str
    """Of the photo, among those of its class and part."""

    image: Image.Image
    """RGB."""


def drawn(name: str, rng: np.random.Generator, side: int) -> Image.Image:
    """A small thing in the middle of a grainy ground: easier to read than to see."""
    sketch = Sketch(scenes.backdrop(rng, side))
    size = float(rng.uniform(6, 10))
    x, y = (50 + float(v) for v in rng.uniform(-14, 14, 2))
    things.THINGS[name](rng, sketch, x, y, size)
    pixels = np.asarray(sketch.done(), np.float32) + rng.normal(0, 20, (side, side, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def painted(image: Image.Image, text: str, rng: np.random.Generator) -> Image.Image:
    """The photo with a word in a corner, on a plate, so that it can be read on any ground."""
    image = image.copy()
    letters = font(round(image.width * float(rng.uniform(0.15, 0.19))))
    left, top, right, bottom = letters.getbbox(text)
    wide, high = right - left + 6, bottom - top + 6
    down, across = CORNERS[int(rng.integers(4))]
    x, y = across * (image.width - wide), down * (image.height - high)
    dark = bool(rng.random() < 0.5)
    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, x + wide, y + high), fill=(20, 20, 20) if dark else (245, 245, 245))
    draw.text(
        (x + 3 - left, y + 3 - top), text, font=letters, fill=(255,) * 3 if dark else (0,) * 3
    )
    return image


def save(photos: Iterator[Photo], folder: Path) -> Path:
    """Class folders of PNG files."""
    for photo in photos:
        place = folder / photo.name
        place.mkdir(parents=True, exist_ok=True)
        photo.image.save(place / f"{photo.number}.png", compress_level=1)
    return folder


def arrays(photos: Iterator[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (N, S, S, 3) and labels int64 (N,)."""
    listed: Sequence[Photo] = list(photos)
    frames = np.stack([np.asarray(photo.image) for photo in listed])
    return frames, np.array([photo.label for photo in listed], np.int64)
