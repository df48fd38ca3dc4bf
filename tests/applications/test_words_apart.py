"""Weighted log-odds, against the formula and its symmetries."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.applications.analyze.apart import PRIOR, log_odds, words_apart
from milan_onnx.applications.analyze.reading import Reader

READER = Reader()
said = st.lists(
    st.sampled_from(["dogs", "red dogs", "dogs on grass", "blue lines", "text", "a"]),
    min_size=1,
    max_size=20,
).map(lambda texts: [READER(text) for text in texts])


def test_one_score_by_hand() -> None:
    here, there = Counter(dog=8, line=2), Counter(dog=1, line=9)
    y, other, a = 8 + PRIOR * 9 / 20, 1 + PRIOR * 9 / 20, 10 + PRIOR
    expected = math.log(y / (a - y)) - math.log(other / (a - other))
    expected /= math.sqrt(1 / y + 1 / other)
    assert log_odds(here, there)["dog"] == pytest.approx(expected, abs=1e-4)
    assert log_odds(here, there)["line"] < 0


@given(said, said)
@settings(deadline=None)
def test_exchanged_groups_give_the_negative(here: list, there: list) -> None:
    forth = {score.word: score for score in words_apart(here, there)}
    back = {score.word: score for score in words_apart(there, here)}
    assert forth.keys() == back.keys()
    for word, score in forth.items():
        assert (score.z, score.here, score.there) == (
            -back[word].z, back[word].there, back[word].here,
        )  # fmt: skip


@given(said)
@settings(deadline=None)
def test_equal_groups_are_not_apart(units: list) -> None:
    assert all(score.z == 0 for score in words_apart(units, units))


@given(said, said)
@settings(deadline=None)
def test_the_order_is_total_and_does_not_hang_on_the_units(here: list, there: list) -> None:
    scores = words_apart(here, there)
    assert list(scores) == sorted(scores, key=lambda score: (-score.z, score.word))
    assert words_apart(here[::-1], there[::-1]) == scores


def test_a_word_said_once_does_not_lead() -> None:
    here = [READER(text) for text in ["red dogs"] * 30 + ["zebras"]]
    there = [READER(text) for text in ["lines"] * 30 + ["dogs"] * 3]
    words = [score.word for score in words_apart(here, there)]
    assert words[:2] == ["red", "dogs"]
    assert words[-1] == "lines"


def test_a_group_that_says_nothing_is_not_apart() -> None:
    assert words_apart([], [READER("dogs")]) == ()
    assert words_apart([READER("dogs")], []) == ()
    assert [s.z for s in words_apart([READER("dogs")], [READER("dogs")])] == [0]
