"""When two phrases say the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_onnx import wording
from milan_onnx.wording import breaks, normalise, right, says

WORDS = st.sampled_from(
    "dog dogs boxes box leaves gray color red orange the a of and or with round glasses".split()
)
PHRASES = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dogs", "a dog"),
        ("gray areas", "the Grey  area"),
        ("the color red", "colour red"),
        ("T-shirts", "t shirt"),
        ("boxes", "box"),
        ("dishes", "dish"),
        ("berries", "berry"),
        ("ties", "tie"),
        ("potatoes", "potato"),
        ("shoes", "shoe"),
        ("leaves", "leaf"),
        ("gloves", "glove"),
        ("houses", "house"),
        ("buses", "bus"),
        ("lenses", "lens"),
        ("people", "person"),
        ("letter A", "letters a"),
        ("carpenter’s kits", "carpenter's kit"),
    ],
)
def test_the_same_words(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert says(one, other) and says(other, one)


@pytest.mark.parametrize("word", ["grass", "dress", "cactus", "iris", "bus", "gas", "canvas", "s"])
def test_a_singular_that_ends_in_s_stays(word: str) -> None:
    assert normalise(word) == (word,)


@pytest.mark.parametrize(
    ("description", "phrase", "verdict"),
    [
        ("brown dogs", "dogs", True),
        ("dogs", "brown dogs", False),
        ("black and white dogs", "dogs", True),
        ("cats and dogs", "dogs", False),
        ("heads of dogs", "dogs", False),
        ("dogs on grass", "dogs", False),
        ("hot dogs", "dogs", False),
        ("big hot dogs", "hot dogs", True),
        ("dogs", "cats", False),
        ("dogs", "", False),
        ("", "dogs", False),
        ("watchdogs", "dogs", False),
    ],
)
def test_modifiers_and_heads(description: str, phrase: str, verdict: bool) -> None:
    assert says(description, phrase) is verdict


@pytest.mark.parametrize(
    ("description", "accepted", "verdict"),
    [
        ("dogs and wolves", ("wolves", "dogs"), True),
        ("dogs and cats", ("dogs", "wolves"), False),
        ("dogs and cats", ("dogs and cats",), True),
        ("brown dogs or gray wolves", ("wolf", "dog"), True),
        ("black and white", ("black and white",), True),
        ("dogs", (), False),
        ("and", ("dogs",), False),
    ],
)
def test_right(description: str, accepted: tuple[str, ...], verdict: bool) -> None:
    assert right(description, accepted) is verdict


@given(st.text(max_size=40))
def test_normalising_again_changes_nothing(text: str) -> None:
    words = normalise(text)
    assert normalise(" ".join(words)) == words


@given(PHRASES)
def test_case_space_and_hyphens_do_not_matter(text: str) -> None:
    assert normalise(text.upper().replace(" ", " - ")) == normalise(text)


@given(PHRASES, PHRASES)
def test_what_says_is_right(description: str, phrase: str) -> None:
    if says(description, phrase):
        assert right(description, [phrase, "something else"])
        assert normalise(description)[-1] == normalise(phrase)[-1]


@given(PHRASES, st.lists(PHRASES, max_size=3), PHRASES)
def test_more_accepted_phrases_never_turn_right_to_wrong(
    description: str, accepted: list[str], more: str
) -> None:
    if right(description, accepted):
        assert right(description, [*accepted, more])


@given(st.lists(st.sampled_from(["dogs", "cats", "red birds", "cars"]), min_size=1, max_size=4))
def test_joined_descriptions_need_every_part(parts: list[str]) -> None:
    text = " and ".join(parts)
    assert right(text, parts)
    missing = [part for part in ("dogs", "cats", "red birds", "cars") if part != parts[0]]
    assert not right(text, missing)


def test_folded_forms_are_fixed_points() -> None:
    for words in (wording.COLOURS, wording.RELATIONS, *wording.NAMES):
        for word in words:
            assert normalise(f"{word} x")[:1] in ((word,), ("x",))


@pytest.mark.parametrize(
    ("phrase", "parts"),
    [
        ("black and white dogs on the grass", ["black and white dog", "grass"]),
        ("dogs and cats", ["dog", "cat"]),
        ("on top", ["", "top"]),
        ("dogs", ["dog"]),
    ],
)
def test_breaks_hold_parts_apart(phrase: str, parts: list[str]) -> None:
    words = normalise(phrase)
    ends = [-1, *breaks(words), len(words)]
    assert [" ".join(words[a + 1 : b]) for a, b in pairwise(ends)] == parts
