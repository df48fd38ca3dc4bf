"""One description read: its words, their parts of speech, its kinds, length and complexity."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from milan_onnx.applications.analyze.kinds import KindFinder, Kinds
from milan_onnx.applications.analyze.speech import CONTENT, Speech
from milan_onnx.applications.lexicon import Lexicon, shipped_lexicon
from milan_onnx.wording import ARTICLES, breaks, normalise


@dataclass(frozen=True)
class Reading:
    """What one description is made of."""

    description: str
    """The words as they stand."""

    words: tuple[str, ...]
    """The words as they are compared (`milan_onnx.wording.normalise`)."""

    tags: tuple[str, ...]
    """The part of speech of each."""

    kinds: Kinds
    """What kinds of thing it names."""

    length: int
    """Words as they stand; what a hyphen joins is one."""

    complexity: int
    """Words that are no head: modifiers, relations and conjunctions."""

    @cached_property
    def speech(self) -> Counter[str]:
        """How many words are of each part of speech."""
        return Counter(self.tags)

    @cached_property
    def vocabulary(self) -> dict[str, str]:
        """Its different words but articles: as they are compared, and as they stand."""
        forms: dict[str, str] = {}
        for text in self.description.lower().replace("-", " ").split():
            key = normalise(text)
            if len(key) == 1:
                forms.setdefault(key[0], text.strip(".,;:!?\"'()"))
        return {word: forms.get(word, word) for word in self.words if word not in ARTICLES}

    @property
    def content(self) -> tuple[str, ...]:
        """Its different nouns, adjectives and verbs, as they stand, in their order."""
        tagged = zip(self.words, self.tags, strict=True)
        return tuple(
            dict.fromkeys(self.vocabulary.get(w, w) for w, tag in tagged if tag in CONTENT)
        )


class Reader:
    """Reads descriptions; each different one once."""

    def __init__(self, kinds: Lexicon | None = None) -> None:
        """``kinds``: a lexicon of kinds; by default the one that ships."""
        self.finder = KindFinder(shipped_lexicon("kinds") if kinds is None else kinds)
        self._speech = Speech()
        self._known: dict[str, Reading] = {}

    def __call__(self, description: str) -> Reading:
        """What a description is made of."""
        if description not in self._known:
            self._known[description] = self._read(description)
        return self._known[description]

    def _read(self, description: str) -> Reading:
        clauses = self._speech.clauses(description)
        return Reading(
            description=description,
            words=tuple(word for words in clauses for word in words),
            tags=tuple(tag for words in clauses for tag in self._speech(words)),
            kinds=self.finder(clauses),
            length=len(description.split()),
            complexity=sum(len(words) - _heads(words) for words in clauses),
        )


def _heads(words: tuple[str, ...]) -> int:
    """Parts of a clause that hold a word: each has one head."""
    ends = [-1, *breaks(words), len(words)]
    return sum(end - start > 1 for start, end in itertools.pairwise(ends))
