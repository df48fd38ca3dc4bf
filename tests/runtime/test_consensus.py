"""The search consensus against its definition, pair by pair, and what may go wrong with vectors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_onnx.bundle import WORD_VECTORS, Bundle, load_bundle, read_word_vectors, write_manifest
from milan_onnx.errors import BundleError, UsageError
from milan_onnx.runtime import Describer, Device, Hypothesis, search_options
from milan_onnx.runtime.consensus import (
    DOUBT,
    POWER,
    agreements,
    cosines,
    covering,
    phrase_vectors,
    posterior,
    similarities,
    with_prediction,
    word_table,
)
from tests.runtime.test_search import features
from tests.toy import toy_bundle

WORDS, LENGTH, DEPTH = 9, 5, 4


@pytest.fixture(scope="module", params=[None, 0.0, 2.0], ids=["unpredicted", "counts-0", "counts"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of captioners that predict a phrase vector or do not; how much it counts."""
    weight: float | None = request.param
    folder = tmp_path_factory.mktemp("vectors")
    made = toy_bundle(folder, vectors=DEPTH, predicted=weight is not None)
    search = replace(made.manifest.search, strategy="consensus", predicted=weight or 0.0)
    return write_manifest(made.path, replace(made.manifest, search=search))


@pytest.fixture(scope="module")
def describer(bundle: Bundle) -> Describer:
    return Describer(bundle, Device("cpu"))


def table(seed: int) -> np.ndarray:
    """Vectors of words, two of which have none, and the zeros of -1."""
    found = np.random.default_rng(seed).standard_normal((WORDS + 1, DEPTH))
    found[[2, 5, -1]] = 0
    return found


phrases = st.lists(
    st.lists(st.integers(0, WORDS - 1), max_size=LENGTH), min_size=1, max_size=8, unique_by=tuple
)


def padded(some: list[list[int]]) -> np.ndarray:
    return np.array([[*phrase, *[-1] * (LENGTH - len(phrase))] for phrase in some])


def similarity(first: int, second: int, vectors: list[np.ndarray]) -> float:
    if not vectors[first].any() or not vectors[second].any():
        return float(first == second)
    a, b = vectors[first], vectors[second]
    return 1.0 if first == second else max(0.0, float(a @ b / np.sqrt((a @ a) * (b @ b)))) ** POWER


@given(some=phrases, seed=st.integers(0, 50), sharpness=st.sampled_from([0.0, 0.5, 3.0, 1e4]))
@settings(max_examples=60)
def test_agreement_is_the_expected_similarity(
    some: list[list[int]], seed: int, sharpness: float
) -> None:
    vectors, pmi = table(seed), np.random.default_rng(seed).standard_normal(len(some))
    sums = [sum((vectors[word] for word in set(p)), np.zeros(DEPTH)) for p in some]
    odds = [np.exp(sharpness * (value - pmi.max())) for value in pmi]
    expected = [
        sum(w * similarity(i, j, sums) for j, w in enumerate(odds)) / sum(odds)
        for i in range(len(some))
    ]
    alike = similarities(phrase_vectors(padded(some), vectors))
    found = agreements(alike, posterior(pmi, sharpness))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_equal_words_in_another_order_are_equal_to_the_last_bit() -> None:
    found = phrase_vectors(
        np.array([[1, 3, 7, 8, 4], [8, 7, 1, 4, 3], [3, 3, 1, -1, -1]]), table(0)
    )
    assert found[0].tobytes() == found[1].tobytes()
    assert found[2].tobytes() == phrase_vectors(np.array([[1, 3]]), table(0))[0].tobytes()


def test_ties_go_to_the_better_pmi() -> None:
    agreement = np.array([0.3, 0.5, 0.5 + 4e-7, 0.5])
    assert next(covering(np.eye(4), np.full(4, 0.25), agreement)) == 1


