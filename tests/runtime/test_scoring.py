"""Phrase scores against one token at a time, and against the search's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.errors import PhraseUnknown
from milan_onnx.runtime import Describer, Device
from milan_onnx.runtime.scoring import phrase_array
from tests.toy import FEATURES, toy_bundle


def features(units: int, k: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((units, k, FEATURES)).astype(np.float32)


def naive(describer: Describer, exemplars: np.ndarray, tokens: list[int]) -> float:
    """log p(tokens|E) of exemplars (K, F), alone, a token at a time, from the whole vocabulary."""
    captioner, zero = describer._captioner, np.zeros(1, np.int64)
    vocabulary = describer.bundle.manifest.vocabulary
    contexts, states, _ = captioner.start(exemplars[None])
    last, total = vocabulary.start, 0.0
    for token in tokens:
        step = captioner.step(contexts, zero, states, zero, np.array([last]), vocabulary.size)
        total += float(step.log_prob[0][step.next_token[0] == token][0])
        states, last = step.states, token
    return total


@given(
    units=st.integers(1, 4),
    k=st.sampled_from([1, 2, 15]),
    phrases=st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=9),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_same_as_a_token_at_a_time(
    describer: Describer, units: int, k: int, phrases: list[list[int]], seed: int
) -> None:
    x = features(units, k, seed)
    unit = np.random.default_rng(seed).integers(0, units, len(phrases))
    found = describer.score(x, unit, phrase_array(phrases))
    expected = [naive(describer, x[u], p) for u, p in zip(unit, phrases, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_scores_of_found_descriptions_are_the_search_s(describer: Describer) -> None:
    x = features(20, 6)
    found = [h for best in describer.describe(x, candidates=3) for h in best]
    unit = np.repeat(np.arange(20), 3)
    assert len(found) == 60
    scores = describer.score(x, unit, phrase_array([h.tokens for h in found]))
    np.testing.assert_allclose(scores, [h.log_p_given_exemplars for h in found], atol=2e-5)
    stop = describer.bundle.manifest.vocabulary.stop
    ended = [h for h in found if h.tokens[-1] == stop]
    assert len(ended) > 40
    assert all(describer.tokens(h.description) == h.tokens for h in ended)


@pytest.mark.parametrize("k", [1, 5])
def test_a_score_is_the_same_in_any_company(describer: Describer, k: int) -> None:
    x = features(40, k)
    rng = np.random.default_rng(1)
    phrases = phrase_array([rng.integers(0, 30, rng.integers(1, 5)).tolist() for _ in range(120)])
    unit = np.repeat(np.arange(40), 3)
    together = describer.score(x, unit, phrases)
    for one in (0, 7, 39):
        mine = unit == one
        alone = describer.score(x[one : one + 1], np.zeros(3, np.int64), phrases[mine])
        assert alone.tobytes() == together[mine].tobytes()
    order = rng.permutation(120)
    assert describer.score(x, unit[order], phrases[order]).tobytes() == together[order].tobytes()


def test_words_outside_the_vocabulary_are_named(describer: Describer) -> None:
    assert len(describer.tokens("Red  wheel")) == 3
    with pytest.raises(PhraseUnknown, match="does not know 'zebra', 'sofa'"):
        describer.tokens("red zebra and sofa zebra")
    with pytest.raises(PhraseUnknown, match="needs words"):
        describer.tokens("  ")


def test_words_with_hyphens_are_one(tmp_path: Path) -> None:
    made = Describer(toy_bundle(tmp_path, words=("t-shirts", "and", "red", ",")), Device("cpu"))
    assert made.text(np.array(made.tokens("T-shirts, red"))) == "t-shirts , red"
