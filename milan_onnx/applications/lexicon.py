"""Groups of words: which concepts a description names.

A lexicon is TOML, a table a group:

    [faces]
    about = "Faces and their parts."
    words = ["face", "eye", "human head"]

A description names a group when the words of one of its terms stand in it side by side, plurals
and spelling folded (`milan_onnx.wording.normalise`): "closed eyes" names ``eye``, "eyeglasses" does
not. ``except`` lists what only looks like a term: with ``except = ["clock face"]``, "clock faces"
does not name ``face``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from milan_onnx.errors import BadInput
from milan_onnx.wording import normalise

KEYS = ("about", "against", "except", "words")


@dataclass(frozen=True)
class Group:
    """A concept, by the terms that name it."""

    name: str
    """What policies and tables call it."""

    words: tuple[str, ...]
    """Terms of one or several words."""

    about: str = ""
    """One sentence on what it holds."""

    exceptions: tuple[str, ...] = ()
    """Terms that hold one of the words and mean something else."""

    against: tuple[str, ...] = ()
    """Groups that it is easily taken for: it must be likelier than these."""

    @cached_property
    def terms(self) -> dict[tuple[str, ...], str]:
        """The terms as they are compared, and as they were written."""
        found: dict[tuple[str, ...], str] = {}
        for word in self.words:
            found.setdefault(normalise(word), word)
        return found

    @cached_property
    def _other(self) -> dict[tuple[str, ...], str]:
        return {normalise(word): word for word in self.exceptions}

    def named(self, description: str) -> tuple[str, ...]:
        """The terms that a description holds, in its order; none where it is of other things."""
        said = normalise(description)
        other = {i for span in _spans(said, self._other) for i in range(*span)}
        spans = (span for span in _spans(said, self.terms) if not other.issuperset(range(*span)))
        return tuple(dict.fromkeys(self.terms[said[slice(*span)]] for span in spans))


def _spans(words: tuple[str, ...], terms: Mapping[tuple[str, ...], str]) -> list[tuple[int, int]]:
    """Where terms stand among words: (first, after the last)."""
    longest = max(map(len, terms), default=0)
    return [
        (start, end)
        for start in range(len(words))
        for end in range(start + 1, min(start + longest, len(words)) + 1)
        if words[start:end] in terms
    ]


Lexicon = Mapping[str, Group]


def read_lexicon(path: Path) -> dict[str, Group]:
    """A lexicon from a file. Raises BadInput naming what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no name of a file
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"cannot read the lexicon {path}: {reason}", hint="check it") from error
    return parse_lexicon(text, str(path))


def shipped_lexicon(name: str) -> dict[str, Group]:
    """A lexicon that comes with the package: ``audit`` or ``kinds``."""
    place = resources.files("milan_onnx.applications").joinpath("lexicons", f"{name}.toml")
    return parse_lexicon(place.read_text(encoding="utf-8"), place.name)


def parse_lexicon(text: str, source: str) -> dict[str, Group]:
    """A lexicon from TOML. Raises BadInput naming what is wrong in it."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"the lexicon {source} is not TOML: {error}", hint="mend it") from error
    return {name: group(name, value, source) for name, value in tables.items()}


def group(name: str, value: object, source: str) -> Group:
    """One group of a lexicon. Raises BadInput naming what is wrong in it."""
    where = f"the group {name} of {source}"
    if not isinstance(value, dict):
        raise BadInput(f"{where} is no table", hint='write [name] and words = ["a word"]')
    unknown = sorted(set(value).difference(KEYS))
    if unknown:
        raise BadInput(
            f"{where} has the unknown key {unknown[0]}", hint=f"keys are {', '.join(KEYS)}"
        )
    words = _words(value.get("words"), "words", where)
    exceptions = _words(value["except"], "except", where) if "except" in value else ()
    against = _words(value["against"], "against", where) if "against" in value else ()
    return Group(name, words, str(value.get("about", "")), exceptions, against)


def _words(value: object, key: str, where: str) -> tuple[str, ...]:
    words: Sequence[object] = value if isinstance(value, list) else ()
    if not words or not all(isinstance(word, str) and normalise(word) for word in words):
        raise BadInput(f"{where} has no list of {key}", hint=f'write {key} = ["face", "eye"]')
    return tuple(map(str, words))
