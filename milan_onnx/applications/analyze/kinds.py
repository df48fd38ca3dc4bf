"""Which kinds of thing a description names, and which of them is the main one.

The rules are few, so that a person can predict them; docs/analyze.md has them with examples. Terms
of a lexicon (``lexicons/kinds.toml``) are found from left to right, the longest at each place.
Relations and conjunctions hold the parts of a description apart (`milan_onnx.wording.breaks`); a
part's head is its last term that stands for something of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from milan_onnx.applications.lexicon import Lexicon
from milan_onnx.wording import breaks

ABSTRACT = "abstract"
ATTRIBUTES = frozenset({"colour", "texture"})
BEFORE = ATTRIBUTES | {"object"}
"""What counts before another thing: "red dog faces" has a colour and an object, "sea lions" no
scene, "king penguins" no person."""
JOINS = frozenset({"relation", "logic"})
"""Kinds of words that stand between things: never a head, so never the main kind."""


@dataclass(frozen=True)
class Kinds:
    """The kinds of one description."""

    all: tuple[str, ...]
    """Every kind that it names, in the lexicon's order."""

    main: str | None
    """The head's kind; None where the lexicon knows no thing in it."""


@dataclass(frozen=True)
class _Term:
    """A term of the lexicon, found in a description."""

    start: int
    """Its first word."""

    end: int
    """The word after its last."""

    groups: tuple[str, ...]
    """The groups that hold it, in the lexicon's order."""


class KindFinder:
    """Finds kinds in descriptions."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.names = tuple(lexicon)
        """All kinds, in the lexicon's order."""
        self.mains = tuple(name for name in lexicon if name not in JOINS)
        """Those that can be a main kind."""
        self._groups: dict[tuple[str, ...], tuple[str, ...]] = {}
        for name, group in lexicon.items():
            for words in group.terms:
                self._groups[words] = (*self._groups.get(words, ()), name)
        self._longest = max(map(len, self._groups), default=0)

    def __call__(self, clauses: Iterable[tuple[str, ...]]) -> Kinds:
        """The kinds of a description, of normalised words by clause (`Speech.clauses`)."""
        read = [(words, self._terms(words)) for words in clauses]
        found = {name for _, terms in read for t in terms for name in t.groups if name in JOINS}
        mains: list[str] = []
        for part, end in (part for words, terms in read for part in _parts(words, terms)):
            named = _part_kinds(part, end)
            found.update(*named)
            head = next((kinds for kinds in reversed(named) if _own(kinds)), ())
            mains += [name for name in head if name != ABSTRACT][:1]
        if not mains and ABSTRACT in found:
            mains = [ABSTRACT]
        everything = tuple(name for name in self.names if name in found)
        return Kinds(everything, next(iter(mains), None))

    def known(self, word: str) -> bool:
        """Whether a normalised word is a term."""
        return (word,) in self._groups

    def _terms(self, words: tuple[str, ...]) -> list[_Term]:
        """The longest terms from left to right."""
        terms: list[_Term] = []
        start = 0
        while start < len(words):
            ends = range(min(len(words), start + self._longest), start, -1)
            end = next((end for end in ends if words[start:end] in self._groups), None)
            if end is not None:
                terms.append(_Term(start, end, self._groups[words[start:end]]))
            start = end or start + 1
        return terms


def _parts(words: tuple[str, ...], terms: Sequence[_Term]) -> list[tuple[list[_Term], int]]:
    """The terms of each part that are no joins, and where the part ends.

    A relation within a term breaks nothing: "birds of prey" is one term.
    """
    inside = {place for term in terms for place in range(term.start, term.end) if _long(term)}
    parts = []
    start = 0
    for end in [*(place for place in breaks(words) if place not in inside), len(words)]:
        own = [t for t in terms if start <= t.start < end and not JOINS.issuperset(t.groups)]
        parts.append((own, end))
        start = end + 1
    return parts


def _long(term: _Term) -> bool:
    return term.end - term.start > 1


def _part_kinds(terms: Sequence[_Term], end: int) -> list[tuple[str, ...]]:
    """The kinds of each term of a part that ends at ``end``."""
    kinds = [_senses(term.groups, last=term.end == end) for term in terms]
    head = max((place for place, own in enumerate(kinds) if _own(own)), default=len(kinds))
    return [
        own if place >= head or head == len(kinds) else tuple(k for k in own if k in BEFORE)
        for place, own in enumerate(kinds)
    ]


def _senses(groups: tuple[str, ...], *, last: bool) -> tuple[str, ...]:
    """Of a term that is an attribute and a thing (orange): the thing where it ends its part."""
    things = tuple(name for name in groups if name not in ATTRIBUTES)
    if not things or len(things) == len(groups):
        return groups
    return things if last else tuple(name for name in groups if name in ATTRIBUTES)


def _own(kinds: tuple[str, ...]) -> bool:
    """Whether a term stands for something of its own."""
    return any(name != ABSTRACT for name in kinds)
