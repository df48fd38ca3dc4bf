"""What a description is made of: kinds, parts of speech, length, complexity."""

from __future__ import annotations

import json
from importlib import resources
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.applications.analyze.criteria import MAX_WORD_DIFFERENCE, criteria
from milan_onnx.applications.analyze.figures import figures
from milan_onnx.applications.analyze.kinds import JOINS, Kinds
from milan_onnx.applications.analyze.reading import Reader
from milan_onnx.applications.analyze.result import NO_KIND
from milan_onnx.applications.analyze.speech import NOUN, PARTS, Speech
from milan_onnx.applications.lexicon import parse_lexicon, shipped_lexicon
from milan_onnx.applications.sentences import PACKAGE
from milan_onnx.labels import UnitLabel, Validity
from milan_onnx.wording import normalise

READER = Reader()
KINDS = (
    "colour", "texture", "part", "object", "scene", "person", "text", "relation", "logic",
    "abstract",
)  # fmt: skip
WORDS = sorted({word for group in shipped_lexicon("kinds").values() for word in group.words})
# Words of names of breeds, brands and people, which name no thing by themselves.
NAMES = frozenset(
    "aid assault carpenter's charle crash fiddler flandre freight geoffroy's gordon granny hermit "
    "killer lady's link petri poke polka polo potter's reflex rule scuba slip smith stop sulphur "
    "shih tow ts yang yin".split()
)


def label(description: str | None, unit: int = 0, pmi: float | None = -1.0) -> UnitLabel:
    return UnitLabel("ab" * 32, "relu", unit, description, pmi, None, None, (), (), 0.0)


# --- kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("description", "main", "kinds"),
    [
        ("the color green", "colour", "colour"),
        ("bright areas", "colour", "colour abstract"),
        ("horizontal lines", "texture", "texture"),
        ("green patterns", "texture", "colour texture"),
        ("red striped cats", "object", "colour texture object"),
        ("dog faces", "part", "part object"),
        ("human faces", "part", "part person"),
        ("snowy mountains", "scene", "scene"),
        ("sea lions", "object", "object"),
        ("king penguins", "object", "object"),
        ("baseball players", "person", "person"),
        ("people walking", "person", "person"),
        ("letter openers", "object", "object"),
        ("paragraphs of text", "text", "text"),
        ("signs", "object", "object text"),
        ("orange areas", "colour", "colour abstract"),
        ("oranges", "object", "object"),
        ("orange cats", "object", "colour object"),
        ("the color orange", "colour", "colour"),
        ("black and white dogs", "object", "colour object logic"),
        ("dogs and water", "object", "object scene logic"),
        ("dogs next to a wall", "object", "part object relation"),
        ("birds of prey", "object", "object"),
        ("areas of water", "scene", "scene abstract"),
        ("edges of objects", "texture", "texture abstract"),
        ("things with wheels", "part", "part relation abstract"),
        ("objects in areas", "abstract", "relation abstract"),
        ("object parts", "part", "part"),
        ("green mambas", "object", "object"),
        ("dogs, grass", "object", "object scene"),
        ("red, striped cats", "object", "colour texture object"),
        ("people, animals; text, ", "person", "object person text"),
        ("Gray backgrounds", "colour", "colour abstract"),
        ("xyzzy", None, ""),
        ("of the", None, ""),
        ("", None, ""),
    ],
)  # fmt: skip
def test_kinds_of(description: str, main: str | None, kinds: str) -> None:
    found = READER(description).kinds
    assert (found.main, found.all) == (main, tuple(sorted(kinds.split(), key=KINDS.index)))


def test_the_lexicon_has_the_kinds_that_are_promised() -> None:
    assert tuple(shipped_lexicon("kinds")) == KINDS
    assert set(shipped_lexicon("parts_of_speech")) <= set(PARTS)


def test_every_noun_of_the_shipped_captioner_has_a_kind() -> None:
    place = resources.files("milan_onnx").joinpath("models", "default", "tokenizer.json")
    vocabulary = json.loads(place.read_text(encoding="utf-8"))["model"]["vocab"]
    words = {w for text in vocabulary if text[0] != "<" for w in normalise(text)}
    speech = Speech()
    nouns = {word for word in words if speech((word, "object"))[0] == NOUN}
    assert len(nouns) > 1000
    assert {word for word in nouns if not READER.finder.known(word)} - NAMES == set()


def test_a_lexicon_of_ones_own() -> None:
    text = '[birds]\nwords = ["bird", "owl"]\n[water]\nwords = ["lake"]\n'
    reader = Reader(parse_lexicon(text, "mine"))
    assert reader("owls on a lake").kinds == Kinds(("birds", "water"), "birds")
    assert reader("dogs").kinds == Kinds((), None)


