"""Phrases that people say of regions: names of labels and classes, colours, lines, light.

One generator makes the captioner's targets and the language model's text. Were they different,
the language model's share of the score would reward what is only rare in its own text.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from milan_onnx.errors import ProbeError

EDGE_PHRASES = {
    "vertical": ("vertical lines", "vertical edges"),
    "horizontal": ("horizontal lines", "horizontal edges"),
    "diagonal": ("diagonal lines", "diagonal edges"),
}
LIGHT_PHRASES = {"light": ("bright areas",), "dark": ("dark areas",)}
SMOOTH_PHRASES = ("smooth areas",)
SHAPE_PHRASES = {
    "round": ("round objects", "circular objects"),
    "rectangular": ("rectangular objects",),
    "long": ("long thin objects",),
}
OUTLINE_PHRASES = {
    "round outline": ("rounded edges",),
    "outline": ("edges of objects",),
}
BACKGROUND = "backgrounds"
TWO_TONES = "black and white"


def colour_phrases(colour: str, objects: bool) -> tuple[str, ...]:
    """Ways to say that regions share a colour."""
    if objects or colour == TWO_TONES:
        return (f"{colour} {'objects' if objects else 'areas'}",)
    return f"{colour} areas", f"the color {colour}"


def tokenise(text: str) -> list[str]:
    """Lowercase words; punctuation stands alone, hyphens and apostrophes belong to words."""
    return re.findall(r"[\w'-]+|[^\w\s'-]", text.lower())


def vocabulary_of(phrases: Iterable[str]) -> tuple[str, ...]:
    """All words of the phrases, sorted."""
    return tuple(sorted({word for phrase in phrases for word in tokenise(phrase)}))


def human_phrases(data: Path, words: Sequence[str], longest: int = 12) -> list[str]:
    """People's descriptions of units that use no word outside the vocabulary."""
    path = data / "unit_descriptions.tsv.gz"
    if not path.is_file():
        raise ProbeError(f"{data} holds no unit_descriptions.tsv.gz", hint="see --data")
    known = set(words)
    kept = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            tokens = tokenise(line.split("\t")[0])
            if tokens and len(tokens) <= longest and known.issuperset(tokens):
                kept.append(" ".join(tokens))
    return kept
