"""What counts as right for a unit, and how descriptions do against it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milan_onnx.wording import right

Values = NDArray[np.float64]
Descriptions = Sequence[Sequence[str]]
"""Of each unit, the best first; none where there is nothing to describe."""

TOP = 5


@dataclass(frozen=True)
class Answer:
    """What a unit may be called."""

    label: tuple[str, ...]
    """Names of the thing itself."""

    general: tuple[str, ...] = ()
    """More general names: right, but less is known by them."""

    said: tuple[str, ...] = ()
    """What a description's similarity is measured to, averaged over these."""


def verdicts(answers: Sequence[Answer], descriptions: Descriptions) -> dict[str, Values]:
    """Which units are right, 0 or 1 (U,): ``label`` by own names, ``any`` by general ones too.

    ``1``: the first description is; ``5``: one of the first five is.
    """
    columns = {
        f"{kind}_top{top}": np.zeros(len(answers)) for kind in ("label", "any") for top in (1, TOP)
    }
    for unit, (answer, texts) in enumerate(zip(answers, descriptions, strict=True)):
        own = [_right(text, answer.label) for text in texts[:TOP]]
        wide = [ok or _right(text, _all(answer)) for ok, text in zip(own, texts, strict=False)]
        for kind, hits in (("label", own), ("any", wide)):
            columns[f"{kind}_top1"][unit] = bool(hits) and hits[0]
            columns[f"{kind}_top{TOP}"][unit] = any(hits)
    return columns


def _all(answer: Answer) -> tuple[str, ...]:
    return (*answer.label, *answer.general)


@functools.lru_cache(maxsize=1 << 18)
def _right(description: str, accepted: tuple[str, ...]) -> bool:
    return right(description, accepted)


def firsts(descriptions: Descriptions) -> list[str]:
    """The first description of each unit, empty where there is none."""
    return [texts[0] if texts else "" for texts in descriptions]


def variety(descriptions: Descriptions, words: int) -> Mapping[str, float]:
    """How much is told apart.

    ``distinct``: different first descriptions a unit. ``vocabulary``: share of the bundle's
    ``words`` words that they use; not there where it has none, or they are not known.
    """
    said = [text for text in firsts(descriptions) if text]
    figures = {"distinct": len(set(said)) / max(1, len(descriptions))}
    if words:
        figures["vocabulary"] = len({word for text in said for word in text.split()}) / words
    return figures