phrases = st.lists(st.sampled_from([*WORDS, "xyzzy", "a", "of"]), max_size=6).map(" ".join)


@given(phrases)
@settings(deadline=None)
def test_the_main_kind_is_one_of_all(phrase: str) -> None:
    kinds = READER(phrase).kinds
    assert list(kinds.all) == sorted(set(kinds.all), key=KINDS.index)
    assert kinds.main is None or kinds.main in kinds.all
    assert kinds.main not in JOINS
    assert (kinds.main is None) == (not set(kinds.all) - JOINS)


# --- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "tags"),
    [
        ("orange cats", "adjective noun"),
        ("oranges", "noun"),
        ("black and white dogs", "adjective conjunction adjective noun"),
        ("people walking on the grass", "noun verb adposition noun"),
        ("xyzzy of two dogs", "noun adposition other noun"),
    ],
)
def test_parts_of_speech(phrase: str, tags: str) -> None:
    assert READER(phrase).tags == tuple(tags.split())


@pytest.mark.parametrize(
    ("phrase", "length", "complexity"),
    [
        ("dogs", 1, 0),
        ("the dogs", 2, 0),
        ("brown dogs", 2, 1),
        ("black-and-white dogs", 2, 3),
        ("dogs and cats", 3, 1),
        ("brown dogs on green grass", 5, 3),
        ("long, thin dogs", 3, 2),
        ("dogs, cats, and mice", 4, 1),
        ("", 0, 0),
    ],
)
def test_length_and_complexity(phrase: str, length: int, complexity: int) -> None:
    assert (READER(phrase).length, READER(phrase).complexity) == (length, complexity)


def test_words_keep_their_form() -> None:
    reading = READER("Leaves and leaves of T-shirts")
    assert reading.vocabulary["leaf"] == "leaves"
    assert set(reading.vocabulary) == {"leaf", "and", "of", "t", "shirt"}
    assert reading.content == ("leaves", "shirts")


@given(st.lists(st.one_of(st.none(), phrases.filter(bool)), max_size=12))
@settings(deadline=None)
def test_figures_add_up(texts: list[str | None]) -> None:
    labels = [label(text, unit) for unit, text in enumerate(texts)]
    found = figures("run", "relu", labels, READER)
    said = [READER(text) for text in texts if text]
    assert found.units == len(texts)
    assert found.described == len(said) == sum(found.mains.values())
    assert set(found.mains) == set(KINDS) - JOINS | {NO_KIND}
    assert max(found.kinds.values()) <= found.described
    assert all(found.mains[name] <= found.kinds[name] for name in set(found.mains) - {NO_KIND})
    assert sum(found.speech.values()) == sum(len(reading.words) for reading in said)
    assert sum(found.lengths.values()) == sum(found.complexities.values()) == found.described
    assert found.covered is None or 0 <= found.covered <= 1


# --- criteria --------------------------------------------------------------------------------


def test_criteria_count_what_a_description_holds() -> None:
    texts = ("red dogs on grass", "people walking", None)
    found = criteria([label(text, unit) for unit, text in enumerate(texts)], word_difference=False)
    assert {name: scores.tolist()[:2] for name, scores in found.items()} == {
        "nouns": [2, 1],
        "adjectives": [1, 0],
        "verbs": [0, 1],
        "adpositions": [1, 0],
        "length": [4, 2],
        "complexity": [2, 1],
        "pmi": [-1, -1],
        **{f"kind:{name}": [name in ("colour", "object", "scene", "relation"), name == "person"]
           for name in KINDS},
    }  # fmt: skip
    without = {name for name, scores in found.items() if scores[2] != scores[2]}
    assert without == set(found) - {"pmi"}


def test_criteria_that_no_unit_has_are_left_out() -> None:
    units = [label("dogs", pmi=None), label("cats", 1, pmi=None)]
    assert not {"validity", "pmi", MAX_WORD_DIFFERENCE} & set(
        criteria(units, word_difference=False)
    )
    tested = [UnitLabel(**{**vars(units[0]), "validity": Validity(0.5, None, None, None, 9)})]
    assert criteria(tested, word_difference=False)["validity"].tolist() == [0.5]


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the sentence model is not installed")
def test_the_largest_difference_of_words() -> None:
    texts = ("dogs", "dogs and wolves", "wolves and dogs", "dogs and screwdrivers")
    found = criteria([label(text, unit) for unit, text in enumerate(texts)])[MAX_WORD_DIFFERENCE]
    assert found[0] == 0
    assert 0 < found[1] == found[2] < found[3] <= 4