@given(count=st.integers(1, 7), seed=st.integers(0, 200))
@settings(max_examples=60)
def test_each_candidate_adds_most_to_what_the_others_cover(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alike = similarities(phrase_vectors(rng.integers(0, WORDS, (count, 2)), table(seed)))
    weights = posterior(rng.standard_normal(count), 1.0)
    order = list(covering(alike, weights, agreements(alike, weights)))
    assert sorted(order) == list(range(count))

    def covered(chosen: list[int]) -> float:
        return float(sum(w * alike[chosen, j].max() for j, w in enumerate(weights)))

    for place in range(count):
        best = max(covered([*order[:place], other]) for other in order[place:])
        assert covered(order[: place + 1]) == pytest.approx(best, abs=2e-6)


def plain_first(
    describer: Describer, unit: list[Hypothesis], predicted: np.ndarray | None
) -> Hypothesis:
    """The hypothesis that the others, and what is predicted, agree with most."""
    search = describer.bundle.manifest.search
    vectors = np.load(describer.bundle.file(WORD_VECTORS)).astype(np.float64)
    said = [{t for t in h.tokens if t < describer.words} for h in unit]
    sums = [sum((vectors[t] for t in sorted(s)), np.zeros(DEPTH)) for s in said]
    odds = [np.exp(search.sharpness * (h.pmi - unit[0].pmi)) for h in unit]
    scores = [
        sum(w * similarity(i, j, sums) for j, w in enumerate(odds)) / sum(odds)
        for i in range(len(unit))
    ]
    if predicted is None:
        best = int(np.argmax(np.round(np.array(scores) / 1e-6)))
        return replace(unit[best], agreement=scores[best])
    lengths = [np.linalg.norm(s) * np.linalg.norm(predicted) for s in sums]
    alike = [s @ predicted / n if n else 0.0 for s, n in zip(sums, lengths, strict=True)]
    share = search.predicted * (1 - max(scores)) ** DOUBT
    scores = [
        (score + share * max(0.0, cosine) ** POWER) / (1 + share)
        for score, cosine in zip(scores, alike, strict=True)
    ]
    best = int(np.argmax(np.round(np.array(scores) / 1e-6)))
    certainty = sum(w * c for w, c in zip(odds, alike, strict=True)) / sum(odds)
    known = {"agreement": scores[best], "predicted": alike[best], "certainty": certainty}
    return replace(unit[best], **known)


NOT_RANKED = dict.fromkeys(("agreement", "predicted", "certainty"))


def test_the_first_is_the_most_agreed_and_all_others_follow(describer: Describer) -> None:
    x, search = features(12, seed=3), describer.bundle.manifest.search
    ranked = list(describer.describe(x, replace(search, strategy="rerank"), candidates=50))
    found = list(describer.describe(x, candidates=50))
    vectors = describer._captioner.start(x).phrase_vector
    moved = 0
    for unit, (before, after) in enumerate(zip(ranked, found, strict=True)):
        assert all(replace(h, **NOT_RANKED) == h for h in before)
        first = plain_first(describer, before, None if vectors is None else vectors[unit])
        assert after[0].description == first.description
        for name in NOT_RANKED:
            assert getattr(after[0], name) == pytest.approx(getattr(first, name), abs=1e-6)
        told = [replace(h, **NOT_RANKED) for h in after]
        assert {*before} == {*told} and len(before) == len(told)
        moved += before[0].description != first.description
    assert moved > 0


def test_a_prediction_is_one_hypothesis_more_that_is_not_told() -> None:
    phrases = phrase_vectors(np.array([[1], [3], [2]]), table(1))  # the last has no vector
    alike, weights = similarities(phrases), posterior(np.array([0.0, 0.0, 0.0]), 1.0)
    predicted = cosines(phrases, 3 * phrases[1])
    assert predicted.tolist() == pytest.approx([float(phrases[0] @ phrases[1]), 1.0, 0.0])
    joined, counted = with_prediction(alike, weights, predicted, 1e6)
    doubt = (1 - agreements(alike, weights).max()) ** DOUBT
    assert counted[-1] == pytest.approx(1e6 * doubt / (1 + 1e6 * doubt))
    assert joined.shape == (3, 4) and counted.sum() == pytest.approx(1)
    found = agreements(joined, counted)
    assert found[1] == pytest.approx(1, abs=1e-5)
    assert sorted(covering(joined, counted, found)) == [0, 1, 2]
    assert agreements(*with_prediction(alike, weights, predicted, 0)).tolist() == pytest.approx(
        agreements(alike, weights).tolist()
    )
    assert cosines(phrases, np.zeros(DEPTH)).tolist() == [0, 0, 0]


def test_it_does_not_depend_on_the_batch_nor_on_the_number_of_candidates(
    describer: Describer,
) -> None:
    x = features(40, seed=5)
    together = list(describer.describe(x))
    assert together == [next(describer.describe(x[u : u + 1])) for u in range(40)]
    assert [unit[:2] for unit in together] == list(describer.describe(x, candidates=2))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"hello", "is not an array in NumPy's format"),
        (b"", "is not an array in NumPy's format"),
        (np.array([{"a": 1}]), "is not an array in NumPy's format"),
        (np.zeros((35, 3), np.float32), r"holds float32 \(35, 3\)"),
        (np.zeros((34, 3), np.float16), r"of 35 tokens are float16 \(35, D\)"),
        (np.zeros((35, 0), np.float16), "word_vectors.npy"),
        (np.zeros(35, np.float16), r"\(35,\)"),
        (np.full((35, 2), np.inf, np.float16), "not finite"),
    ],
)
def test_bad_vectors_are_told_with_their_file(
    tmp_path: Path, value: bytes | np.ndarray, words: str
) -> None:
    path = tmp_path / WORD_VECTORS
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        np.save(path, value, allow_pickle=True)
    with pytest.raises(BundleError, match=words) as told:
        read_word_vectors(path, 35)
    assert str(path) in str(told.value)
    assert "pickle" not in str(told.value)


