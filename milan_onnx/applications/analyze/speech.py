"""Parts of speech of a description's words, from a list and one rule; no parser.

The list is ``lexicons/parts_of_speech.toml``. A word that it does not hold is a noun: descriptions
of units are mostly nouns, and a network may be described in words that no list foresees.
"""

from __future__ import annotations

import re

from milan_onnx.applications.lexicon import Lexicon, shipped_lexicon
from milan_onnx.wording import breaks, normalise

NOUN = "noun"
PARTS = ("noun", "adjective", "verb", "adposition", "conjunction", "other")
"""All parts of speech; other: articles, pronouns, numbers, adverbs."""
_COMMA = re.compile("[,;]")
CONTENT = frozenset({"noun", "adjective", "verb"})


class Speech:
    """Tags words."""

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        """``lexicon``: by default the one that ships; its groups are `PARTS`."""
        found = shipped_lexicon("parts_of_speech") if lexicon is None else lexicon
        self._parts: dict[str, tuple[str, ...]] = {}
        for name, group in found.items():
            for words in group.terms:
                word = " ".join(words)
                self._parts[word] = (*self._parts.get(word, ()), name)

    def __call__(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The part of speech of each word of a normalised phrase, of `PARTS`."""
        ends = {*breaks(words), len(words)}
        return tuple(self._part(word, place + 1 in ends) for place, word in enumerate(words))

    def clauses(self, description: str) -> tuple[tuple[str, ...], ...]:
        """The normalised words of a description, apart where a comma follows a noun.

        So "dogs, cats" has two clauses and "long, thin objects" has one.
        """
        clauses: list[tuple[str, ...]] = []
        open_clause: tuple[str, ...] = ()
        for chunk in _COMMA.split(description):
            open_clause += normalise(chunk)
            if open_clause and self._part(open_clause[-1], last=False) == NOUN:
                clauses.append(open_clause)
                open_clause = ()
        return (*clauses, open_clause) if open_clause else tuple(clauses)

    def _part(self, word: str, last: bool) -> str:
        """Of a noun that is something else too: a noun where it ends its part of the phrase."""
        parts = self._parts.get(word, (NOUN,))
        others = [part for part in parts if part != NOUN]
        return NOUN if not others or (last and NOUN in parts) else others[0]
