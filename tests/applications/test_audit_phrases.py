"""What phrase scoring decides by: sums over spellings, raised odds, few false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx import DescribeOptions, describe
from milan_onnx.applications.lexicon import Group
from milan_onnx.applications.phrases import Scoring, score_phrases
from milan_onnx.applications.standing import Place, raised_odds, standings_of
from milan_onnx.applications.terms import score_terms
from milan_onnx.progress import Silent
from milan_onnx.run import Run
from tests.toy import WORDS, toy_bundle, toy_subject

OWN, CONTROLS = [0, 1, 2], [3, 4, 5, 6]
SIDES = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A toy run of a captioner that knows "face" and "faces"."""
    folder = tmp_path_factory.mktemp("phrases")
    bundle = toy_bundle(folder / "bundle", words=(*WORDS, "faces")).path
    options = DescribeOptions(synthetic=40, exemplars=4, validity=False, report=False)
    model = toy_subject(folder / "model.onnx")
    return describe(model, "relu6", None, folder / "run", bundle=bundle, options=options)


def test_a_term_is_the_sum_of_its_spellings(run: Run) -> None:
    terms = score_terms(run, ["face", "Faces", "bright area", "wolf"], Scoring(), Silent())
    assert terms.terms == ("face", "bright area")
    plain = score_phrases(run, ["face", "faces", "bright areas"], Scoring(), Silent())
    assert plain.phrases == ("face", "faces", "bright areas")
    np.testing.assert_allclose(
        np.exp(terms.log_p_given_exemplars[:, 0]),
        np.exp(plain.log_p_given_exemplars[:, :2]).sum(axis=1),
    )
    np.testing.assert_allclose(np.exp(terms.log_p[0]), np.exp(plain.log_p[:2]).sum())


def test_phrases_as_given_are_not_spelled_otherwise(run: Run) -> None:
    found = score_phrases(run, ["faces", "eyes"], Scoring(), Silent())
    assert found.phrases == ("faces",)
    assert len(found.unknown) == 1


def test_a_standing_says_what_was_asked(run: Run) -> None:
    groups = [Group("faces", ("face", "portrait")), Group("marks", ("watermark",))]
    found = standings_of(run, groups, {}, Scoring(), Silent())
    assert (found["faces"].known, found["faces"].unknown) == (("face",), ("portrait",))
    assert found["marks"].known == () and not found["marks"].places
    label = run.labels[0]
    place = found["faces"].of(label)
    assert place is not None and place.term == "face" and place.phrase in ("face", "faces")
    assert found["marks"].of(label) is None


def test_a_group_must_be_likelier_than_what_it_is_against(run: Run) -> None:
    rivals = Group("rivals", ("eye",))
    alone, against = Group("faces", ("face",)), Group("faces", ("face",), against=("rivals",))
    free, held = (
        standings_of(run, [group], {"rivals": rivals}, Scoring(), Silent())["faces"]
        for group in (alone, against)
    )
    scores = score_terms(run, ["face", "eye"], Scoring(), Silent())
    pmi = scores.log_p_given_exemplars - scores.log_p
    for label, gain in zip(scores.labels, pmi[:, 1], strict=True):
        before, after = free.of(label), held.of(label)
        assert before is not None and after is not None
        # What rises more than everyday things takes from the group, what rises less gives to it.
        everyday = pmi[:, 0][scores.labels.index(label)] - before.raised
        assert (after.raised < before.raised) == (gain > everyday)


@settings(max_examples=50, deadline=None)
@given(SIDES)
def test_likelier_units_raise_the_odds_and_louder_ones_do_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, prior = rng.normal(-8, 3, (5, 7)), rng.normal(-8, 2, 7)
    before = raised_odds(scores, prior, OWN, CONTROLS)
    louder = scores + rng.normal(0, 5, (5, 1))
    np.testing.assert_allclose(raised_odds(louder, prior, OWN, CONTROLS), before)
    likelier = scores.copy()
    likelier[:, OWN] += 1
    np.testing.assert_allclose(raised_odds(likelier, prior, OWN, CONTROLS), before + 1)


@settings(max_examples=50, deadline=None)
@given(SIDES, st.sampled_from([0.5, 0.2, 0.05]))
def test_a_right_captioner_raises_few_false_alarms(seed: int, level: float) -> None:
    """Terms and exemplars with any joint distribution, exemplars of everyday things only."""
    rng = np.random.default_rng(seed)
    joint = rng.gamma(0.1, size=(40, 7)) + 1e-12  # few exemplars for each term, as in earnest
    joint /= joint.sum()
    of_terms, of_exemplars = joint.sum(axis=0), joint.sum(axis=1, keepdims=True)
    raised = raised_odds(np.log(joint / of_exemplars), np.log(of_terms), OWN, CONTROLS)
    everyday = joint[:, CONTROLS].sum(axis=1) / joint[:, CONTROLS].sum()
    assert (everyday * np.exp(raised)).sum() == pytest.approx(1)
    alarms = np.array([Place(float(odds), "", "").chance <= level for odds in raised])
    assert everyday[alarms].sum() <= level + 1e-9


def test_chance_is_a_share() -> None:
    assert Place(-3.0, "", "").chance == 1
    assert Place(math.log(20), "", "").chance == pytest.approx(0.05)


def test_without_everyday_words_the_groups_own_odds_count() -> None:
    scores, prior = np.log([[0.5, 0.1], [0.05, 0.1]]), np.log([0.1, 0.1])
    np.testing.assert_allclose(raised_odds(scores, prior, [0], []), np.log([5, 0.5]))
