"""When two phrases say the same: plural, spelling and articles folded; a head with its modifiers.

Used wherever a description is judged against phrases that count as right. The rules are small on
purpose, so that a person can predict a verdict; what they do not know counts as different:

    same words     "Dogs" and "a dog"; "gray areas" and "grey area"; "t-shirts" and "T shirt"
    a modifier     "brown dogs" says "dogs"; "dogs" does not say "brown dogs"
    no head        "heads of dogs" does not say "dogs", nor does "hot dogs"
    several        "dogs and wolves" is right where "dogs" and "wolves" both are, "dogs and cats"
                   is not where "cats" are wrong
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

ARTICLES = frozenset({"a", "an", "the"})
JOINING = frozenset({"and", "or"})
# What stands before one of these is not a modifier of what follows.
RELATIONS = frozenset(
    {
        "about", "above", "across", "against", "along", "among", "around", "as", "at",
        "before", "behind", "below", "beneath", "beside", "between", "beyond", "by", "down",
        "for", "from", "in", "inside", "into", "like", "near", "no", "not", "of", "off",
        "on", "onto", "out", "outside", "over", "through", "to", "toward", "under", "up",
        "upon", "with", "within", "without",
    }
)  # fmt: skip
COLOURS = frozenset(
    {
        "black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple",
        "pink", "brown", "tan",
    }
)  # fmt: skip
# "A hot dog" is no dog: names whose last word is not what they name.
NAMES = frozenset(
    {
        ("hot", "dog"), ("prairie", "dog"), ("teddy", "bear"), ("koala", "bear"), ("sea", "lion"),
        ("guinea", "pig"), ("sea", "horse"), ("star", "fish"), ("jelly", "fish"), ("pine", "apple"),
        ("cray", "fish"), ("shell", "fish"), ("butter", "fly"), ("dragon", "fly"), ("lady", "bug"),
        ("piggy", "bank"), ("water", "melon"), ("sea", "cucumber"), ("ant", "eater"),
        ("fire", "fly"), ("computer", "mouse"),
    }
)  # fmt: skip

_IRREGULAR = {
    "children": "child", "people": "person", "men": "man", "women": "woman", "feet": "foot",
    "teeth": "tooth", "mice": "mouse", "geese": "goose", "oxen": "ox", "dice": "die",
    "leaves": "leaf", "knives": "knife", "wolves": "wolf", "shelves": "shelf", "loaves": "loaf",
    "scarves": "scarf", "halves": "half", "calves": "calf", "lives": "life", "wives": "wife",
    "hooves": "hoof", "thieves": "thief", "elves": "elf", "selves": "self", "bookshelves":
    "bookshelf", "buses": "bus", "lenses": "lens", "canvases": "canvas", "gases": "gas",
    "viruses": "virus", "octopuses": "octopus", "platypuses": "platypus", "walruses": "walrus",
    "cactuses": "cactus", "cacti": "cactus", "fungi": "fungus", "abacuses": "abacus", "irises":
    "iris", "ibises": "ibis", "axes": "axe", "canoes": "canoe", "shoes": "shoe", "horseshoes":
    "horseshoe", "cookies": "cookie", "movies": "movie", "zombies": "zombie", "hoodies": "hoodie",
    "brownies": "brownie", "headaches": "headache", "moustaches": "moustache", "mustaches":
    "mustache", "quizzes": "quiz", "vertices": "vertex", "matrices": "matrix",
}  # fmt: skip
_SINGULAR = frozenset(
    {
        "always", "atlas", "canvas", "christmas", "gas", "lens", "news", "perhaps",
        "series", "species", "this", "texas",
    }
)  # fmt: skip
_ES = re.compile(r"(?:ch|sh|ss|x|zz)es$")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@lru_cache(maxsize=1 << 14)
def normalise(text: str) -> tuple[str, ...]:
    """The words of a phrase as they are compared: a key, not a text for people.

    Lower case, plurals folded by rule ("leaves" "leaf", "boxes" "box", "dogs" "dog"), "color" as
    "colour" and "gray" as "grey", hyphens as spaces, articles dropped unless they end the phrase.
    Normalising the joined words again changes nothing.
    """
    words = [
        _folded(word)
        for word in _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    ]
    return tuple(w for i, w in enumerate(words) if w not in ARTICLES or i == len(words) - 1)


def says(description: str, phrase: str) -> bool:
    """Whether a description says a phrase: the same words, or modifiers and then those words."""
    return _says(normalise(description), normalise(phrase))


def right(description: str, accepted: Collection[str]) -> bool:
    """Whether a description says one of the accepted phrases.

    Where it joins several ("dogs and wolves") each of them must, unless the whole is accepted.
    """
    phrases = [normalise(phrase) for phrase in accepted]
    words = normalise(description)
    if any(_says(words, phrase) for phrase in phrases):
        return True
    parts = _parts(words)
    return len(parts) > 1 and all(any(_says(part, p) for p in phrases) for part in parts)


def breaks(words: tuple[str, ...]) -> tuple[int, ...]:
    """Places of the words that hold parts of a normalised phrase apart.

    Relations, and conjunctions but for those that join colours: "black and white dogs on grass" has
    one, "dogs and cats" has one.
    """
    return tuple(index for index in range(len(words)) if not _modifies(words, index))


def _says(words: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    if not phrase or words[-len(phrase) :] != phrase:
        return False
    before = len(words) - len(phrase)
    if before and (words[before - 1], phrase[0]) in NAMES:
        return False
    return all(_modifies(words, index) for index in range(before))


def _modifies(words: tuple[str, ...], index: int) -> bool:
    """Whether the word can belong to modifiers; "and" can where it joins colours."""
    if words[index] in JOINING:
        around = words[max(0, index - 1) : index] + words[index + 1 : index + 2]
        return len(around) == 2 and COLOURS.issuperset(around)
    return words[index] not in RELATIONS


def _parts(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What "and" and "or" join; without it, the whole."""
    parts: list[tuple[str, ...]] = [()]
    for word in words:
        if word in JOINING:
            parts.append(())
        else:
            parts[-1] = (*parts[-1], word)
    return parts


def _folded(word: str) -> str:
    spelled = word.replace("color", "colour").replace("gray", "grey")
    single = _singular(spelled)
    return _IRREGULAR.get(single, single)


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word in _SINGULAR or not word.endswith("s"):
        return word
    if word.endswith(("ss", "us", "is", "'s")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if _ES.search(word) or (word.endswith("oes") and len(word) > 5):
        return word[:-2]
    return word[:-1]