def test_a_file_cut_short_and_one_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / WORD_VECTORS
    np.save(path, np.zeros((35, 30), np.float16))
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:50], whole.replace(b"(35, 30)", b"(35, 9**9)")):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="is not an array"):
            read_word_vectors(path, 35)


def test_special_tokens_have_no_vector(tmp_path: Path) -> None:
    path = tmp_path / WORD_VECTORS
    np.save(path, np.ones((5, 2), np.float16))
    found = word_table(path, [2, 0], 5)
    assert found.sum(axis=1).tolist() == [2, 0, 2, 0, 0, 0]


def test_a_bundle_that_searches_by_consensus_needs_vectors(bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "b"))
    (copy / WORD_VECTORS).unlink()
    with pytest.raises(BundleError, match=r"word_vectors\.npy is missing"):
        load_bundle(copy)
    with pytest.raises(BundleError, match=r"manifest lists no word_vectors\.npy"):
        write_manifest(copy, bundle.manifest)


def test_asking_a_bundle_without_vectors_for_consensus_is_refused(tmp_path: Path) -> None:
    plain = toy_bundle(tmp_path)
    with pytest.raises(UsageError, match="the bundle toy has none"):
        search_options(plain, strategy="consensus")
    options = replace(plain.manifest.search, strategy="consensus")
    with pytest.raises(UsageError, match="needs word vectors"):
        next(Describer(plain, Device("cpu")).describe(features(1), options))


def test_a_prediction_of_another_length_than_word_vectors_is_refused(tmp_path: Path) -> None:
    made = toy_bundle(tmp_path, vectors=DEPTH, predicted=True)
    for length in (DEPTH + 1, -1):
        captioner = replace(made.manifest.captioner, phrase_vector=length)
        with pytest.raises(BundleError, match=r"phrase_vector|phrase vectors"):
            write_manifest(made.path, replace(made.manifest, captioner=captioner))
